//! The devices that the options name.

use std::collections::HashSet;

use anyhow::{Result, anyhow, bail};
use lb_common::abi::bridge_zone;

use crate::netlink::{LinkKind, World};

/// The bridges by name, or why not.
pub fn bridges(world: &World, names: &[String]) -> Result<Vec<u32>> {
    names
        .iter()
        .map(|name| {
            let here = || {
                let bridges = world.links.values().filter(|link| matches!(link.kind, LinkKind::Bridge));
                let names: Vec<&str> = bridges.map(|link| link.name.as_str()).collect();
                if names.is_empty() { "there is none here".to_owned() } else { format!("here are: {}", names.join(", ")) }
            };
            let link = world
                .links
                .values()
                .find(|link| link.name == *name)
                .ok_or_else(|| anyhow!("no such bridge: {name} ({}); make it first, or name another with --bridge", here()))?;
            if !matches!(link.kind, LinkKind::Bridge) {
                bail!("{name} is not a bridge ({}); name the bridge with --bridge, and a device that leads outside with --uplink", here());
            }
            Ok(link.ifindex)
        })
        .collect::<Result<Vec<u32>>>()
        .and_then(|bridges| {
            let zones: HashSet<u16> = bridges.iter().map(|bridge| bridge_zone(*bridge)).collect();
            if zones.len() < bridges.len() {
                bail!("a bridge is named twice with --bridge (or two of them share a zone)");
            }
            Ok(bridges)
        })
}

/// The uplinks by name, or why not.
pub fn uplinks(world: &World, names: &[String]) -> Result<Vec<u32>> {
    names
        .iter()
        .map(|name| {
            let link = world.links.values().find(|link| link.name == *name);
            link.map(|link| link.ifindex).ok_or_else(|| {
                anyhow!("no such device: {name}; --uplink takes a device of this host (`ip link`)")
            })
        })
        .collect()
}
