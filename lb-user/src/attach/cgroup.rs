//! Attaching the programs of sockets: to the root of the cgroups (v2), by links with pins in the instance's
//! directory, named as their programs are. A link is the instance's own; those of others stay beside it.

use std::{
    fs, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::programs::{CgroupAttachMode, CgroupSockAddr, CgroupSockAddrAttachType, links::FdLink};
use lb_sys::bpf;

/// The programs, as they are called in the kernel object.
pub const PROGRAMS: [&str; 8] = [
    "cgroup_connect4",
    "cgroup_connect6",
    "cgroup_sendmsg4",
    "cgroup_sendmsg6",
    "cgroup_recvmsg4",
    "cgroup_recvmsg6",
    "cgroup_getpeername4",
    "cgroup_getpeername6",
];

/// The name of a program's pin.
pub(super) fn pin_name(program: &str) -> String {
    program.replace('_', "-")
}

/// What one of them is called for.
pub fn kind(program: &str) -> CgroupSockAddrAttachType {
    match program {
        "cgroup_connect4" => CgroupSockAddrAttachType::Connect4,
        "cgroup_connect6" => CgroupSockAddrAttachType::Connect6,
        "cgroup_sendmsg4" => CgroupSockAddrAttachType::UDPSendMsg4,
        "cgroup_sendmsg6" => CgroupSockAddrAttachType::UDPSendMsg6,
        "cgroup_recvmsg4" => CgroupSockAddrAttachType::UDPRecvMsg4,
        "cgroup_recvmsg6" => CgroupSockAddrAttachType::UDPRecvMsg6,
        "cgroup_getpeername4" => CgroupSockAddrAttachType::GetPeerName4,
        _ => CgroupSockAddrAttachType::GetPeerName6,
    }
}

fn pin(links: &Path, program: &str) -> PathBuf {
    links.join(pin_name(program))
}

/// Where the root of the cgroups (v2) is mounted: by systemd at /sys/fs/cgroup, beside v1 at
/// /sys/fs/cgroup/unified, or elsewhere.
pub fn root() -> io::Result<Option<PathBuf>> {
    Ok(find_root(&fs::read_to_string("/proc/self/mountinfo")?))
}

/// The mount of cgroup2 that shows most, from the text of proc(5)'s mountinfo.
fn find_root(mountinfo: &str) -> Option<PathBuf> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, path) = (fields.next()?, fields.next()?);
        (kind.split(' ').next()? == "cgroup2").then_some((root, path))
    });
    let (_, path) = mounts.min_by_key(|(root, path)| (root.len(), path.len()))?;
    Some(PathBuf::from(path.replace("\\040", " ")))
}

/// Makes `program` the instance's one in the cgroup. What another agent of the instance attached is
/// replaced in place: no call passes in between.
pub fn attach(program: &mut CgroupSockAddr, name: &str, cgroup: &Path, links: &Path) -> Result<()> {
    let pin = pin(links, name);
    let fd = program.fd()?.as_fd();
    match bpf::pinned(&pin).and_then(|link| bpf::update(link.as_fd(), fd)) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // The cgroup it was of is gone.
        Err(_) => fs::remove_file(&pin).with_context(|| format!("removing {}", pin.display()))?,
    }
    let dir = fs::File::open(cgroup).with_context(|| format!("opening {}", cgroup.display()))?;
    // Links always allow others beside them.
    let id = program.attach(dir, CgroupAttachMode::Single)?;
    let link: FdLink = program.take_link(id)?.try_into()?;
    link.pin(&pin).with_context(|| format!("pinning {}", pin.display()))?;
    Ok(())
}

/// Detaches all of them; says which. Where none is attached that is fine.
pub fn detach_all(links: &Path) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for program in PROGRAMS {
        let pin = pin(links, program);
        // At once, and whoever else holds it.
        let _ = bpf::pinned(&pin).and_then(|link| bpf::detach(link.as_fd()));
        match fs::remove_file(&pin) {
            Ok(()) => removed.push(pin_name(program)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("removing {}", pin.display())),
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_found_wherever_it_is_mounted() {
        const V1: &str = "30 24 0:26 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n";
        let unified = "33 24 0:29 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        let systemd = "34 24 0:29 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let part = "35 24 0:29 /system.slice /run/part rw - cgroup2 cgroup2 rw\n";
        for (mounts, expected) in [
            (V1.to_owned(), None),
            (format!("{V1}{unified}"), Some("/sys/fs/cgroup/unified")),
            (format!("{unified}{systemd}"), Some("/sys/fs/cgroup")),
            (format!("{part}{unified}"), Some("/sys/fs/cgroup/unified")),
            ("36 1 0:29 / /mnt/my\\040groups rw - cgroup2 none rw\n".to_owned(), Some("/mnt/my groups")),
        ] {
            assert_eq!(find_root(&mounts), expected.map(PathBuf::from), "{mounts}");
        }
    }
}
