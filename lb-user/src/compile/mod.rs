//! Compile: from a service of the model to the rows it should have. Pure.

mod maglev;

use std::net::IpAddr;

use lb_common::abi::BackendState;

pub use maglev::table;

use crate::model::{Endpoint, Protocol, Service};

/// What one service port should have in one address family: a service row with its frontends and
/// backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Name of the service port, empty for an only one.
    pub port_name: String,
    /// The frontends that lead to it, never empty.
    pub frontends: Vec<Frontend>,
    /// Its backends, sorted by address and port.
    pub backends: Vec<WantedBackend>,
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

/// A backend with its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedBackend {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its share of new flows; only of meaning where it is active.
    pub weight: u16,
    /// Whether it takes flows.
    pub state: BackendState,
}

/// The rows of a service: one entry per port and address.
pub fn compile(service: &Service) -> Vec<Wanted> {
    let mut wanted = Vec::with_capacity(service.ports.len() * service.addresses.len());
    for address in &service.addresses {
        for port in &service.ports {
            let family: Vec<&Endpoint> = port
                .endpoints
                .iter()
                .filter(|endpoint| endpoint.address.is_ipv4() == address.is_ipv4())
                .collect();
            wanted.push(Wanted {
                port_name: port.name.clone(),
                frontends: vec![Frontend { address: *address, port: port.port, protocol: port.protocol }],
                backends: backends(&family),
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
            BackendState::Active
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
