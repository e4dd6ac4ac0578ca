//! What is known of the world, and what of it is to be asked. No more than somebody wants: the kernel's tables may
//! be filled by pods and routing daemons.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;
use netlink_packet_route::neighbour::{NeighbourMessage, NeighbourState};

use super::{
    events::Changed,
    questions,
    world::{Address, Hop, Link, Location, World},
};

/// A device by its interface index, and an address there.
type At = (u32, IpAddr);

/// Neighbours at our bridges that nobody has asked for and that are held all the same, for who calls from where.
/// As many as the map has rows for by default.
const CALLERS: usize = 1 << 15;

/// Whom somebody wants to know of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wants {
    /// Bridges, by interface index.
    pub bridges: Vec<u32>,
    /// Ports that are no bridge's.
    pub ports: Vec<u32>,
    /// Uplinks.
    pub uplinks: Vec<u32>,
    /// Addresses of backends: where each is, or how it is reached.
    pub backends: BTreeSet<IpAddr>,
    /// Addresses of services: whether somebody has them on a bridge or at an uplink.
    pub frontends: BTreeSet<IpAddr>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Known {
    /// What is known.
    pub world: World,
    /// Something in it differs from what was last published.
    pub changed: bool,
    /// VLANs of bridges that filter by them.
    pub vlans: HashMap<u32, u16>,
    wants: Wants,
    /// Backends to whom the routes are asked for.
    remote: BTreeSet<IpAddr>,
    /// Neighbours that are asked for by their addresses.
    wanted: HashSet<At>,
    /// MACs that are looked for on bridges; whether that is for somebody wanted.
    macs: HashMap<(u32, [u8; 6]), bool>,
}

impl Known {
    /// Somebody wants to know of others now.
    pub fn want(&mut self, wants: Wants) {
        self.wants = wants;
    }

    /// The bridges whose neighbours are all of interest.
    pub fn bridges(&self) -> Vec<u32> {
        self.wants.bridges.clone()
    }

    /// Whether a bridge that is of interest filters by VLAN.
    pub fn has_vlans(&self) -> bool {
        let mut links = self.wants.bridges.iter().filter_map(|bridge| self.world.links.get(bridge));
        links.any(|link| link.vlan_filtering)
    }

    /// Takes links and addresses over. Whether routes may lead elsewhere now: the kernel does not tell where that
    /// is because of them.
    pub fn devices(&mut self, links: BTreeMap<u32, Link>, addresses: Vec<Address>) -> bool {
        let hops: HashSet<u32> = self.world.routes.values().map(|hop| hop.ifindex).collect();
        let routed = |known: &Address| known.ifindex;
        let at: HashSet<u32> = self.world.addresses.iter().map(routed).chain(hops).collect();
        let up = |links: &BTreeMap<u32, Link>, ifindex| links.get(ifindex).map(|link| (link.up, link.mac));
        let moved = self.world.addresses != addresses
            || at.iter().any(|ifindex| up(&self.world.links, ifindex) != up(&links, ifindex));
        self.changed |= moved || links != self.world.links;
        (self.world.links, self.world.addresses) = (links, addresses);
        moved
    }

    /// MACs whose port is none any more: they may be behind another one.
    pub fn unplugged(&self) -> Vec<(u32, [u8; 6])> {
        let fdb = self.world.fdb.iter();
        fdb.filter(|(at, port)| !self.world.is_port(**port, at.0)).map(|(at, _)| *at).collect()
    }

    /// Backends whose routes are to be asked for: those of `changed` prefixes, and new ones.
    pub fn routes(&mut self, changed: &Changed<IpNet>) -> Vec<IpAddr> {
        let Wants { bridges, ports, .. } = &self.wants;
        // A route may lead from a bridge's subnet to a port that is none of its.
        let is_remote =
            |address: &IpAddr| !ports.is_empty() || self.world.locate(*address, bridges) == Location::Remote;
        let before = std::mem::take(&mut self.remote);
        self.remote = self.wants.backends.iter().copied().filter(is_remote).collect();
        let gone: Vec<IpAddr> = before.difference(&self.remote).copied().collect();
        for address in gone {
            self.changed |= self.world.routes.remove(&address).is_some();
        }
        match changed {
            Changed::All => self.remote.iter().copied().collect(),
            Changed::Some(prefixes) => {
                let within = |net: &IpNet| self.remote.range(net.network()..=last(net)).copied();
                let mut asked: BTreeSet<IpAddr> = prefixes.iter().flat_map(within).collect();
                asked.extend(self.remote.difference(&before));
                asked.into_iter().collect()
            }
        }
    }

    /// Where the route to a backend leads.
    pub fn set_route(&mut self, address: IpAddr, hop: Option<Hop>) {
        let before = match hop {
            Some(hop) => self.world.routes.insert(address, hop),
            None => self.world.routes.remove(&address),
        };
        self.changed |= before != hop;
    }

    /// Neighbours that are to be asked for: of the `changed` ones those of interest, new ones, and those that
    /// nobody wants any more.
    pub fn neighbours(&mut self, changed: &Changed<At>) -> Vec<At> {
        let wanted = self.wanted();
        let before = std::mem::replace(&mut self.wanted, wanted);
        let mut asked: HashSet<At> = before.symmetric_difference(&self.wanted).copied().collect();
        match changed {
            Changed::All => asked.extend(self.wanted.iter().chain(self.world.neighbours.keys())),
            Changed::Some(some) => {
                let of_interest = |at: &&At| self.wanted.contains(at) || self.wants.bridges.contains(&at.0);
                asked.extend(some.iter().filter(of_interest));
            }
        }
        asked.into_iter().collect()
    }

    fn wanted(&self) -> HashSet<At> {
        let (world, wants) = (&self.world, &self.wants);
        let on_bridge = |address: &IpAddr| match world.locate(*address, &wants.bridges) {
            Location::Port { bridge, .. } | Location::BridgeUnknown { bridge } => Some((bridge, *address)),
            Location::Host | Location::Remote => None,
        };
        let next_hops = world.routes.iter().filter_map(|(address, hop)| world.next_hop(*address, *hop));
        let devices: Vec<&Address> = world
            .addresses
            .iter()
            .filter(|known| wants.bridges.contains(&known.ifindex) || wants.uplinks.contains(&known.ifindex))
            .collect();
        let taken = wants.frontends.iter().flat_map(|address| {
            let holds = devices.iter().filter(move |known| known.net.contains(address));
            holds.map(move |known| (known.ifindex, *address))
        });
        wants.backends.iter().filter_map(on_bridge).chain(next_hops).chain(taken).collect()
    }

    /// What the kernel says of a neighbour. Redirected pods talk past the bridge, so entries of who is wanted age
    /// out: as long as their MAC is behind a port they are remembered, but not where the kernel has asked and nobody has
    /// answered. Who has not answered and is asked again has not answered yet.
    pub fn set_neighbour(&mut self, at: At, entry: Option<&NeighbourMessage>) {
        let wanted = self.wanted.contains(&at);
        let state = entry.map(|entry| entry.header.state);
        let failed = match state {
            Some(NeighbourState::Failed) => true,
            Some(NeighbourState::Incomplete) => self.world.failed.contains(&at),
            _ => false,
        };
        self.changed |= set(&mut self.world.failed, at, wanted && failed);
        self.changed |= set(&mut self.world.fresh, at, wanted && entry.is_some_and(questions::is_fresh));
        let world = &mut self.world;
        let old = world.neighbours.get(&at).copied();
        let held = wanted
            || self.wants.bridges.contains(&at.0) && (old.is_some() || world.neighbours.len() < CALLERS);
        let new = entry.and_then(questions::known).filter(|_| held);
        let remembered = old.filter(|old| wanted && !failed && world.fdb.contains_key(&(at.0, old.mac)));
        match new.or(remembered) {
            Some(known) => world.neighbours.insert(at, known),
            None => world.neighbours.remove(&at),
        };
        self.changed |= set(&mut world.forgotten.neighbours, at, new.is_none() && remembered.is_some());
        self.changed |= old != new.or(remembered);
    }

    /// MACs that are to be looked for on the bridges: of the `changed` ones those of interest, and new ones. All
    /// others are forgotten.
    pub fn macs(&mut self, changed: &Changed<(u32, [u8; 6])>) -> Vec<(u32, [u8; 6])> {
        let mut macs = HashMap::new();
        for (at, neighbour) in &self.world.neighbours {
            if self.wants.bridges.contains(&at.0) {
                *macs.entry((at.0, neighbour.mac)).or_insert(false) |= self.wanted.contains(at);
            }
        }
        let before = std::mem::replace(&mut self.macs, macs);
        let gone: Vec<(u32, [u8; 6])> =
            self.world.fdb.keys().filter(|at| !self.macs.contains_key(at)).copied().collect();
        for at in gone {
            self.forget_mac(at);
        }
        let is_new = |at: &&(u32, [u8; 6])| before.get(at) != self.macs.get(at);
        match changed {
            Changed::All => self.macs.keys().copied().collect(),
            Changed::Some(some) => {
                let of_interest = some.iter().filter(|at| self.macs.contains_key(at));
                let new = self.macs.keys().filter(is_new);
                of_interest.chain(new).copied().collect::<HashSet<_>>().into_iter().collect()
            }
        }
    }

    /// At which port the kernel has seen a MAC. What it has forgotten of who is wanted is remembered as long as the
    /// port is one: ageing alone moves nobody.
    pub fn set_mac(&mut self, at: (u32, [u8; 6]), port: Option<u32>) {
        let old = self.world.fdb.get(&at).copied();
        let wanted = self.macs.get(&at).is_some_and(|wanted| *wanted);
        let remembered = old.filter(|old| wanted && self.world.is_port(*old, at.0));
        match port.or(remembered) {
            None => self.forget_mac(at),
            Some(now) => {
                self.world.fdb.insert(at, now);
                self.changed |= old != Some(now);
                self.changed |= set(&mut self.world.forgotten.fdb, at, port.is_none());
            }
        }
    }

    /// Neighbours that were only remembered go with their MAC.
    fn forget_mac(&mut self, at: (u32, [u8; 6])) {
        let world = &mut self.world;
        self.changed |= world.fdb.remove(&at).is_some();
        world.forgotten.fdb.remove(&at);
        let with: Vec<At> = world
            .forgotten
            .neighbours
            .iter()
            .filter(|known| {
                known.0 == at.0 && world.neighbours.get(*known).is_some_and(|one| one.mac == at.1)
            })
            .copied()
            .collect();
        for known in with {
            world.forgotten.neighbours.remove(&known);
            world.neighbours.remove(&known);
            self.changed = true;
        }
    }
}

/// The last address of a range.
fn last(net: &IpNet) -> IpAddr {
    match net {
        IpNet::V4(net) => net.broadcast().into(),
        IpNet::V6(net) => net.broadcast().into(),
    }
}

/// Whether that changes anything.
fn set<T: std::hash::Hash + Eq>(some: &mut HashSet<T>, one: T, is_in: bool) -> bool {
    if is_in { some.insert(one) } else { some.remove(&one) }
}

#[cfg(test)]
#[path = "known_tests.rs"]
mod tests;
