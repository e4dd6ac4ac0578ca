//! Asking the kernel whether a program is still where we have put it.

use std::{fs, io, os::fd::AsFd as _, os::unix::fs::MetadataExt as _, path::Path};

use lb_sys::bpf;

use super::{FILTER, HANDLE, PRIORITY, cgroup, direction, qdisc};
use lb_common::path::Hook;

/// What has become of a program that was attached.
#[derive(Debug)]
pub enum Found {
    /// It is where it should be.
    Attached,
    /// There is no pin of it.
    NoPin,
    /// Its link is attached to nothing, or to another device; its filter is gone.
    Detached,
    /// The kernel does not say.
    Unknown(io::Error),
}

/// Where to look.
pub struct Finder<'p> {
    links: &'p Path,
    /// We are in the network namespace of the devices: filters can be looked for.
    here: bool,
}

impl<'p> Finder<'p> {
    /// For the pins in `links` of an agent with that process.
    pub fn new(links: &'p Path, agent: Option<u32>) -> Finder<'p> {
        let namespace = |process: &str| {
            let data = fs::metadata(format!("/proc/{process}/ns/net")).ok()?;
            Some((data.dev(), data.ino()))
        };
        let here = agent.is_some_and(|pid| {
            let theirs = namespace(&pid.to_string());
            theirs.is_some() && theirs == namespace("self")
        });
        Finder { links, here }
    }

    /// Whether a device is known to be gone, and its programs with it: the agent has yet to hear of it.
    pub fn is_gone(&self, ifindex: u32) -> bool {
        self.here && super::name_of(ifindex).is_err()
    }

    /// The program of a hook, by its label, at a device.
    pub fn program(&self, ifindex: u32, label: &str) -> Found {
        let pin = format!("{ifindex}-{label}");
        let filter = self.links.join(format!("{pin}{FILTER}"));
        if !filter.exists() {
            return self.link(&pin, Some(ifindex));
        }
        let Some(hook) = Hook::TC.into_iter().find(|hook| super::label(*hook) == label) else {
            return Found::NoPin;
        };
        if !self.here {
            return Found::Attached;
        }
        match qdisc::has_filter(ifindex, direction(hook), PRIORITY, HANDLE) {
            Ok(true) => Found::Attached,
            Ok(false) => Found::Detached,
            Err(error) => Found::Unknown(error),
        }
    }

    /// The program of XDP at a device, in a mode.
    pub fn xdp(&self, ifindex: u32, mode: &str) -> Found {
        self.link(&super::xdp::pin_name(ifindex, mode), Some(ifindex))
    }

    /// Those of sockets, with their names.
    pub fn sockets(&self) -> impl Iterator<Item = (String, Found)> {
        cgroup::PROGRAMS.into_iter().map(|program| {
            let name = cgroup::pin_name(program);
            let found = self.link(&name, None);
            (name, found)
        })
    }

    fn link(&self, pin: &str, ifindex: Option<u32>) -> Found {
        match bpf::pinned(&self.links.join(pin)).and_then(|link| bpf::target(link.as_fd())) {
            Ok(0) => Found::Detached,
            Ok(target) if ifindex.is_some_and(|ifindex| u64::from(ifindex) != target) => Found::Detached,
            Ok(_) => Found::Attached,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Found::NoPin,
            Err(error) => Found::Unknown(error),
        }
    }
}
