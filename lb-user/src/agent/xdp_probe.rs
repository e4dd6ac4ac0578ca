//! Whether XDP can run at the uplinks (`--xdp`): found out before anything is set up.

use std::{fs, io, path::Path};

use anyhow::{Result, anyhow, bail};
use aya::programs::loaded_programs;

use super::routes::role_name;
use crate::{
    attach::xdp::{Mode, XdpReservation, is_attached},
    netlink::{Link, LinkKind, Role, World},
};

/// Takes the uplinks for XDP, or says why not. `links` is where an agent before us has left its pins: what it
/// has is taken over later.
pub fn take(world: &World, uplinks: &[u32], mode: Mode, links: &Path) -> Result<XdpReservation> {
    let mut taken = XdpReservation::default();
    for link in uplinks.iter().filter_map(|uplink| world.links.get(uplink)) {
        fits(world, link)?;
        let is_ours =
            [Mode::Native, Mode::Generic].iter().any(|mode| is_attached(links, link.ifindex, *mode));
        if !is_ours {
            taken.take(link.ifindex, mode).map_err(|error| refusal(link, mode, &error))?;
        }
    }
    Ok(taken)
}

/// What XDP costs at the uplinks, and what it needs where that can't be seen, a sentence each.
pub fn warnings(world: &World, uplinks: &[u32], mode: Mode) -> Vec<String> {
    let links = || uplinks.iter().filter_map(|uplink| world.links.get(uplink));
    let enslaved = links().filter_map(|link| Some((&link.name, bridge_of(world, link)?)));
    let enslaved = enslaved.map(|(name, bridge)| {
        format!(
            "{name} is a port of the bridge {bridge}: with XDP also the packets that are only bridged lose what \
             the driver does for large ones (LRO, often GRO in hardware)"
        )
    });
    // The other end takes frames that XDP sends back only if it has a program itself (on kernel 6.18 GRO is not enough),
    // and hands over frames without checksums while it leaves these to a NIC.
    let is_native_veth = |link: &&Link| mode == Mode::Native && matches!(link.kind, LinkKind::Veth { .. });
    let veths = links().filter(is_native_veth).map(|Link { name, .. }| {
        format!(
            "{name} is a veth, and XDP serves there only if its other end, PEER, has a program of XDP, too, be it one \
             that passes everything (`ip link set dev PEER xdp obj FILE`), and no checksum offload (`ethtool -K PEER tx \
             off`): that is not looked at; where all calls time out, set both there, or leave --xdp out"
        )
    });
    enslaved.chain(veths).collect()
}

/// The bridge that a device is a port of.
fn bridge_of<'w>(world: &'w World, link: &Link) -> Option<&'w str> {
    let master = world.links.get(&link.master?)?;
    (master.kind == LinkKind::Bridge).then_some(master.name.as_str())
}

/// Whether XDP makes sense at a device.
fn fits(world: &World, link: &Link) -> Result<()> {
    let name = &link.name;
    if link.kind == LinkKind::Bridge {
        bail!(
            "--xdp: {name} is a bridge, and XDP belongs at its NIC: name that with --uplink, or leave --xdp out"
        );
    }
    match (bridge_of(world, link), world.role(link)) {
        (Some(bridge), role @ (Role::Pod | Role::Vm)) => bail!(
            "--xdp: {name} is a port of the bridge {bridge} with a {} behind it, all of whose traffic would lose its \
             offloads to XDP; name the device that leads outside with --uplink, or leave --xdp out",
            role_name(role)
        ),
        _ => Ok(()),
    }
}

/// Why the kernel does not attach XDP to a device, and what to do.
pub fn refusal(link: &Link, mode: Mode, error: &io::Error) -> anyhow::Error {
    let (name, driver) = (&link.name, driver(link));
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) if mode == Mode::Native => anyhow!(
            "--xdp: the driver of {name}, {driver}, has no native XDP; use --xdp=generic, which works on any device \
             and saves less, or leave --xdp out"
        ),
        Some(libc::EBUSY | libc::EEXIST) => anyhow!(
            "--xdp: {name} has {}, which is left alone: detach it (`ip link set dev {name} xdp off` for one \
             without a link), or leave --xdp out",
            other(link)
        ),
        Some(libc::EPERM | libc::EACCES) => anyhow!("--xdp: not permitted: run as root"),
        _ => {
            let why = lb_sys::xdp::refusal(link.ifindex, mode.flags()).unwrap_or_else(|| error.to_string());
            anyhow!(
                "--xdp: the driver of {name}, {driver}, refuses it: {why} (the MTU is {}); correct that, use \
                 --xdp=generic, or leave --xdp out",
                link.mtu
            )
        }
    }
}

/// Whose program it is that is in the way.
fn other(link: &Link) -> String {
    let Some(id) = link.xdp else {
        return "a program of XDP already, or the device it belongs to has".to_owned();
    };
    let found = loaded_programs().filter_map(Result::ok).find(|program| program.id() == id);
    let called = found.as_ref().and_then(|program| program.name_as_str());
    let called = called.filter(|name| !name.is_empty()).map_or_else(String::new, |name| format!(" ({name})"));
    format!("the XDP program {id}{called} already")
}

/// The name of a device's driver. Where the kernel has a kind for it, that is its name, too.
fn driver(link: &Link) -> String {
    match &link.kind {
        LinkKind::Veth { .. } => "veth".to_owned(),
        LinkKind::Tap => "tun".to_owned(),
        LinkKind::Bridge => "bridge".to_owned(),
        LinkKind::Other(kind) => kind.clone(),
        LinkKind::Physical if link.name == "lo" => "loopback".to_owned(),
        LinkKind::Physical => {
            let driver = fs::read_link(format!("/sys/class/net/{}/device/driver", link.name));
            let name = driver.ok().and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
            name.unwrap_or_else(|| "unknown".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bridge 1 with a NIC (2), a pod (3) and a VM (4), and a NIC by itself (5).
    fn world() -> World {
        let mut world = World::default();
        for (ifindex, name, kind, master) in [
            (1, "br0", LinkKind::Bridge, None),
            (2, "eth0", LinkKind::Physical, Some(1)),
            (3, "pod", LinkKind::Veth { other_netns: Some(0) }, Some(1)),
            (4, "tap", LinkKind::Tap, Some(1)),
            (5, "eth1", LinkKind::Physical, None),
        ] {
            let link = Link { ifindex, name: name.to_owned(), kind, master, ..Link::default() };
            world.links.insert(ifindex, link);
        }
        world
    }

    #[test]
    fn where_xdp_belongs() {
        let world = world();
        let said = [1, 2, 3, 4, 5].map(|ifindex| {
            let fits = fits(&world, &world.links[&ifindex]);
            fits.map_err(|error| error.to_string().split([';', ',']).next().unwrap_or_default().to_owned())
        });
        let no = |why: &str| Err(format!("--xdp: {why}"));
        assert_eq!(
            said,
            [
                no("br0 is a bridge"),
                Ok(()),
                no("pod is a port of the bridge br0 with a pod behind it"),
                no("tap is a port of the bridge br0 with a vm behind it"),
                Ok(()),
            ]
        );
        assert!(warnings(&world, &[5], Mode::Native).is_empty());
        let warned = warnings(&world, &[2, 5], Mode::Native);
        assert!(warned.len() == 1 && warned[0].starts_with("eth0 is a port of the bridge br0"), "{warned:?}");
        let warned = warnings(&world, &[3, 5], Mode::Native);
        assert!(
            warned.iter().any(|line| line.starts_with("pod is a veth, and XDP serves there only if")),
            "{warned:?}"
        );
        assert!(!warnings(&world, &[3], Mode::Generic).iter().any(|line| line.contains("veth")));
    }

    #[test]
    fn what_the_kernel_refuses() {
        let link =
            Link { name: "eth0".to_owned(), kind: LinkKind::Other("ifb".to_owned()), ..Link::default() };
        let said = |error| refusal(&link, Mode::Native, &io::Error::from_raw_os_error(error)).to_string();
        assert!(said(libc::EOPNOTSUPP).contains("the driver of eth0, ifb, has no native XDP"));
        assert!(said(libc::EBUSY).contains("eth0 has a program of XDP already"));
        assert!(said(libc::EPERM).contains("run as root"));
    }
}
