//! The devices that the options name, as they are now: a name is what a person has given, and what has it may go and
//! come back.

use anyhow::{Result, bail};
use lb_common::abi::bridge_zone;
use wildmatch::WildMatch;

use super::Options;
use crate::netlink::{Link, LinkKind, World};

/// Those of some names that are there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Devices {
    /// Interface indexes of the bridges.
    pub bridges: Vec<u32>,
    /// Interface indexes of ports that are no bridge's.
    pub ports: Vec<u32>,
    /// Interface indexes of the uplinks.
    pub uplinks: Vec<u32>,
    /// Patterns that match no port yet, a sentence each.
    pub waiting: Vec<String>,
    /// What is missing, a sentence each.
    pub missing: Vec<String>,
}

/// Looks for bridges and uplinks by name, and for ports by patterns of names.
pub fn find(world: &World, Options { bridges, ports, uplinks, .. }: &Options) -> Devices {
    let mut found = Devices::default();
    let link = |name: &String| world.links.values().find(|link| link.name == *name);
    for (index, name) in bridges.iter().enumerate() {
        match link(name) {
            _ if bridges[..index].contains(name) => {
                found.missing.push(format!("the bridge {name} is named twice with --bridge"));
            }
            None => found.missing.push(format!(
                "no such bridge: {name} ({}); make it first, or name another with --bridge",
                here(world)
            )),
            Some(Link { kind, .. }) if *kind != LinkKind::Bridge => found.missing.push(format!(
                "{name} is not a bridge ({}); name the bridge with --bridge, and a device that leads outside with --uplink",
                here(world)
            )),
            Some(Link { ifindex, .. })
                if found.bridges.iter().any(|other| bridge_zone(*other) == bridge_zone(*ifindex)) =>
            {
                found.missing.push(format!(
                    "the bridge {name} shares the zone of another one, by its interface index: make it anew, and it \
                     gets another index"
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
            Some(Link { master: Some(master), .. }) if found.bridges.contains(master) => {
                found.missing.push(format!(
                    "{name} is named with --uplink and is a port of a bridge named with --bridge, which serves it; leave \
                     --uplink {name} out"
                ));
            }
            Some(Link { headerless: true, .. }) => found.missing.push(format!(
                "{name} has no Ethernet header (a tunnel, PPP or WireGuard device, by `ip link`), and lb reads Ethernet \
                 frames alone; name the device that carries its packets"
            )),
            Some(Link { ifindex, .. }) => found.uplinks.push(*ifindex),
        }
    }
    for pattern in ports {
        let matches = WildMatch::new(pattern);
        let all: Vec<&Link> = world.links.values().filter(|link| matches.matches(&link.name)).collect();
        if all.is_empty() {
            found.waiting.push(format!("--port {pattern} matches no device yet: waiting for one"));
        }
        for link in all {
            let (name, ifindex) = (&link.name, link.ifindex);
            let other = if found.uplinks.contains(&ifindex) {
                Some("named with --uplink, too: a device leads to a pod or outside".to_owned())
            } else if name == "lo" {
                Some("the host's own".to_owned())
            } else if found.bridges.contains(&ifindex) {
                Some("named with --bridge, too, whose ports are served already".to_owned())
            } else {
                let master = link.master.and_then(|master| world.links.get(&master));
                master.map(|master| format!("a port of {}, by which its packets travel", master.name))
            };
            match other {
                Some(other) => {
                    found
                        .missing
                        .push(format!("--port {pattern}: {name} is {other}; give a pattern without it"));
                }
                None if !found.ports.contains(&ifindex) => found.ports.push(ifindex),
                None => {}
            }
        }
    }
    found
}

/// The same at the start, where all must be there that is named: most likely a name is mistyped. Ports come with their
/// pods.
///
/// # Errors
/// The first that is missing.
pub fn find_all(world: &World, options: &Options) -> Result<Devices> {
    let found = find(world, options);
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
