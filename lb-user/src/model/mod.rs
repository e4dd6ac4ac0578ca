//! Desired state: what the sources ask for, validated and without a word about maps or Kubernetes.

pub mod addresses;
pub mod diff;
mod port_range;
pub mod refused;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use lb_common::abi::Lifetimes;
pub use port_range::PortRange;

/// Everything the agent is asked to serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// Services by name. `Arc`, so that an unchanged service is recognised by its pointer.
    pub services: BTreeMap<ServiceName, Arc<Service>>,
    /// Ranges that services without an address get theirs from.
    pub service_cidrs: Vec<IpNet>,
    /// Seed of the Maglev tables; the same on every node gives the same tables. `None`: the agent's own.
    pub hash_seed: Option<u64>,
    /// This node, as far as the config says in its own words; [`Model::this_node`] has all of it.
    pub node: Node,
    /// What is said about nodes by their names; which of them is this one is not known here.
    pub nodes: Arc<BTreeMap<String, Node>>,
    /// Addresses of this node that node ports are reached at.
    pub node_port_addresses: Vec<NodePortAddress>,
    /// How long flows are kept without a packet, in seconds.
    pub lifetimes: Lifetimes,
    /// Ports of this node that it allocates to flows of clients outside to backends on other nodes; no service has one
    /// of them. `None`: such flows keep their source.
    pub snat_ports: Option<PortRange>,
}

impl Model {
    /// This node: what the config says about it, then what is known of the node of that name. Where the config names
    /// none, it is the node of the `host`'s name, else the only one with an address of the host's (`own`).
    pub fn this_node(&self, host: &str, own: &[IpAddr]) -> Node {
        let mut node = self.node.clone();
        let name = node.name.get_or_insert_with(|| {
            let by_address = || {
                let has = |node: &Node| node.addresses.iter().any(|address| own.contains(address));
                let mut nodes = self.nodes.iter().filter(|(_, node)| has(node));
                nodes.next().filter(|_| nodes.next().is_none()).map(|(name, _)| name.clone())
            };
            let by_name = self.nodes.contains_key(host).then(|| host.to_owned());
            by_name.or_else(by_address).unwrap_or_else(|| host.to_owned())
        });
        if let Some(known) = self.nodes.get(name) {
            if node.addresses.is_empty() {
                node.addresses.clone_from(&known.addresses);
            }
            if node.pod_cidrs.is_empty() {
                node.pod_cidrs.clone_from(&known.pod_cidrs);
            }
            node.zone = node.zone.or_else(|| known.zone.clone());
        }
        node
    }
}

/// What is said about a node; what is left out of this one is found on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name, as endpoints' `nodeName` has it. `None`: the host's name.
    pub name: Option<String>,
    /// Its addresses, the primary one of each family first. Empty: those of the host's uplinks.
    pub addresses: Vec<IpAddr>,
    /// The pods' networks. Empty: the bridges' subnets.
    pub pod_cidrs: Vec<IpNet>,
    /// Its zone (`topology.kubernetes.io/zone`), if it has one.
    pub zone: Option<String>,
}

/// An item of `nodePortAddresses`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodePortAddress {
    /// The node's primary address of each family.
    Primary,
    /// Those of the node's addresses that lie in a range.
    Range(IpNet),
}

/// `namespace/name`, unique within a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName {
    /// Kubernetes' namespace; `default` where the config names none.
    pub namespace: String,
    /// The service's own name.
    pub name: String,
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One service: the addresses it is reached at and its ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Its type.
    pub kind: ServiceType,
    /// Cluster IPs, at most one per family; never empty once addresses have been given.
    pub addresses: Vec<IpAddr>,
    /// Families that an address is given for from the ranges ([`addresses::Allocations`]); empty where the
    /// source names the addresses itself.
    pub wants: Vec<Family>,
    /// Addresses outside, which somebody else brings to this node; of families with a cluster IP.
    pub external_ips: Vec<IpAddr>,
    /// Addresses that a load balancer brings to this node; of families with a cluster IP.
    pub load_balancer_ips: Vec<IpAddr>,
    /// Who may use the load balancer's addresses, for each family by itself; none of it: everybody. [`nobody`] alone:
    /// nobody.
    pub source_ranges: Vec<IpNet>,
    /// Which backends clients of the cluster IPs get.
    pub internal_policy: TrafficPolicy,
    /// Which backends clients from outside get at the other addresses.
    pub external_policy: TrafficPolicy,
    /// Session affinity by the client's address: its timeout in seconds, 1 to 86,400.
    pub affinity: Option<u32>,
    /// How a backend is chosen for a new flow.
    pub algorithm: Algorithm,
    /// Which backends are preferred by where they are.
    pub distribution: Distribution,
    /// What becomes of TCP flows of a backend that was removed or does not serve.
    pub on_removal: OnRemoval,
    /// How clients outside are passed on to backends on other nodes.
    pub forwarding: Forwarding,
    /// The ports, in the order of the config. No two share port and protocol.
    pub ports: Vec<ServicePort>,
    /// The port of this node at which is told by HTTP how many ready endpoints are on it (`healthCheckNodePort`).
    pub health_check: Option<u16>,
}

/// The range of a family that has no client: the unspecified address, which is nobody's.
pub fn nobody(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        Family::V6 => IpNet::from(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    }
}

/// `spec.type` of a Service that is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceType {
    /// Cluster IPs and external IPs.
    #[default]
    ClusterIp,
    /// Node ports, too.
    NodePort,
    /// Addresses of a load balancer, too.
    LoadBalancer,
}

impl fmt::Display for ServiceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ServiceType::ClusterIp => "ClusterIP",
            ServiceType::NodePort => "NodePort",
            ServiceType::LoadBalancer => "LoadBalancer",
        })
    }
}

/// `internalTrafficPolicy` and `externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// All usable backends.
    #[default]
    Cluster,
    /// Those on this node; none elsewhere.
    Local,
}

/// How a backend is chosen for a new flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// By a hash of the flow, alike on every node with the same seed.
    #[default]
    Maglev,
    /// At random.
    Random,
}

/// Which backends are preferred by where they are, if no endpoint has hints. Endpoints that have them carry
/// what a controller has made of the same wish, and that counts instead (KEP-2433, KEP-3015).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Distribution {
    /// None before the others.
    #[default]
    Even,
    /// This node's zone first (`PreferSameZone`, `PreferClose`).
    SameZone,
    /// This node first, then its zone (`PreferSameNode`).
    SameNode,
}

/// What becomes of TCP flows of a backend that was removed or does not serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRemoval {
    /// They go on while it is reachable.
    #[default]
    Keep,
    /// Their clients get a reset with the next segment.
    Reset,
}

/// How clients outside are passed on to backends on other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forwarding {
    /// Shown to them as this node, which their replies come back to.
    #[default]
    Snat,
    /// As they are, inside other packets to the backend's node, from where they are answered directly.
    Dsr,
}

/// One port of a service, with the endpoints it is balanced over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePort {
    /// The port's name, empty for an only port.
    pub name: String,
    /// The frontend's port, never 0.
    pub port: u16,
    /// The port of this node's addresses that leads here, too; only of a service of type NodePort or
    /// LoadBalancer. No other port of the model with the protocol has it, nor as `host_port`.
    pub node_port: Option<u16>,
    /// As `node_port`, outside the range of node ports and with one container behind it (Docker's `-p`).
    pub host_port: Option<u16>,
    /// Its transport protocol.
    pub protocol: Protocol,
    /// Addresses of the service at which this port is another service's.
    pub lost: Vec<IpAddr>,
    /// Endpoints of every family; those of a family without a service address are left out.
    /// Sorted by address and port, no two alike.
    pub endpoints: Vec<Endpoint>,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// The family of a range.
    pub fn of_range(range: &IpNet) -> Self {
        Family::of(range.addr())
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// A transport protocol that can be balanced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// IP protocol 6.
    #[default]
    Tcp,
    /// IP protocol 17.
    Udp,
    /// IP protocol 132. Its checksum covers ports and no addresses, so a port stays as it is.
    Sctp,
}

impl Protocol {
    /// The number in the IP header (IANA protocol numbers).
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    /// From the number in the IP header.
    pub fn from_number(number: u32) -> Option<Protocol> {
        [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .into_iter()
            .find(|protocol| u32::from(protocol.number()) == number)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        })
    }
}

/// One backend of a service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it listens.
    pub address: IpAddr,
    /// The port it listens on, never 0.
    pub port: u16,
    /// Share of new flows relative to its fellows; 0 takes no new flows.
    pub weight: u16,
    /// `conditions` of a Kubernetes EndpointSlice; ready and serving, not terminating, elsewhere.
    pub conditions: Conditions,
    /// Where it is, if somebody has said. Shared by the endpoints of one place.
    pub place: Option<Arc<Place>>,
}

/// Where an endpoint is, and for whom it is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// Its node. `None`: not told, then it is on this node if its address is the host's own or in the
    /// pods' networks.
    pub node: Option<String>,
    /// Its zone.
    pub zone: Option<String>,
    /// `hints.forZones`: the zones that should use it.
    pub for_zones: Vec<String>,
    /// `hints.forNodes`: the nodes that should use it.
    pub for_nodes: Vec<String>,
}

/// `discovery.k8s.io/v1` EndpointConditions, with the defaults of its documentation applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Takes new flows.
    pub ready: bool,
    /// Would answer; counts where no endpoint is ready.
    pub serving: bool,
    /// Is being shut down: keeps its flows.
    pub terminating: bool,
}

impl Default for Conditions {
    fn default() -> Self {
        Conditions { ready: true, serving: true, terminating: false }
    }
}
