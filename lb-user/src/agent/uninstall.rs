//! Leaving the host as it was.

use std::io;

use anyhow::{Context as _, Result, anyhow, bail};

use super::next_hops;
use crate::{
    attach::{Attacher, cgroup, label, xdp},
    maps::Pins,
    observe::view::View,
};

/// Detaches every program of the instance, then removes its maps; with `all`, also the addresses and
/// the seed that are kept over boots. Says what it removed: where nothing is installed, nothing.
pub fn uninstall(pins: &Pins, all: bool) -> Result<Vec<String>> {
    let instance = &pins.instance;
    match pins.root().try_exists() {
        Ok(true) => {}
        Ok(false) if all && pins.kept().exists() => {
            pins.remove(all).context("removing the instance's files")?;
            return Ok(vec![format!("kept addresses and seed of instance {instance}")]);
        }
        Ok(false) => return Ok(Vec::new()),
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
    let neighbours = next_hops::forget_all(pins)?;
    if neighbours > 0 {
        removed.push(format!("{neighbours} neighbours that were kept fresh"));
    }
    removed.sort();
    pins.remove(all).context("removing the instance's pins and files")?;
    removed.push(format!("maps of instance {instance}"));
    Ok(removed)
}

fn denied(error: io::Error, pins: &Pins) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            anyhow!("instance {} can't be looked at or removed: not permitted; run as root", pins.instance)
        }
        _ => anyhow!(error).context("locking the instance"),
    }
}
