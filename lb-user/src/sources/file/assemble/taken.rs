//! Names and frontends that services have already: the first one keeps them.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::IpAddr,
};

use super::{
    super::super::problem::{Place, Problem},
    Draft,
};
use crate::model::{Protocol, ServiceName};

/// Names and frontends that are taken, and where.
#[derive(Default)]
pub(super) struct Taken {
    names: HashMap<ServiceName, Place>,
    frontends: HashMap<Frontend, (ServiceName, Place)>,
}

/// What a client addresses. Which addresses the node has is not known here.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Frontend {
    /// `None`: the node's.
    address: Option<IpAddr>,
    port: u16,
    protocol: Protocol,
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Frontend { port, protocol, .. } = self;
        match self.address {
            Some(address) => write!(f, "{address} port {port}/{protocol}"),
            None => write!(f, "port {port}/{protocol} of the node"),
        }
    }
}

impl Taken {
    pub fn add(&mut self, draft: &Draft) {
        let (name, place) = (&draft.service.name, &draft.place);
        self.names.entry(name.clone()).or_insert_with(|| place.clone());
        for frontend in frontends(draft) {
            self.frontends.entry(frontend).or_insert_with(|| (name.clone(), place.clone()));
        }
    }

    pub fn check(&self, draft: &Draft) -> Result<(), Problem> {
        let own = &draft.service.name;
        if let Some(place) = self.names.get(own) {
            let text = format!("there is a service {own} at {place} already; rename one");
            return Err(draft.problem(text));
        }
        for frontend in frontends(draft) {
            if let Some((name, place)) = self.frontends.get(&frontend) {
                let advice = match frontend.address {
                    Some(_) => "give one of them another address or port",
                    None => "give one of them another port",
                };
                let text =
                    format!("{frontend} of {own} belongs to service {name} at {place} already; {advice}");
                return Err(draft.problem(text));
            }
        }
        let mut seen = HashSet::new();
        match frontends(draft).filter(|frontend| frontend.address.is_none()).find(|new| !seen.insert(*new)) {
            Some(twice) => {
                let text = format!("two ports of service {own} have {twice}; give one of them another");
                Err(draft.problem(text))
            }
            None => Ok(()),
        }
    }
}

/// Every frontend that is known before addresses are given and the node is looked at.
fn frontends(draft: &Draft) -> impl Iterator<Item = Frontend> {
    let service = &draft.service;
    let addresses = service.addresses.iter().chain(&service.external_ips).chain(&service.load_balancer_ips);
    let of_addresses = addresses.flat_map(|&address| {
        let at = move |(port, protocol)| Frontend { address: Some(address), port, protocol };
        service.ports.iter().map(|port| (port.port, port.protocol)).map(at)
    });
    let of_node = service.ports.iter().flat_map(|port| {
        let at = |number| Frontend { address: None, port: number, protocol: port.protocol };
        port.node_port.into_iter().chain(port.host_port).map(at)
    });
    of_addresses.chain(of_node)
}
