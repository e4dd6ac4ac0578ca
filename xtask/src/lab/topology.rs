//! Which hosts a lab has: their names and addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Who is outside.
pub const CLIENT: &str = "client";

/// How many nodes a lab has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Nodes {
    /// A node, and a client at its other end
    #[default]
    #[value(name = "1")]
    One,
    /// Three nodes and a client on one LAN
    #[value(name = "3")]
    Three,
}

impl Nodes {
    /// As the option is written.
    pub fn count(self) -> &'static str {
        match self {
            Nodes::One => "1",
            Nodes::Three => "3",
        }
    }

    /// The nodes, in the order of their networks and addresses.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Nodes::One => &["node"],
            Nodes::Three => &["node1", "node2", "node3"],
        }
    }

    /// The pods the lab comes up with.
    pub fn pods(self) -> &'static [Pod] {
        match self {
            Nodes::One => &Pod::ALL,
            Nodes::Three => &Pod::OF_THREE_NODES,
        }
    }

    /// Names of all hosts, for people.
    pub fn hosts(self) -> String {
        let pods = self.pods().iter().map(|pod| pod.name);
        self.names().iter().copied().chain(pods).chain([CLIENT]).collect::<Vec<_>>().join(", ")
    }

    /// Node and bridge of a network: each node of three has one, a single node has them all.
    pub fn home(self, network: u8) -> (&'static str, String) {
        match self {
            Nodes::One => ("node", format!("v-net-{}", network - 1)),
            Nodes::Three => (self.names()[usize::from(network) - 1], "v-net-0".to_owned()),
        }
    }
}

/// A pod by its place on a bridge.
#[derive(Clone, Copy, Debug)]
pub struct Pod {
    /// Its name.
    pub name: &'static str,
    /// The bridge's network, 10.244.N.0/24 and fd00:244:N::/64; see [`Nodes::home`].
    pub network: u8,
    /// Last part of its addresses.
    pub host: u8,
}

impl Pod {
    /// The pods every lab of one node has.
    pub const ALL: [Pod; 3] = [
        Pod { name: "red", network: 1, host: 2 },
        Pod { name: "blue", network: 1, host: 3 },
        Pod { name: "green", network: 1, host: 4 },
    ];

    /// Two on each node.
    const OF_THREE_NODES: [Pod; 6] = [
        Pod { name: "red1", network: 1, host: 2 },
        Pod { name: "blue1", network: 1, host: 3 },
        Pod { name: "red2", network: 2, host: 2 },
        Pod { name: "blue2", network: 2, host: 3 },
        Pod { name: "red3", network: 3, host: 2 },
        Pod { name: "blue3", network: 3, host: 3 },
    ];

    /// 10.244.1.2 and so on.
    pub fn ipv4(&self) -> IpAddr {
        Ipv4Addr::new(10, 244, self.network, self.host).into()
    }

    /// fd00:244:1::2 and so on.
    pub fn ipv6(&self) -> IpAddr {
        Ipv6Addr::new(0xfd00, 0x244, self.network as u16, 0, 0, 0, 0, self.host as u16).into()
    }
}
