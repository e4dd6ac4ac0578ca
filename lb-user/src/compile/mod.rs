//! Compile: from a service of the model to the rows it should have. Pure.

mod maglev;

use std::net::IpAddr;

use ipnet::IpNet;
use lb_common::abi::{BackendState, FrontendKind, Scopes};

pub use maglev::table;

use crate::model::{Algorithm, Endpoint, Protocol, Service, TrafficPolicy};

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
    /// The addresses that node ports and host ports are reached at.
    pub node_ports: Vec<IpAddr>,
    /// The host's own addresses.
    pub own: Vec<IpAddr>,
    /// Where pods of this node are.
    pub pods: Vec<IpNet>,
}

/// The rows of a service: one entry per port and family.
pub fn compile(service: &Service, _node: &NodeFacts) -> Vec<Wanted> {
    let mut wanted = Vec::with_capacity(service.ports.len() * service.addresses.len());
    for address in &service.addresses {
        for port in &service.ports {
            let family: Vec<&Endpoint> = port
                .endpoints
                .iter()
                .filter(|endpoint| endpoint.address.is_ipv4() == address.is_ipv4())
                .collect();
            let at = Frontend { address: *address, port: port.port, protocol: port.protocol };
            wanted.push(Wanted {
                port_name: port.name.clone(),
                frontends: vec![WantedFrontend { at, kind: FrontendKind::ClusterIp }],
                backends: backends(&family),
                choice: Choice::default(),
            });
        }
    }
    wanted
}

/// Which endpoints take flows: the ready ones; if there is none, those that still serve while they
/// terminate (Kubernetes' fallback, KEP-1669). What serves without being chosen keeps its flows.
fn backends(endpoints: &[&Endpoint]) -> Vec<WantedBackend> {
    let any_ready = endpoints.iter().any(|endpoint| endpoint.conditions.ready);
    let state = |endpoint: &Endpoint| {
        let conditions = endpoint.conditions;
        let chosen = if any_ready { conditions.ready } else { conditions.serving && conditions.terminating };
        if chosen && endpoint.weight > 0 {
            BackendState::Active(Scopes::Both)
        } else if chosen || conditions.serving {
            BackendState::Draining
        } else {
            BackendState::Removed
        }
    };
    endpoints
        .iter()
        .map(|endpoint| WantedBackend {
            address: endpoint.address,
            port: endpoint.port,
            weight: endpoint.weight,
            state: state(endpoint),
        })
        .collect()
}
