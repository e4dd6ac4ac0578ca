//! Who calls whom, and how.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use xtask::lab::{
    Lab, Nodes, Pod,
    request::{connected, echo, page},
};

use super::topology::{ECHO, FAR, FAR_AT, NODE, NODE_AT, PAGE, Topology};
use crate::icmp;

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    Pod,
    Host,
    Outside,
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A pod of the node.
    Pod,
    /// A process of the node, at its address.
    Host,
    /// One that is bound to any address: the stack chooses which one it answers from.
    HostAny,
    /// A pod of another node.
    OtherNode,
    /// Off the node's networks, behind a router.
    Far,
}

/// What goes to and fro.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    Tcp,
    Udp,
    /// In fragments, there and back.
    LargeUdp,
    /// The backend has no socket at that port.
    Refused,
}

/// One call of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    pub client: Client,
    pub backend: Backend,
    pub ipv6: bool,
    pub traffic: Traffic,
}

impl Client {
    pub const ALL: [Client; 3] = [Client::Pod, Client::Host, Client::Outside];

    /// The lab's host that is it.
    pub fn host(self, topology: Topology) -> &'static str {
        match self {
            Client::Pod => topology.client().name,
            Client::Host => NODE,
            Client::Outside => "client",
        }
    }
}

impl Backend {
    pub const ALL: [Backend; 5] =
        [Backend::Pod, Backend::Host, Backend::HostAny, Backend::OtherNode, Backend::Far];

    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Pod => "local pod",
            Backend::Host => "host process",
            Backend::HostAny => "host, any address",
            Backend::OtherNode => "other node",
            Backend::Far => "behind a router",
        }
    }

    /// By what name it answers.
    fn answers_as(self, topology: Topology) -> &'static str {
        match self {
            Backend::Pod => topology.backend().name,
            Backend::Host | Backend::HostAny => NODE,
            Backend::OtherNode => other_node().name,
            Backend::Far => FAR,
        }
    }

    /// Its own addresses.
    fn addresses(self, topology: Topology) -> [String; 2] {
        let of = |pod: Pod| [pod.ipv4().to_string(), pod.ipv6().to_string()];
        match self {
            Backend::Pod => of(topology.backend()),
            Backend::Host | Backend::HostAny => NODE_AT.map(str::to_owned),
            Backend::OtherNode => of(other_node()),
            Backend::Far => FAR_AT.map(str::to_owned),
        }
    }

    /// Its service's place among the others.
    fn number(self) -> u16 {
        self as u16 + 1
    }
}

fn other_node() -> Pod {
    Nodes::Three.pods()[2]
}

impl Traffic {
    pub const ALL: [Traffic; 4] = [Traffic::Tcp, Traffic::Udp, Traffic::LargeUdp, Traffic::Refused];

    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Traffic::Tcp => "TCP",
            Traffic::Udp => "UDP",
            Traffic::LargeUdp => "large UDP",
            Traffic::Refused => "ICMP errors",
        }
    }

    /// The service's port and the last digit of its node port.
    fn ports(self) -> (u16, u16) {
        match self {
            Traffic::Tcp => (80, 0),
            Traffic::Udp | Traffic::LargeUdp => (90, 1),
            Traffic::Refused => (91, 2),
        }
    }

    /// The port of a backend.
    fn target(self, backend: Backend) -> u16 {
        let next = u16::from(backend == Backend::HostAny);
        match self {
            Traffic::Tcp => PAGE + next,
            Traffic::Udp | Traffic::LargeUdp => ECHO + next,
            Traffic::Refused => 9999,
        }
    }
}

/// A service of each backend.
pub fn config(topology: Topology, backends: &[Backend]) -> String {
    let mut config = "serviceCIDRs: [10.96.0.0/12, \"fd00:96::/112\"]\nservices:\n".to_owned();
    for backend in backends.iter().copied() {
        let number = backend.number();
        let [v4, v6] = backend.addresses(topology);
        config += &format!(
            "  - name: to-{number}\n    type: NodePort\n    addresses: [10.96.0.{number}, \"fd00:96::{number}\"]\n    \
             backends: [{{address: {v4}}}, {{address: \"{v6}\"}}]\n    ports:\n"
        );
        for (name, traffic) in [("page", Traffic::Tcp), ("echo", Traffic::Udp), ("closed", Traffic::Refused)]
        {
            let ((port, last), target) = (traffic.ports(), traffic.target(backend));
            let protocol = if traffic == Traffic::Tcp { "TCP" } else { "UDP" };
            config += &format!(
                "      - {{name: {name}, port: {port}, targetPort: {target}, protocol: {protocol}, \
                 nodePort: 301{number}{last}}}\n"
            );
        }
    }
    config
}

impl Cell {
    /// All of a client and a backend.
    pub fn of(client: Client, backend: Backend) -> impl Iterator<Item = Cell> {
        [false, true].into_iter().flat_map(move |ipv6| {
            Traffic::ALL.into_iter().map(move |traffic| Cell { client, backend, ipv6, traffic })
        })
    }

    /// The service: by its cluster IP, from outside by its node port.
    pub fn service(self) -> SocketAddr {
        let (number, (port, last)) = (self.backend.number(), self.traffic.ports());
        let (at, port) = match (self.client, self.ipv6) {
            (Client::Outside, ipv6) => (NODE_AT[usize::from(ipv6)].to_owned(), 30100 + 10 * number + last),
            (_, false) => (format!("10.96.0.{number}"), port),
            (_, true) => (format!("fd00:96::{number}"), port),
        };
        SocketAddr::new(at.parse::<IpAddr>().expect("an address"), port)
    }

    /// The backend's own address.
    pub fn direct(self, topology: Topology) -> SocketAddr {
        let at = &self.backend.addresses(topology)[usize::from(self.ipv6)];
        SocketAddr::new(at.parse::<IpAddr>().expect("an address"), self.traffic.target(self.backend))
    }

    /// Calls that address as its client; right if the backend answers.
    pub fn call(self, lab: &Lab, topology: Topology, to: SocketAddr) -> Result<()> {
        let (host, traffic) = (self.client.host(topology), self.traffic);
        let by = lab.within(host, move || match traffic {
            Traffic::Tcp => page(to).map(|(name, _)| Some(name)),
            Traffic::Udp => echo(to).map(Some),
            Traffic::LargeUdp => large(to).map(Some),
            Traffic::Refused => icmp::call(to).map(|()| None),
        });
        let by = by?.with_context(|| format!("{self:?} at {to}"))?;
        let expected = self.backend.answers_as(topology);
        ensure!(by.as_deref().is_none_or(|by| by == expected), "{self:?} at {to}: {by:?} answers");
        Ok(())
    }
}

/// As much as takes six frames comes back whole; who has sent it.
fn large(to: SocketAddr) -> Result<String> {
    const BYTES: u16 = 8192;
    let sent: Vec<u8> = (0..BYTES).map(|at| (at ^ at >> 8) as u8).collect();
    let socket = connected(to)?;
    socket.send(&sent)?;
    let mut answer = vec![0; 1 << 16];
    let len = socket.recv(&mut answer).context("waiting for the large datagram")?;
    let head = answer[..len].strip_suffix(sent.as_slice());
    let head = head.with_context(|| format!("{len} bytes have come back, not those {BYTES}"))?;
    Ok(String::from_utf8_lossy(head).trim_end().to_owned())
}
