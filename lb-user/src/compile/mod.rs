//! Compile: from a service of the model to the rows it should have. Pure.

mod dsr;
mod maglev;
mod rendezvous;
mod shared;
#[cfg(test)]
mod tests;
mod usable;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use lb_common::abi::{BackendState, FrontendKind, Scope};

pub use self::shared::{Shared, shared};
use crate::model::{
    Algorithm, Endpoint, Family, Forwarding, Node, OnRemoval, Protocol, Service, ServicePort, TrafficPolicy,
};

/// What one service port should have in one address family: a service row with its frontends and
/// backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Name of the service port, empty for an only one.
    pub port_name: String,
    /// The frontends that lead to it, never empty.
    pub frontends: Vec<WantedFrontend>,
    /// Its backends, sorted by address and port.
    pub backends: Vec<WantedBackend>,
    /// How one of them is chosen.
    pub choice: Choice,
}

impl Wanted {
    /// For every slot the index of its backend; empty if none takes flows of that scope.
    pub fn table(&self, scope: Scope, seed: u64) -> Vec<u32> {
        match self.choice.forwarding {
            Forwarding::Snat => maglev::table(&self.backends, scope, seed),
            Forwarding::Dsr => rendezvous::table(&self.backends, scope, seed),
        }
    }
}

/// What a client addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frontend {
    /// The virtual address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

/// A frontend and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedFrontend {
    /// What a client addresses.
    pub at: Frontend,
    /// Which policies hold there.
    pub kind: FrontendKind,
}

/// A backend with its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedBackend {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its share of new flows; only of meaning where it takes some.
    pub weight: u16,
    /// Whether it takes flows, and whose.
    pub state: BackendState,
    /// The address of its node that packets from outside go to inside others (DSR).
    pub node: Option<IpAddr>,
}

/// How a backend is chosen for a new flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Policy of cluster IPs.
    pub internal: TrafficPolicy,
    /// Policy of the other frontends.
    pub external: TrafficPolicy,
    /// Timeout of the affinity to a client's address, seconds.
    pub affinity: Option<u32>,
    /// By hash or at random.
    pub algorithm: Algorithm,
    /// What becomes of TCP flows of a backend that is no longer among them.
    pub on_removal: OnRemoval,
    /// How clients outside are passed on to other nodes.
    pub forwarding: Forwarding,
    /// Clients that may use the load balancer's addresses; empty: all. Of this family, sorted.
    pub source_ranges: Vec<IpNet>,
}

/// What compiling needs to know of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: Option<String>,
    /// The addresses that node ports are reached at.
    pub node_ports: Vec<IpAddr>,
    /// The addresses that host ports are reached at: every local one that may have a frontend.
    pub host_ports: Vec<IpAddr>,
    /// Who the host's own processes are to source ranges and affinity: its primary address of each family.
    pub host: Vec<IpAddr>,
    /// The host's own addresses.
    pub own: Vec<IpAddr>,
    /// Where pods of this node are.
    pub pods: Vec<IpNet>,
    /// Backends whose next hop does not answer.
    pub silent: BTreeSet<IpAddr>,
    /// What is said about nodes by their names, this one among them.
    pub nodes: Arc<BTreeMap<String, Node>>,
    /// The addresses that node ports of other nodes are reached at, sorted.
    pub other_node_ports: Vec<IpAddr>,
    /// Families in which packets can't be put into others (DSR), and services do without.
    pub no_tunnels: Vec<Family>,
}

impl NodeFacts {
    /// Whether packets of a family can be put into others.
    pub fn can_tunnel(&self, family: Family) -> bool {
        !self.no_tunnels.contains(&family)
    }
}

/// The rows of a service: one entry per port and per family that it has a cluster IP of. Node ports and
/// host ports of another family have no entry; addresses of another family do not come here, the sources
/// report them. Nor has a port whose frontends are all other services'.
pub fn compile(service: &Service, node: &NodeFacts) -> Vec<Wanted> {
    let mut wanted = Vec::with_capacity(service.ports.len() * service.addresses.len());
    for &cluster_ip in &service.addresses {
        let choice = choice(service, Family::of(cluster_ip), node);
        for port in &service.ports {
            let frontends = frontends(service, port, cluster_ip, node);
            if frontends.is_empty() {
                continue;
            }
            wanted.push(Wanted {
                port_name: port.name.clone(),
                frontends,
                backends: backends(service, port, Family::of(cluster_ip), node),
                choice: choice.clone(),
            });
        }
    }
    wanted
}

/// What leads to a port in the family of `cluster_ip`, which comes first. Where one address stands for
/// several kinds, the stricter one is taken: the load balancer's, to which source ranges apply, before an
/// external IP.
fn frontends<'a>(
    service: &'a Service,
    port: &'a ServicePort,
    cluster_ip: IpAddr,
    node: &'a NodeFacts,
) -> Vec<WantedFrontend> {
    let of_node = |number: Option<u16>, addresses: &'a [IpAddr], kind| {
        let at_each = move |number| addresses.iter().map(move |address| (*address, number, kind));
        number.into_iter().flat_map(at_each)
    };
    // Other nodes pass on to this one what comes to theirs, as it is.
    let dsr = service.forwarding == Forwarding::Dsr && service.external_policy == TrafficPolicy::Cluster;
    let other_node_ports = port.node_port.filter(|_| dsr).into_iter().flat_map(|number| {
        node.other_node_ports.iter().map(move |address| (*address, number, FrontendKind::NodePort))
    });
    let balanced = &service.load_balancer_ips;
    let all = [(cluster_ip, port.port, FrontendKind::ClusterIp)]
        .into_iter()
        .chain(balanced.iter().map(|address| (*address, port.port, FrontendKind::LoadBalancer)))
        .chain(service.external_ips.iter().map(|address| (*address, port.port, FrontendKind::ExternalIp)))
        .filter(|(address, ..)| !port.lost.contains(address))
        .chain(of_node(port.node_port, &node.node_ports, FrontendKind::NodePort))
        .chain(of_node(port.host_port, &node.host_ports, FrontendKind::HostPort))
        .chain(other_node_ports);
    let mut frontends: Vec<WantedFrontend> = Vec::with_capacity(1);
    for (address, number, kind) in all.filter(|(address, ..)| address.is_ipv4() == cluster_ip.is_ipv4()) {
        let at = Frontend { address, port: number, protocol: port.protocol };
        if frontends.iter().all(|frontend| frontend.at != at) {
            frontends.push(WantedFrontend { at, kind });
        }
    }
    frontends
}

/// How a backend is chosen in one family. Source ranges go where a load balancer's address is that they
/// apply to; without one of that family every source may use it, as with kube-proxy. The load balancer's addresses
/// are among them, and where one is the host's, so is the host: it calls that address from itself.
fn choice(service: &Service, family: Family, node: &NodeFacts) -> Choice {
    let restricted = service.load_balancer_ips.iter().any(|&address| Family::of(address) == family);
    let mut source_ranges: Vec<IpNet> = service
        .source_ranges
        .iter()
        .copied()
        .filter(|range| restricted && Family::of_range(range) == family)
        .collect();
    if !source_ranges.is_empty() {
        let balanced = service.load_balancer_ips.iter();
        let ours = balanced.clone().any(|address| node.own.contains(address));
        let itself = balanced.chain(node.host.iter().filter(|_| ours));
        source_ranges.extend(itself.filter(|own| Family::of(**own) == family).copied().map(IpNet::from));
    }
    source_ranges.sort();
    source_ranges.dedup();
    Choice {
        internal: service.internal_policy,
        external: service.external_policy,
        affinity: service.affinity,
        algorithm: service.algorithm,
        on_removal: service.on_removal,
        forwarding: service.forwarding,
        source_ranges,
    }
}

/// How many ready endpoints of a service are on this node, as `healthCheckNodePort` tells. A pod that has an address of
/// each family counts once.
pub fn ready_here(service: &Service, node: &NodeFacts) -> usize {
    let endpoints = service.ports.iter().flat_map(|port| &port.endpoints);
    let here = endpoints.filter(|endpoint| endpoint.conditions.ready && usable::is_local(endpoint, node));
    let here: BTreeSet<IpAddr> = here.map(|endpoint| endpoint.address).collect();
    let ipv4 = here.iter().filter(|address| address.is_ipv4()).count();
    ipv4.max(here.len() - ipv4)
}

/// The state of a backend that is no longer of its service.
pub fn removed(on_removal: OnRemoval) -> BackendState {
    match on_removal {
        OnRemoval::Keep => BackendState::Removed,
        OnRemoval::Reset => BackendState::Reset,
    }
}

/// The endpoints of one family and what they take.
fn backends(service: &Service, port: &ServicePort, family: Family, node: &NodeFacts) -> Vec<WantedBackend> {
    let endpoints: Vec<&Endpoint> =
        port.endpoints.iter().filter(|endpoint| Family::of(endpoint.address) == family).collect();
    let states = usable::states(&endpoints, service.distribution, node);
    let backend = |(endpoint, state): (&Endpoint, BackendState)| WantedBackend {
        address: endpoint.address,
        port: endpoint.port,
        weight: endpoint.weight,
        state: if state.is_removed() { removed(service.on_removal) } else { state },
        node: dsr::node_of(service, endpoint, node),
    };
    endpoints.into_iter().zip(states).map(backend).collect()
}
