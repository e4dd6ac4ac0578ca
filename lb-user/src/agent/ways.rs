//! Ways: from what netlink says about an address to the row that says how packets get there.

use std::net::IpAddr;

use lb_common::abi::{AnswerKey, Mac, ReachKind, ReachRow, ZONE_OF_CLIENT, ZONE_UPLINK};

use super::options::Forward;
use crate::{
    netlink::{Link, LinkKind, Location, Role, World},
    plan::Ways,
};

/// The zone of a bridge: from its interface index, so that a new agent gives the same one.
pub fn zone(bridge: u32) -> u16 {
    // 0 is the uplinks' zone, the largest number says "the client's".
    (bridge % (u16::MAX as u32 - 1)) as u16 + 1
}

/// The key of an address on a bridge, in the maps that hold both families.
pub fn key(address: IpAddr, bridge: u32) -> AnswerKey {
    let zone = u32::from(zone(bridge));
    match address {
        IpAddr::V4(address) => AnswerKey::v4(address.into(), zone),
        IpAddr::V6(address) => AnswerKey::v6(address.into(), zone),
    }
}

/// The world seen through the options of the agent.
pub struct View<'a> {
    /// As netlink tells it.
    pub world: &'a World,
    /// Interface indexes of the bridges.
    pub bridges: &'a [u32],
    /// Interface indexes of the uplinks.
    pub uplinks: &'a [u32],
    /// `--forward`.
    pub forward: Forward,
}

impl View<'_> {
    /// How packets get to what is behind a port of a bridge.
    pub fn port_way(&self, port: &Link) -> ReachKind {
        match self.forward {
            Forward::Stack => ReachKind::Stack,
            Forward::Bridge => ReachKind::Bridge,
            Forward::Peer if can_peer(port) => ReachKind::Peer,
            Forward::Auto if can_peer(port) && self.plain(port) => ReachKind::Peer,
            Forward::Peer | Forward::Auto => ReachKind::Bridge,
        }
    }

    /// Whether the bridge would carry every packet to and from this port: nothing is passed by that
    /// somebody has set up.
    fn plain(&self, port: &Link) -> bool {
        let bridge = port.master.and_then(|bridge| self.world.links.get(&bridge));
        let filtering = bridge.is_some_and(|bridge| bridge.vlan_filtering);
        !(port.isolated || port.locked || filtering) && port.forwarding
    }
}

/// `bpf_redirect_peer` needs a veth whose other end is in another namespace.
fn can_peer(port: &Link) -> bool {
    matches!(port.kind, LinkKind::Veth { other_netns: Some(_), .. })
}

impl Ways for View<'_> {
    fn way(&self, address: IpAddr) -> (ReachRow, u16) {
        let link_mac = |ifindex: u32| self.world.links.get(&ifindex).map_or([0; 3], |link| mac(link.mac));
        let on_bridge = |kind: ReachKind, bridge: u32, ifindex: u32, to: [u8; 6]| {
            let row =
                ReachRow { ifindex, bridge, mac: mac(to), bridge_mac: link_mac(bridge), kind: kind as u32 };
            (row, zone(bridge))
        };
        match self.world.locate(address, self.bridges) {
            Location::Host => {
                (ReachRow { kind: ReachKind::Host as u32, ..ReachRow::default() }, ZONE_OF_CLIENT)
            }
            Location::Port { bridge, port, mac } => {
                let kind = match self.world.links.get(&port).map(|port| self.port_way(port)) {
                    Some(ReachKind::Peer) => ReachKind::Peer,
                    _ => ReachKind::Bridge,
                };
                on_bridge(kind, bridge, port, mac)
            }
            Location::BridgeUnknown { bridge, .. } => on_bridge(ReachKind::Neighbour, bridge, 0, [0; 6]),
            Location::Remote => {
                let Some(uplink) = self.uplinks.first() else {
                    return (ReachRow::default(), ZONE_UPLINK);
                };
                let row =
                    ReachRow { ifindex: *uplink, kind: ReachKind::Uplink as u32, ..ReachRow::default() };
                (row, ZONE_UPLINK)
            }
        }
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
