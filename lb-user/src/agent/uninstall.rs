//! Leaving the host as it was.

use std::{
    io,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};

use super::wanted_neighbours;
use crate::{
    attach::{Attacher, Left, cgroup, label, programs_with, xdp},
    maps::{self, Pins},
    observe::view::View,
};

/// What `lb uninstall` has done.
#[derive(Default)]
pub struct Uninstalled {
    /// What was removed: where nothing is installed, nothing.
    pub removed: Vec<String>,
    /// What could not be, and why, a sentence each.
    pub left: Vec<String>,
}

/// How long the kernel may take to free programs that were detached.
const FREED: Duration = Duration::from_secs(3);

/// Detaches every program of the instance, then removes its maps; with `all`, also the addresses and
/// the seed that are kept over boots.
pub fn uninstall(pins: &Pins, all: bool) -> Result<Uninstalled> {
    let instance = &pins.instance;
    pins.check().with_context(|| {
        format!("instance {instance} is not removed, and programs that it may have stay (`bpftool net`)")
    })?;
    match pins.root().try_exists() {
        Ok(true) => {}
        Ok(false) => return without_pins(pins, all),
        Err(error) => return Err(denied(error, pins)),
    }
    let lock = match pins.lock() {
        Ok(lock) => lock,
        // Nothing was left there by an agent that got no further.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            pins.create().and_then(|_| pins.lock()).context("locking the instance")?
        }
        Err(error) => return Err(denied(error, pins)),
    };
    let view = View::read(&pins.view()).ok().flatten().unwrap_or_default();
    let Some(_lock) = lock else {
        bail!("an agent (process {}) runs instance {instance}: end it first, then uninstall again", view.pid);
    };
    let map = maps::number(&pins.maps());
    let attacher = Attacher::new(pins.links(), true);
    let mut removed = Vec::new();
    // The agent's word for a device: an index of its network namespace may be another device's here.
    let device = |ifindex: u32| {
        let port = view.ports.iter().find(|port| port.ifindex == ifindex);
        port.map_or_else(|| format!("device {ifindex}"), |port| port.name.clone())
    };
    // Before what takes over from it: what comes in between is still served.
    for (ifindex, mode) in xdp::list(&pins.links())? {
        xdp::detach(&pins.links(), ifindex, mode)?;
        removed.push(format!("{} XDP on {}", mode.name(), device(ifindex)));
    }
    for attached in attacher.list()? {
        attacher.detach(&attached)?;
        removed.push(format!("{} on {}", label(attached.hook), device(attached.ifindex)));
    }
    removed.extend(
        cgroup::detach_all(&pins.links())?.into_iter().map(|name| format!("{name} of the host's sockets")),
    );
    let neighbours = wanted_neighbours::forget_all(pins)?;
    if neighbours > 0 {
        removed.push(format!("{neighbours} neighbours that were kept fresh"));
    }
    removed.sort();
    pins.remove(all).context("removing the instance's pins and files")?;
    removed.push(format!("maps of instance {instance}"));
    let left = left(map).into_iter().map(|Left { id, name }| {
        format!("the program {name} (number {id}): somebody else has attached or pinned it; see `bpftool link` and `tc filter`")
    });
    Ok(Uninstalled { removed, left: left.collect() })
}

/// Where nothing is pinned: never installed, or already removed, or the pins are elsewhere.
fn without_pins(pins: &Pins, all: bool) -> Result<Uninstalled> {
    let mut done = Uninstalled::default();
    let map = View::read(&pins.view()).ok().flatten().map_or(0, |view| view.map);
    done.left.extend(left(map).into_iter().map(|Left { id, name }| {
        format!(
            "the program {name} (number {id}): its pin is not in {} any more; find its link by `bpftool link`, then \
             `bpftool link detach id LINK`",
            pins.root().display()
        )
    }));
    if all && pins.kept().exists() {
        pins.remove(all).context("removing the instance's files")?;
        done.removed.push(format!("kept addresses and seed of instance {}", pins.instance));
    }
    Ok(done)
}

/// Programs with that map which stay, once the kernel has had time to free those that do not.
fn left(map: u32) -> Vec<Left> {
    let end = Instant::now() + FREED;
    loop {
        let left = if map == 0 { Vec::new() } else { programs_with(map) };
        if left.is_empty() || Instant::now() > end {
            return left;
        }
        sleep(Duration::from_millis(20));
    }
}

fn denied(error: io::Error, pins: &Pins) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            anyhow!("instance {} can't be looked at or removed: not permitted; run as root", pins.instance)
        }
        _ => anyhow!(error).context("locking the instance"),
    }
}
