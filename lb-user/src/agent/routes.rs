//! Ways: from what netlink says about an address to the row that says how packets get there.

use std::net::IpAddr;

use lb_common::abi::{
    Mac, NeighKey, NextHopKind, NextHopRow, ZONE_OF_CLIENT, ZONE_ROUTED, ZONE_UPLINK, bridge_zone,
};

use super::{node::NodeAddresses, options::Forward};
use crate::{
    netlink::{Link, LinkKind, Location, Role, Via, World},
    plan::Routes,
};

/// The key of an address on a bridge, in the maps that hold both families.
pub fn key(address: IpAddr, bridge: u32) -> NeighKey {
    key_in(address, bridge_zone(bridge))
}

/// The same, by zone.
pub fn key_in(address: IpAddr, zone: u16) -> NeighKey {
    key_by(address, zone.into())
}

/// The same, by what stands in place of a zone.
pub fn key_by(address: IpAddr, zone: u32) -> NeighKey {
    match address {
        IpAddr::V4(address) => NeighKey::v4(address.into(), zone),
        IpAddr::V6(address) => NeighKey::v6(address.into(), zone),
    }
}

/// The world seen through the options of the agent.
pub struct View<'a> {
    /// As netlink tells it.
    pub world: &'a World,
    /// Interface indexes of the bridges.
    pub bridges: &'a [u32],
    /// Interface indexes of ports that are no bridge's.
    pub ports: &'a [u32],
    /// Interface indexes of the uplinks.
    pub uplinks: &'a [u32],
    /// `--forward`.
    pub forward: Forward,
    /// What the node is known by where the config does not say it.
    pub node: NodeAddresses,
}

impl View<'_> {
    /// How packets get to what is behind a port of a bridge.
    pub fn port_kind(&self, port: &Link) -> NextHopKind {
        match self.forward {
            Forward::Stack => NextHopKind::Stack,
            Forward::Bridge => NextHopKind::Bridge,
            Forward::Peer if can_peer(port) => NextHopKind::Peer,
            Forward::Auto if can_peer(port) && self.plain(port) => NextHopKind::Peer,
            Forward::Peer | Forward::Auto => NextHopKind::Bridge,
        }
    }

    /// The port that is no bridge's behind which an address is: a route leads there, and nobody between.
    pub fn routed_port(&self, address: IpAddr) -> Option<u32> {
        let hop = self.world.routes.get(&address)?;
        (hop.via == Via::Link && self.ports.contains(&hop.ifindex)).then_some(hop.ifindex)
    }

    /// Where an address is.
    pub fn locate(&self, address: IpAddr) -> Location {
        match self.world.locate(address, self.bridges) {
            location @ (Location::Host | Location::Remote) => location,
            _ if self.routed_port(address).is_some() => Location::Remote,
            location => location,
        }
    }

    /// The way to an address behind a port that is no bridge's. Who has it there is asked for out of that port.
    fn through(&self, port: u32, address: IpAddr) -> NextHopRow {
        let link = self.world.links.get(&port);
        let known = self.world.neighbours.get(&(port, address));
        let kind = match known {
            _ if self.world.failed.contains(&(port, address)) => NextHopKind::Gone,
            Some(_) if link.is_some_and(|link| self.port_kind(link) == NextHopKind::Peer) => {
                NextHopKind::Peer
            }
            _ => NextHopKind::Neighbour,
        };
        NextHopRow {
            ifindex: port,
            bridge: port,
            mac: mac(known.map_or([0; 6], |known| known.mac)),
            host_mac: link.map_or([0; 3], |link| mac(link.mac)),
            kind: kind as u32,
        }
    }

    /// How an address that is not on our bridges is reached; `None` without any uplink. The device is the
    /// route's, also where it is none of our uplinks: packets go where the host would send them. Where there is no
    /// route it is the first uplink.
    pub fn outside(&self, address: IpAddr) -> Option<Outside> {
        let first = *self.uplinks.first()?;
        let Some(hop) = self.world.routes.get(&address).copied() else {
            return Some(Outside { ifindex: first, neighbour: None });
        };
        let neighbour = self.world.next_hop(address, hop).map(|(_, neighbour)| neighbour);
        Some(Outside { ifindex: hop.ifindex, neighbour })
    }

    /// Whether nobody answers for an address: on our bridges at the address itself, elsewhere at its next hop.
    pub fn is_silent(&self, address: IpAddr) -> bool {
        let at = match self.locate(address) {
            Location::Host | Location::Port { .. } => None,
            Location::BridgeUnknown { bridge } => Some((bridge, address)),
            Location::Remote => self
                .outside(address)
                .and_then(|outside| outside.neighbour.map(|neighbour| (outside.ifindex, neighbour))),
        };
        at.is_some_and(|at| self.world.failed.contains(&at))
    }

    /// Whether the bridge would carry every packet to and from this port: nothing is passed by that
    /// somebody has set up.
    fn plain(&self, port: &Link) -> bool {
        let bridge = port.master.and_then(|bridge| self.world.links.get(&bridge));
        let filtering = bridge.is_some_and(|bridge| bridge.vlan_filtering);
        !(port.isolated || port.locked || filtering) && port.forwarding
    }
}

/// How what is not on our bridges is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outside {
    /// The device that leads there.
    pub ifindex: u32,
    /// Whose MAC packets get there, if a route says so and the device has MACs.
    pub neighbour: Option<IpAddr>,
}

/// `bpf_redirect_peer` needs a veth whose other end is in another namespace.
fn can_peer(port: &Link) -> bool {
    matches!(port.kind, LinkKind::Veth { other_netns: Some(_), .. })
}

impl Routes for View<'_> {
    fn next_hop(&self, address: IpAddr) -> (NextHopRow, u16) {
        let link_mac = |ifindex: u32| self.world.links.get(&ifindex).map_or([0; 3], |link| mac(link.mac));
        let on_bridge = |kind: NextHopKind, bridge: u32, ifindex: u32, to: [u8; 6]| {
            let row =
                NextHopRow { ifindex, bridge, mac: mac(to), host_mac: link_mac(bridge), kind: kind as u32 };
            (row, bridge_zone(bridge))
        };
        match self.locate(address) {
            Location::Host => {
                (NextHopRow { kind: NextHopKind::Host as u32, ..NextHopRow::default() }, ZONE_OF_CLIENT)
            }
            Location::Port { bridge, port, mac } => {
                let kind = match self.world.links.get(&port).map(|port| self.port_kind(port)) {
                    Some(NextHopKind::Peer) => NextHopKind::Peer,
                    _ => NextHopKind::Bridge,
                };
                on_bridge(kind, bridge, port, mac)
            }
            Location::BridgeUnknown { bridge } => {
                let failed = self.world.failed.contains(&(bridge, address));
                let kind = if failed { NextHopKind::Gone } else { NextHopKind::Neighbour };
                on_bridge(kind, bridge, 0, [0; 6])
            }
            Location::Remote if let Some(port) = self.routed_port(address) => {
                (self.through(port, address), ZONE_ROUTED)
            }
            Location::Remote => {
                let Some(Outside { ifindex, neighbour }) = self.outside(address) else {
                    return (NextHopRow::default(), ZONE_UPLINK);
                };
                let known = neighbour.and_then(|neighbour| self.world.neighbours.get(&(ifindex, neighbour)));
                let row = NextHopRow {
                    ifindex,
                    mac: mac(known.map_or([0; 6], |known| known.mac)),
                    host_mac: link_mac(ifindex),
                    kind: NextHopKind::Uplink as u32,
                    ..NextHopRow::default()
                };
                (row, ZONE_UPLINK)
            }
        }
    }

    /// Who is asked for anew after it was gone stays gone until it answers. And a port that was known is never
    /// forgotten as long as it is one ([`World`]'s memory): if it is not, who was behind it has left with it.
    fn next_hop_after(&self, address: IpAddr, old: &NextHopRow) -> NextHopRow {
        let (row, _) = self.next_hop(address);
        if row.kind() != NextHopKind::Neighbour || row.bridge != old.bridge {
            return row;
        }
        let gone = match old.kind() {
            NextHopKind::Gone => true,
            NextHopKind::Peer | NextHopKind::Bridge => !self.world.is_port(old.ifindex, old.bridge),
            _ => false,
        };
        if gone { NextHopRow { kind: NextHopKind::Gone as u32, ..row } } else { row }
    }
}

/// A MAC as rows have it: three words in memory order.
pub fn mac(octets: [u8; 6]) -> Mac {
    bytemuck::cast(octets)
}

/// The word for a role, as people see it.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Pod => "pod",
        Role::Vm => "vm",
        Role::Uplink => "uplink",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Address, Neighbour};

    const BLUE: [u8; 6] = [2, 0, 0, 0, 0, 3];

    /// Bridge 1 with blue behind port 3, and another port.
    fn world() -> World {
        let mut world = World::default();
        for (ifindex, master) in [(1, None), (2, Some(1)), (3, Some(1))] {
            world.links.insert(ifindex, Link { ifindex, master, forwarding: true, ..Link::default() });
        }
        world.addresses =
            vec![Address { ifindex: 1, net: "10.244.1.1/24".parse().expect("a subnet"), preferred: true }];
        world.fdb = [((1, BLUE), 3)].into();
        world.neighbours.insert((1, blue()), Neighbour { mac: BLUE, permanent: false });
        world
    }

    fn blue() -> IpAddr {
        [10, 244, 1, 3].into()
    }

    /// How blue is reached in each world, each agent's view after the one before.
    fn routes<const N: usize>(worlds: [World; N]) -> [NextHopKind; N] {
        let mut old: Option<NextHopRow> = None;
        worlds.map(|world| {
            let view = View {
                world: &world,
                bridges: &[1],
                ports: &[],
                uplinks: &[],
                forward: Forward::Auto,
                node: (None, None),
            };
            let row = old.map_or_else(|| view.next_hop(blue()).0, |old| view.next_hop_after(blue(), &old));
            old = Some(row);
            row.kind()
        })
    }

    fn without_entries() -> World {
        World { fdb: Default::default(), neighbours: Default::default(), ..world() }
    }

    fn without_port() -> World {
        let mut world = without_entries();
        world.links.remove(&3);
        world
    }

    fn failed() -> World {
        World { failed: [(1, blue())].into(), ..without_entries() }
    }

    #[test]
    fn who_is_not_known_yet_has_not_gone() {
        use NextHopKind::{Bridge, Neighbour};
        assert_eq!(routes([without_entries(), without_port(), world()]), [Neighbour, Neighbour, Bridge]);
        // A new agent finds the way of the one before, and the tables of the kernel aged.
        assert_eq!(routes([world(), without_entries()]), [Bridge, Neighbour]);
    }

    #[test]
    fn who_leaves_with_its_port_has_gone_until_it_is_found_again() {
        use NextHopKind::{Bridge, Gone};
        assert_eq!(
            routes([world(), without_port(), without_entries(), world()]),
            [Bridge, Gone, Gone, Bridge]
        );
        let mut left = without_entries();
        left.links.entry(3).and_modify(|port| port.master = None);
        assert_eq!(routes([world(), left]), [Bridge, Gone]);
        let mut elsewhere = without_port();
        elsewhere.fdb = [((1, BLUE), 2)].into();
        elsewhere.neighbours = world().neighbours;
        assert_eq!(routes([world(), elsewhere]), [Bridge, Bridge]);
    }

    #[test]
    fn who_does_not_answer_has_gone() {
        use NextHopKind::{Bridge, Gone};
        assert_eq!(routes([failed(), without_entries(), world(), failed()]), [Gone, Gone, Bridge, Gone]);
    }
}
