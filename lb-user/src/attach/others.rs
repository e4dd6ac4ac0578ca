//! Other instances of lb that have programs at a device.

use std::{collections::BTreeSet, fs, os::fd::AsFd as _};

use anyhow::{Result, bail};
use aya::programs::{SchedClassifier, TcAttachType};
use lb_sys::bpf;

use super::FILTER;
use crate::{maps::Pins, netlink::Link};

/// That no other instance has a program at a device, by a link. Interface indexes are those of a network namespace, so
/// the programs that the kernel has at this namespace's device are held against those that are pinned.
///
/// # Errors
/// The instance that has one, and what to do.
pub fn check(ours: &Pins, link: &Link) -> Result<()> {
    let directions = [TcAttachType::Ingress, TcAttachType::Egress];
    // Before kernel 6.6 there is no list.
    let found = directions.into_iter().filter_map(|direction| {
        SchedClassifier::query_tcx(&link.name, direction).ok().map(|(_, programs)| programs)
    });
    let attached: BTreeSet<u32> = found.flatten().map(|program| program.id()).chain(link.xdp).collect();
    if attached.is_empty() {
        return Ok(());
    }
    let instances = ours.root().parent().and_then(|all| fs::read_dir(all).ok()).into_iter().flatten();
    for name in instances.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let other = Pins::new(&name);
        if name == ours.instance || !has_any(&other, link.ifindex, &attached) {
            continue;
        }
        let agent = match other.is_locked() {
            Ok(true) => "whose agent runs: end it, then run",
            _ => "whose agent has ended: run",
        };
        bail!(
            "{} has programs of the instance {name} already, {agent} `lb uninstall --instance {name}`, or name another \
             device; a device is one instance's",
            link.name
        );
    }
    Ok(())
}

/// Whether an instance has pinned a link, of a device with that index, whose program is one of these.
fn has_any(instance: &Pins, ifindex: u32, programs: &BTreeSet<u32>) -> bool {
    let prefix = format!("{ifindex}-");
    let pins = fs::read_dir(instance.links()).into_iter().flatten().filter_map(Result::ok);
    // Those of filters are programs.
    let of_links = |name: &str| name.starts_with(&prefix) && !name.ends_with(FILTER);
    let mut pins = pins.filter(|pin| of_links(&pin.file_name().to_string_lossy()));
    pins.any(|pin| {
        let program = bpf::pinned(&pin.path()).and_then(|link| bpf::program(link.as_fd()));
        program.is_ok_and(|program| programs.contains(&program))
    })
}
