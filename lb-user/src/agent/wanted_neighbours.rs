//! Which neighbours the kernel keeps fresh for us, and what is to be said of them: backends on our bridges, and next hops
//! of those that are not. Our programs send past the kernel's neighbour code, so it would ask none of them whether they
//! are still there.
//!
//! A backend does not wait for its next hop's MAC: until it is known the row has none, XDP leaves its packets to tc,
//! and the kernel keeps them until the neighbour has answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use tracing::warn;

use super::routes::View;
use crate::{
    files::{self, Sync},
    maps::Pins,
    netlink::{Link, Location, neighbour},
};

/// A device by its interface index, and an address there.
type Neighbour = (u32, IpAddr);

/// What the ways to all backends ask for.
#[derive(Debug, Default, PartialEq)]
pub struct WantedNeighbours {
    /// Backends on our bridges whose port is not known.
    pub unresolved: Vec<Neighbour>,
    /// Backends on our bridges.
    local: BTreeSet<Neighbour>,
    /// Next hops of backends that are not on our bridges.
    pub next_hops: BTreeMap<Neighbour, Behind>,
    /// Devices that such backends are reached by and that are no uplinks.
    strangers: BTreeMap<u32, Behind>,
    /// Backends behind a NIC that is a port of a bridge of ours.
    in_lan: BTreeMap<u32, Behind>,
    /// Backends that are not on our bridges where there is no uplink at all, by the device that the host's route
    /// leads to, if there is one.
    unreached: BTreeMap<Option<u32>, Behind>,
}

/// Backends that are reached in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind {
    first: IpAddr,
    count: usize,
}

impl WantedNeighbours {
    /// By the backends with these addresses; whether they are of any service still.
    pub fn by(backends: impl IntoIterator<Item = (IpAddr, bool)>, view: &View) -> WantedNeighbours {
        let mut wanted = WantedNeighbours::default();
        let count = |first| {
            move |behind: &mut Behind| {
                (behind.first, behind.count) = (behind.first.min(first), behind.count + 1);
            }
        };
        for (address, is_kept) in backends {
            let location = view.locate(address);
            if let Location::BridgeUnknown { bridge } = location {
                wanted.unresolved.push((bridge, address));
            }
            if let Location::Port { port, .. } = location
                && is_kept
                && view.world.links.get(&port).is_some_and(Link::is_nic)
            {
                let one = Behind { first: address, count: 1 };
                wanted.in_lan.entry(port).and_modify(count(address)).or_insert(one);
            }
            match location {
                Location::BridgeUnknown { bridge } | Location::Port { bridge, .. } if is_kept => {
                    wanted.local.insert((bridge, address));
                }
                Location::Remote if is_kept => {
                    if let Some(port) = view.routed_port(address) {
                        wanted.local.insert((port, address));
                        continue;
                    }
                    let one = Behind { first: address, count: 1 };
                    let Some(outside) = view.outside(address) else {
                        let device = view.world.routes.get(&address).map(|hop| hop.ifindex);
                        wanted.unreached.entry(device).and_modify(count(address)).or_insert(one);
                        continue;
                    };
                    if let Some(neighbour) = outside.neighbour {
                        let at = (outside.ifindex, neighbour);
                        wanted.next_hops.entry(at).and_modify(count(address)).or_insert(one);
                    }
                    if !view.uplinks.contains(&outside.ifindex) {
                        wanted.strangers.entry(outside.ifindex).and_modify(count(address)).or_insert(one);
                    }
                }
                _ => {}
            }
        }
        wanted
    }

    /// Whom the kernel is to keep fresh.
    pub fn fresh(&self) -> BTreeSet<Neighbour> {
        self.local.iter().chain(self.next_hops.keys()).copied().collect()
    }

    /// Those of [`Self::fresh`] that it does not keep fresh yet. One that somebody has set is left alone.
    pub fn stale(&self, view: &View) -> Vec<Neighbour> {
        let world = view.world;
        let is_set = |at: &Neighbour| world.neighbours.get(at).is_some_and(|known| known.permanent);
        self.fresh().into_iter().filter(|at| !world.fresh.contains(at) && !is_set(at)).collect()
    }

    /// A sentence for everything that stands in the way.
    pub fn warnings(&self, view: &View) -> Vec<String> {
        let name = |ifindex: &u32| {
            let link = view.world.links.get(ifindex);
            link.map_or_else(|| format!("device {ifindex}"), |link| link.name.clone())
        };
        let strangers = self.strangers.iter().map(|(ifindex, behind)| {
            let device = name(ifindex);
            format!(
                "{behind} reached by {device}, which is no uplink: what comes back there is not seen; give \
                 `lb run` also `--uplink {device}`, or correct the route"
            )
        });
        let silent = self.next_hops.iter().filter(|(at, _)| view.world.failed.contains(at));
        let silent = silent.map(|((ifindex, neighbour), behind)| {
            format!(
                "{neighbour} at {} does not answer: {behind} reached through it and no new flows go there as long \
                 as others of their service can be reached",
                name(ifindex)
            )
        });
        let unreached = self.unreached.iter().map(|(device, behind)| match device {
            Some(device) => format!(
                "{behind} behind {} and there is no uplink, so no packet of a service gets there; give `lb run` also \
                 `--uplink {}`",
                name(device),
                name(device)
            ),
            None => format!("{behind} on no bridge here, and the host has no route there; add one"),
        });
        let in_lan = self.in_lan.iter().map(|(port, behind)| {
            let nic = name(port);
            format!(
                "{behind} in the network behind {nic}, a port of a bridge: called through a service from that network it                  answers the client itself, who does not know it; pods and this host are served; give the host's                  addresses to {nic} instead of the bridge and name it with --uplink, or call from elsewhere"
            )
        });
        strangers.chain(unreached).chain(silent).chain(in_lan).collect()
    }
}

impl std::fmt::Display for Behind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.count {
            1 => write!(f, "backend {} is", self.first),
            count => write!(f, "{count} backends, the first {}, are", self.first),
        }
    }
}

/// The neighbours that we have asked the kernel to keep fresh. A file has them, too, so that another agent or
/// `lb uninstall` takes back what we asked for.
pub struct NextHops {
    path: PathBuf,
    held: BTreeSet<Neighbour>,
    /// The system's number for why the file could not be written; 0: it could.
    error: u32,
}

impl NextHops {
    /// Those of an agent before us.
    pub fn open(pins: &Pins) -> Result<NextHops> {
        let path = pins.next_hops();
        Ok(NextHops { held: read(&path)?, path, error: 0 })
    }

    /// Holds these and no others; no longer fresh ones are the kernel's to find when they are needed.
    pub fn hold(&mut self, wanted: BTreeSet<Neighbour>) {
        if wanted == self.held {
            return;
        }
        for at in self.held.difference(&wanted) {
            if let Err(error) = neighbour::forget(at.0, at.1) {
                warn!("taking back the neighbour {}: {error}", at.1);
            }
        }
        // On the disk before the kernel is asked for the first of them.
        match write(&self.path, &wanted) {
            Ok(()) => (self.held, self.error) = (wanted, 0),
            Err(error) => {
                self.held.retain(|at| wanted.contains(at));
                if self.error == 0 {
                    let path = self.path.display();
                    warn!(
                        "{path} can't be written: {error}; until it can, no further neighbours are kept fresh"
                    );
                }
                self.error = files::error_number(&error);
            }
        }
    }

    /// The system's number for why not all that is wanted is held; 0: it is.
    pub fn error(&self) -> u32 {
        self.error
    }

    /// Has the kernel find one of them and keep it fresh.
    pub fn refresh(&self, at: Neighbour) -> io::Result<()> {
        if self.held.contains(&at) { neighbour::keep_fresh(at.0, at.1) } else { Ok(()) }
    }
}

/// Takes back all that the instance has asked for.
pub fn forget_all(pins: &Pins) -> Result<usize> {
    let held = read(&pins.next_hops())?;
    for (ifindex, address) in &held {
        neighbour::forget(*ifindex, *address)
            .with_context(|| format!("taking back the neighbour {address}"))?;
    }
    Ok(held.len())
}

fn read(path: &Path) -> Result<BTreeSet<Neighbour>> {
    match fs::read(path) {
        Ok(text) => {
            serde_json::from_slice(&text).with_context(|| format!("{} is damaged: remove it", path.display()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

fn write(path: &Path, held: &BTreeSet<Neighbour>) -> io::Result<()> {
    files::replace(path, &serde_json::to_vec(held)?, Sync::Later)
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;
    use lb_common::abi::NextHopKind;

    use super::*;
    use crate::{
        agent::{options::Forward, routes},
        netlink::{Address, Hop, Link, LinkKind, Neighbour as Known, Via, World},
        plan::Routes as _,
    };

    const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 12];

    fn ip(address: &str) -> IpAddr {
        address.parse().expect("an address")
    }

    /// Bridge 1; uplinks 2 (192.168.1.0/24, over .12 to 10.244.2.7 and .8) and 3 (to 10.244.3.7); and 4, which is
    /// none, to 10.244.4.7. 5 has no MACs, and nobody knows a route for IPv6.
    fn world() -> World {
        let mut world = World::default();
        for ifindex in 1..=5 {
            let mac = if ifindex == 5 { [0; 6] } else { [2, 0, 0, 0, 1, ifindex as u8] };
            let name = format!("if{ifindex}");
            world.links.insert(ifindex, Link { ifindex, name, mac, ..Link::default() });
        }
        let router = Via::Router(ip("192.168.1.12"));
        for (address, ifindex, via) in [
            ("192.168.1.12", 2, Via::Link),
            ("10.244.2.7", 2, router),
            ("10.244.2.8", 2, router),
            ("10.244.3.7", 3, Via::Router(ip("fe80::3"))),
            ("10.244.4.7", 4, Via::Link),
            ("10.244.5.7", 5, Via::Link),
            ("10.244.6.7", 2, Via::Tunnel),
        ] {
            world.routes.insert(ip(address), Hop { ifindex, via });
        }
        let net: IpNet = "10.244.1.1/24".parse().expect("a subnet");
        world.addresses.push(Address { ifindex: 1, net, preferred: true });
        world.neighbours.insert((2, ip("192.168.1.12")), Known { mac: ROUTER, permanent: false });
        world
    }

    fn view(world: &World) -> View<'_> {
        View {
            world,
            bridges: &[1],
            ports: &[],
            uplinks: &[2, 3],
            forward: Forward::Auto,
            node: (None, None),
        }
    }

    #[test]
    fn ways_follow_routes() {
        let world = world();
        for (backend, ifindex, mac) in [
            ("10.244.2.7", 2, ROUTER),
            ("192.168.1.12", 2, ROUTER),
            ("10.244.3.7", 3, [0; 6]),
            ("10.244.4.7", 4, [0; 6]),
            ("10.244.5.7", 5, [0; 6]),
            ("10.244.6.7", 2, [0; 6]),
            ("fd00::7", 2, [0; 6]),
        ] {
            let (row, _) = view(&world).next_hop(ip(backend));
            let host_mac = routes::mac(world.links[&ifindex].mac);
            assert_eq!(
                (row.ifindex, row.mac, row.host_mac),
                (ifindex, routes::mac(mac), host_mac),
                "{backend}"
            );
            assert_eq!(row.kind(), NextHopKind::Uplink);
        }
    }

    #[test]
    fn next_hops_are_kept_fresh_once() {
        let mut world = world();
        let backends = ["10.244.1.7", "10.244.2.7", "10.244.2.8", "10.244.3.7", "10.244.5.7", "10.244.6.7"];
        let wanted = WantedNeighbours::by(backends.map(|at| (ip(at), true)), &view(&world));
        assert_eq!(wanted.unresolved, [(1, ip("10.244.1.7"))]);
        let all = [(1, ip("10.244.1.7")), (2, ip("192.168.1.12")), (3, ip("fe80::3"))];
        assert_eq!(Vec::from_iter(wanted.fresh()), all);
        assert_eq!(wanted.stale(&view(&world)), all);
        world.fresh.extend([all[0], all[1]]);
        world.neighbours.insert(all[2], Known { mac: ROUTER, permanent: true });
        assert_eq!(wanted.stale(&view(&world)), []);
    }

    #[test]
    fn without_an_uplink() {
        let world = world();
        let view = View { uplinks: &[], ..view(&world) };
        let backends = ["10.244.1.7", "10.244.2.7", "10.244.2.8", "10.99.0.1"];
        assert_eq!(
            WantedNeighbours::by(backends.map(|at| (ip(at), true)), &view).warnings(&view),
            [
                "backend 10.99.0.1 is on no bridge here, and the host has no route there; add one",
                "2 backends, the first 10.244.2.7, are behind if2 and there is no uplink, so no packet of a service gets \
                 there; give `lb run` also `--uplink if2`",
            ]
        );
    }

    #[test]
    fn backends_in_the_lan_of_a_bridge() {
        let mut world = world();
        let backend = ip("10.244.1.7");
        world.neighbours.insert((1, backend), Known { mac: ROUTER, permanent: false });
        world.fdb.insert((1, ROUTER), 6);
        for (kind, said) in [(LinkKind::Physical, true), (LinkKind::Tap, false)] {
            world.links.insert(
                6,
                Link { ifindex: 6, name: "nic".to_owned(), master: Some(1), kind, ..Link::default() },
            );
            let warnings = WantedNeighbours::by([(backend, true)], &view(&world)).warnings(&view(&world));
            let found = warnings
                .iter()
                .any(|line| line.starts_with("backend 10.244.1.7 is in the network behind nic"));
            assert_eq!(found, said, "{warnings:?}");
        }
    }

    #[test]
    fn what_stands_in_the_way() {
        let mut world = world();
        let backends =
            [("10.244.2.7", true), ("10.244.2.8", true), ("10.244.2.9", false), ("10.244.4.7", true)];
        world.failed.insert((2, ip("192.168.1.12")));
        world.failed.insert((2, ip("192.168.1.13")));
        let said = WantedNeighbours::by(backends.map(|(at, is_kept)| (ip(at), is_kept)), &view(&world))
            .warnings(&view(&world));
        assert_eq!(
            said,
            [
                "backend 10.244.4.7 is reached by if4, which is no uplink: what comes back there is not seen; give \
                 `lb run` also `--uplink if4`, or correct the route",
                "192.168.1.12 at if2 does not answer: 2 backends, the first 10.244.2.7, are reached through it and \
                 no new flows go there as long as others of their service can be reached",
            ]
        );
    }
}
