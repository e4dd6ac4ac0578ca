//! The namespace as plain data.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;

/// Links and addresses of one network namespace, and what its kernel has answered about the addresses that somebody
/// wants to know of ([`super::Wants`]).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct World {
    /// By interface index.
    pub links: BTreeMap<u32, Link>,
    /// Addresses of the host.
    pub addresses: Vec<Address>,
    /// Ports that MACs of neighbours were seen behind.
    pub fdb: Fdb,
    /// Neighbours whose MAC is known: those asked for, and all at our bridges.
    pub neighbours: Neighbours,
    /// What of these two the kernel has forgotten.
    pub forgotten: Forgotten,
    /// Addresses (at a device, by interface index) that nobody has answered for.
    pub failed: HashSet<(u32, IpAddr)>,
    /// Neighbours that the kernel keeps fresh by itself.
    pub fresh: HashSet<(u32, IpAddr)>,
    /// Where packets leave the host to backends that are not on our bridges, where a route leads there.
    pub routes: HashMap<IpAddr, Hop>,
}

/// A way out of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The device that packets leave by.
    pub ifindex: u32,
    /// Who gets them there.
    pub via: Via,
}

/// Who gets a packet from a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The destination itself.
    Link,
    /// A router, of either family.
    Router(IpAddr),
    /// Nobody that an address stands for: the route wraps packets into others.
    Tunnel,
}

/// What is only remembered, by its keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forgotten {
    /// Of [`World::fdb`].
    pub fdb: HashSet<(u32, [u8; 6])>,
    /// Of [`World::neighbours`].
    pub neighbours: HashSet<(u32, IpAddr)>,
}

/// (bridge, MAC) to the port's interface index.
pub type Fdb = HashMap<(u32, [u8; 6]), u32>;
/// (interface index, address) to who has it.
pub type Neighbours = HashMap<(u32, IpAddr), Neighbour>;

/// A neighbour whose MAC is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its MAC.
    pub mac: [u8; 6],
    /// Somebody has set it; the kernel never asks again.
    pub permanent: bool,
}

/// An address of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The device that has it.
    pub ifindex: u32,
    /// The address with its subnet's length.
    pub net: IpNet,
    /// It is one to be known by: no temporary or secondary, deprecated, tentative or duplicate one.
    pub preferred: bool,
}

/// A network device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub ifindex: u32,
    /// Name.
    pub name: String,
    /// MAC address.
    pub mac: [u8; 6],
    /// Its packets have no Ethernet header: a tunnel, PPP, WireGuard.
    pub headerless: bool,
    /// It is up and has a carrier.
    pub up: bool,
    /// Bytes of network header and payload that a packet may have.
    pub mtu: u32,
    /// What it is.
    pub kind: LinkKind,
    /// The device it is enslaved to.
    pub master: Option<u32>,
    /// Port of a bridge: isolated from other isolated ports.
    pub isolated: bool,
    /// Port of a bridge: unknown sources are not let in.
    pub locked: bool,
    /// Port of a bridge: the spanning tree lets it forward.
    pub forwarding: bool,
    /// Bridge: filters by VLAN.
    pub vlan_filtering: bool,
    /// Name of its queueing discipline.
    pub qdisc: String,
    /// Id of the program of XDP that is attached to it.
    pub xdp: Option<u32>,
}

/// Kinds of devices that make a difference here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LinkKind {
    /// One end of a veth pair.
    Veth {
        /// The id here of the network namespace that has the other end, if that is another one.
        other_netns: Option<i32>,
    },
    /// A tun or tap device.
    Tap,
    /// A bridge.
    Bridge,
    /// No kind at all: hardware.
    #[default]
    Physical,
    /// Anything else, by the kernel's name.
    Other(String),
}

/// What a port of a bridge leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A pod or container (veth).
    Pod,
    /// A virtual machine (tap).
    Vm,
    /// The world outside (a NIC, bond or VLAN device).
    Uplink,
}

/// Where an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// The host itself.
    Host,
    /// Behind a port of a bridge.
    Port {
        /// The bridge.
        bridge: u32,
        /// The port.
        port: u32,
        /// The MAC there.
        mac: [u8; 6],
    },
    /// In the subnet of a bridge, not seen yet.
    BridgeUnknown {
        /// The bridge.
        bridge: u32,
    },
    /// Somewhere else.
    Remote,
}

impl Link {
    /// Whether it is hardware, or made of it: no tunnel, and no dummy that only keeps a bridge up.
    pub fn is_nic(&self) -> bool {
        match &self.kind {
            LinkKind::Physical => true,
            LinkKind::Other(kind) => matches!(kind.as_str(), "bond" | "team" | "vlan"),
            LinkKind::Veth { .. } | LinkKind::Tap | LinkKind::Bridge => false,
        }
    }
}

impl World {
    /// The ports of a bridge.
    pub fn ports(&self, bridge: u32) -> impl Iterator<Item = &Link> {
        self.links.values().filter(move |link| link.master == Some(bridge))
    }

    /// What a port leads to.
    pub fn role(&self, port: &Link) -> Role {
        match &port.kind {
            LinkKind::Veth { .. } => Role::Pod,
            LinkKind::Tap => Role::Vm,
            LinkKind::Bridge | LinkKind::Physical => Role::Uplink,
            LinkKind::Other(kind) if kind == "netkit" => Role::Pod,
            LinkKind::Other(_) => Role::Uplink,
        }
    }

    /// Whether a NIC is a port of a bridge, or what stands for one: then the bridge's addresses are the host's outside.
    pub fn has_nic(&self, bridge: u32) -> bool {
        self.ports(bridge).any(Link::is_nic)
    }

    /// Where an address is, seen from `bridges`.
    pub fn locate(&self, address: IpAddr, bridges: &[u32]) -> Location {
        if self.addresses.iter().any(|known| known.net.addr() == address) {
            return Location::Host;
        }
        let on = |known: &&Address| bridges.contains(&known.ifindex) && known.net.contains(&address);
        let Some(Address { ifindex: bridge, .. }) = self.addresses.iter().find(on).copied() else {
            return Location::Remote;
        };
        let port = self.neighbours.get(&(bridge, address)).and_then(|Neighbour { mac, .. }| {
            let port = *self.fdb.get(&(bridge, *mac))?;
            Some(Location::Port { bridge, port, mac: *mac })
        });
        port.unwrap_or(Location::BridgeUnknown { bridge })
    }

    /// Whose MAC packets to an address get there, if somebody has it and the device has MACs.
    pub fn next_hop(&self, address: IpAddr, hop: Hop) -> Option<(u32, IpAddr)> {
        let has_macs = self.links.get(&hop.ifindex).is_some_and(|link| link.mac != [0; 6]);
        let neighbour = match hop.via {
            Via::Link => Some(address),
            Via::Router(router) => Some(router),
            Via::Tunnel => None,
        };
        neighbour.filter(|_| has_macs).map(|neighbour| (hop.ifindex, neighbour))
    }

    /// Whether a device is a port of a bridge.
    pub fn is_port(&self, port: u32, bridge: u32) -> bool {
        self.links.get(&port).is_some_and(|link| link.master == Some(bridge))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    fn world() -> World {
        let link = |ifindex, kind, master| {
            (ifindex, Link { ifindex, name: format!("if{ifindex}"), kind, master, ..Link::default() })
        };
        World {
            links: BTreeMap::from([
                link(1, LinkKind::Bridge, None),
                link(2, LinkKind::Veth { other_netns: Some(0) }, Some(1)),
                link(3, LinkKind::Tap, Some(1)),
            ]),
            addresses: vec![Address {
                ifindex: 1,
                net: "10.244.1.1/24".parse().expect("a subnet"),
                preferred: true,
            }],
            fdb: Fdb::from([((1, MAC), 2)]),
            neighbours: Neighbours::from([(
                (1, [10, 244, 1, 2].into()),
                Neighbour { mac: MAC, permanent: false },
            )]),
            ..World::default()
        }
    }

    #[test]
    fn locations() {
        let world = world();
        let locate = |address: [u8; 4]| world.locate(address.into(), &[1]);
        assert_eq!(locate([10, 244, 1, 1]), Location::Host);
        assert_eq!(locate([10, 244, 1, 2]), Location::Port { bridge: 1, port: 2, mac: MAC });
        assert_eq!(locate([10, 244, 1, 3]), Location::BridgeUnknown { bridge: 1 });
        assert_eq!(locate([10, 244, 2, 3]), Location::Remote);
        assert_eq!(world.locate([10, 244, 1, 3].into(), &[9]), Location::Remote);
    }
}
