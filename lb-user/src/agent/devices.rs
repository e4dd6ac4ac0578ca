//! The devices that the options name, as they are now: a name is what a person has given, and what has it may go and
//! come back.

use anyhow::{Result, bail};

use super::routes;
use crate::netlink::{Link, LinkKind, World};

/// Those of some names that are there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Devices {
    /// Interface indexes of the bridges.
    pub bridges: Vec<u32>,
    /// Interface indexes of the uplinks.
    pub uplinks: Vec<u32>,
    /// What is missing, a sentence each.
    pub missing: Vec<String>,
}

/// Looks for bridges and uplinks by name.
pub fn find(world: &World, bridges: &[String], uplinks: &[String]) -> Devices {
    let mut found = Devices::default();
    let link = |name: &String| world.links.values().find(|link| link.name == *name);
    for name in bridges {
        match link(name) {
            None => found.missing.push(format!(
                "no such bridge: {name} ({}); make it first, or name another with --bridge",
                here(world)
            )),
            Some(Link { kind, .. }) if *kind != LinkKind::Bridge => found.missing.push(format!(
                "{name} is not a bridge ({}); name the bridge with --bridge, and a device that leads outside with --uplink",
                here(world)
            )),
            Some(Link { ifindex, .. })
                if found.bridges.iter().any(|other| routes::zone(*other) == routes::zone(*ifindex)) =>
            {
                found.missing.push(format!(
                    "the bridge {name} is named twice with --bridge, or shares the zone of another: make it anew"
                ));
            }
            Some(Link { ifindex, .. }) => found.bridges.push(*ifindex),
        }
    }
    for name in uplinks {
        match link(name) {
            None => found
                .missing
                .push(format!("no such device: {name}; --uplink takes a device of this host (`ip link`)")),
            Some(Link { ifindex, .. }) => found.uplinks.push(*ifindex),
        }
    }
    found
}

/// The same at the start, where all must be there: most likely a name is mistyped.
///
/// # Errors
/// The first that is missing.
pub fn find_all(world: &World, bridges: &[String], uplinks: &[String]) -> Result<Devices> {
    let found = find(world, bridges, uplinks);
    match found.missing.first() {
        Some(missing) => bail!("{missing}"),
        None => Ok(found),
    }
}

fn here(world: &World) -> String {
    let bridges = world.links.values().filter(|link| link.kind == LinkKind::Bridge);
    let names: Vec<&str> = bridges.map(|link| link.name.as_str()).collect();
    if names.is_empty() { "there is none here".to_owned() } else { format!("here are: {}", names.join(", ")) }
}
