//! The first of three nodes, by what pods and the world outside are behind.

use std::net::IpAddr;

use anyhow::Result;
use xtask::lab::{self, Lab, Nodes, Pod};

use crate::{
    bed::NAME,
    routed_pods::{Gateway, route_to},
    tap,
};

/// The node that has the agent.
pub const NODE: &str = "node1";
/// Addresses of [`NODE`].
pub const NODE_AT: [&str; 2] = ["192.168.1.11", "fd00:1::11"];
/// Port of every backend's page; that of the node's process at any address is the next one.
pub const PAGE: u16 = 8080;
/// The same of the echo.
pub const ECHO: u16 = 9090;
/// Who is behind the router.
pub const FAR: &str = "far";
/// Addresses of [`FAR`].
pub const FAR_AT: [&str; 2] = ["10.50.0.9", "fd00:50::9"];
/// Where a pod is that is on a second bridge.
const SECOND: Pod = Pod { name: "blue1", network: 9, host: 3 };

/// How the node is wired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    Veths,
    Taps,
    /// With a fixed gateway.
    Routed,
    /// With an address of the host's at each port.
    Ptp,
    /// Client and backend on one each.
    TwoBridges,
    /// The router is behind the second one.
    TwoUplinks,
    /// Without pods.
    UplinkAlone,
}

impl Topology {
    /// In the order of the page.
    pub const ALL: [Topology; 7] = [
        Topology::Veths,
        Topology::Taps,
        Topology::Routed,
        Topology::Ptp,
        Topology::TwoBridges,
        Topology::TwoUplinks,
        Topology::UplinkAlone,
    ];

    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Topology::Veths => "bridge, veths",
            Topology::Taps => "bridge, taps",
            Topology::Routed => "routed veths",
            Topology::Ptp => "ptp",
            Topology::TwoBridges => "two bridges",
            Topology::TwoUplinks => "two uplinks",
            Topology::UplinkAlone => "uplink alone",
        }
    }

    /// What the agent is told of it.
    pub fn devices(self) -> &'static [&'static str] {
        match self {
            Topology::Veths | Topology::Taps => &["--bridge", "v-net-0", "--uplink", "eth0"],
            Topology::Routed | Topology::Ptp => &["--port", "veth-*", "--uplink", "eth0"],
            Topology::TwoBridges => &["--bridge", "v-net-0", "--bridge", "v-net-1", "--uplink", "eth0"],
            Topology::TwoUplinks => &["--bridge", "v-net-0", "--uplink", "eth0", "--uplink", "eth1"],
            Topology::UplinkAlone => &["--uplink", "eth0"],
        }
    }

    /// The pod that is a client.
    pub fn client(self) -> Pod {
        Nodes::Three.pods()[0]
    }

    /// The pod of the node that is a backend.
    pub fn backend(self) -> Pod {
        match self {
            Topology::TwoBridges => SECOND,
            _ => Nodes::Three.pods()[1],
        }
    }

    /// The lab, not up.
    pub fn lab() -> Lab {
        Lab::of(NAME, Nodes::Three)
    }

    /// Wires the node so in a lab that is up.
    pub fn make(self, lab: &Lab) -> Result<()> {
        let pods = [self.client(), self.backend()];
        match self {
            Topology::Veths | Topology::TwoUplinks => {}
            Topology::Taps => {
                for pod in pods {
                    lab.remove_pod(pod)?;
                    tap::add_machine(lab, pod)?;
                    lab::serve_pod(lab, pod)?;
                }
            }
            Topology::Routed | Topology::Ptp => {
                let gateway = if self == Topology::Routed { Gateway::Fixed } else { Gateway::Own };
                pods.into_iter().try_for_each(|pod| route_to(lab, pod, gateway))?;
                lab.on(NODE, "link del v-net-0")?;
            }
            Topology::TwoBridges => second_bridge(lab)?,
            Topology::UplinkAlone => {
                pods.into_iter().try_for_each(|pod| lab.remove_pod(pod))?;
                lab.on(NODE, "link del v-net-0")?;
            }
        }
        let at = |address: &str| -> Result<IpAddr> { Ok(address.parse()?) };
        for address in NODE_AT {
            lab::serve_at(lab, NODE, (at(address)?, PAGE).into(), (at(address)?, ECHO).into())?;
        }
        lab::serve_at(lab, NODE, (at("::")?, PAGE + 1).into(), (at("::")?, ECHO + 1).into())?;
        self.add_far(lab)
    }

    /// A host that nodes know no way to but by a router.
    fn add_far(self, lab: &Lab) -> Result<()> {
        lab.add_host("router")?;
        lab.add_host(FAR)?;
        let (net, device) = if self == Topology::TwoUplinks { (2, "eth1") } else { (1, "eth0") };
        if self == Topology::TwoUplinks {
            lab.add_wire((NODE, device), ("router", "eth0"))?;
            lab.on(NODE, &format!("addr add 192.168.2.11/24 dev {device}"))?;
            lab.on(NODE, &format!("addr add fd00:2::11/64 dev {device} nodad"))?;
            lab.on(NODE, &format!("link set {device} up"))?;
        } else {
            lab.add_wire(("router", "eth0"), ("lan", "router"))?;
            lab.on("lan", "link set router master lan up")?;
        }
        lab.add_wire((FAR, "eth0"), ("router", "eth1"))?;
        for (host, port, v4, v6) in [
            ("router", "eth0", format!("192.168.{net}.254"), format!("fd00:{net}::254")),
            ("router", "eth1", "10.50.0.1".to_owned(), "fd00:50::1".to_owned()),
            (FAR, "eth0", FAR_AT[0].to_owned(), FAR_AT[1].to_owned()),
        ] {
            lab.on(host, &format!("addr add {v4}/24 dev {port}"))?;
            lab.on(host, &format!("addr add {v6}/64 dev {port} nodad"))?;
            lab.on(host, &format!("link set {port} up"))?;
        }
        lab.sysctl("router", "net/ipv4/ip_forward", "1")?;
        lab.sysctl("router", "net/ipv6/conf/all/forwarding", "1")?;
        for (host, v4, v6) in [
            ("router", format!("192.168.{net}.11"), format!("fd00:{net}::11")),
            (FAR, "10.50.0.1".to_owned(), "fd00:50::1".to_owned()),
        ] {
            lab.on(host, &format!("route add default via {v4}"))?;
            lab.on(host, &format!("-6 route add default via {v6}"))?;
        }
        lab.on(NODE, &format!("route add 10.50.0.0/24 via 192.168.{net}.254"))?;
        lab.on(NODE, &format!("-6 route add fd00:50::/64 via fd00:{net}::254"))?;
        lab::serve_pod(lab, Pod { name: FAR, network: 50, host: 9 })
    }
}

/// Moves a pod to a bridge of its own.
fn second_bridge(lab: &Lab) -> Result<()> {
    let Pod { name, network, .. } = SECOND;
    lab.on(NODE, "link add v-net-1 type bridge")?;
    lab.on(NODE, &format!("addr add 10.244.{network}.1/24 dev v-net-1"))?;
    lab.on(NODE, &format!("addr add fd00:244:{network:x}::1/64 dev v-net-1 nodad"))?;
    lab.on(NODE, "link set v-net-1 up")?;
    lab.on(NODE, &format!("link set veth-{name} master v-net-1"))?;
    lab.on(name, "addr flush dev eth0 scope global")?;
    lab.on(name, "-6 route del default")?;
    lab.give_addresses(SECOND)
}
