//! Names and frontends that services have already: the first one keeps them, cluster IPs before all other frontends.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::IpAddr,
};

use super::{
    super::super::problem::{Place, Problem},
    Draft, Origin,
};
use crate::model::{Protocol, ServiceName};

/// Names and frontends that are taken, and where.
#[derive(Default)]
pub(super) struct Taken {
    names: HashMap<ServiceName, Place>,
    frontends: HashMap<Frontend, Owner>,
}

/// Whose a frontend is.
struct Owner {
    service: ServiceName,
    place: Place,
    /// It is one of our documents.
    ours: bool,
    /// The frontend is its cluster IP.
    cluster_ip: bool,
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

/// What a service has lost to others.
#[derive(Default)]
pub(super) struct Lost {
    /// To another of our documents.
    pub errors: Vec<String>,
    /// To what goes before it.
    pub warnings: Vec<String>,
}

impl Taken {
    /// Takes the service's name.
    pub fn name(&mut self, draft: &Draft) -> Result<(), Problem> {
        let own = &draft.service.name;
        if let Some(place) = self.names.get(own) {
            let text = format!("there is a service {own} at {place} already; rename one");
            return Err(draft.problem(text));
        }
        self.names.insert(own.clone(), draft.place.clone());
        Ok(())
    }

    /// Takes the cluster IPs, for all services before any calls [`Self::others`]; those that another service has are
    /// none of this one's any more.
    pub fn cluster_ips(&mut self, draft: &mut Draft, lost: &mut Lost) {
        let addresses = draft.service.addresses.clone();
        self.addresses(draft, &addresses, true, lost);
    }

    /// As [`Self::cluster_ips`], of all other frontends.
    pub fn others(&mut self, draft: &mut Draft, lost: &mut Lost) {
        let service = &draft.service;
        let mut addresses = [&service.load_balancer_ips[..], &service.external_ips].concat();
        addresses.retain(|address| !service.addresses.contains(address));
        self.addresses(draft, &addresses, false, lost);
        self.of_node(draft, lost);
    }

    fn addresses(&mut self, draft: &mut Draft, addresses: &[IpAddr], cluster_ip: bool, lost: &mut Lost) {
        for index in 0..draft.service.ports.len() {
            for &address in addresses {
                let port = &draft.service.ports[index];
                let frontend = Frontend { address: Some(address), port: port.port, protocol: port.protocol };
                if !self.take(draft, frontend, cluster_ip, lost) {
                    draft.service.ports[index].lost.push(address);
                }
            }
        }
    }

    fn of_node(&mut self, draft: &mut Draft, lost: &mut Lost) {
        let mut seen = HashSet::new();
        for index in 0..draft.service.ports.len() {
            for is_node_port in [true, false] {
                let port = &draft.service.ports[index];
                let own = if is_node_port { port.node_port } else { port.host_port };
                let Some(number) = own else { continue };
                let frontend = Frontend { address: None, port: number, protocol: port.protocol };
                let first = seen.insert(frontend);
                if !first {
                    let name = &draft.service.name;
                    let said =
                        format!("two ports of service {name} have {frontend}; give one of them another");
                    if draft.is_ours() { &mut lost.errors } else { &mut lost.warnings }.push(said);
                }
                if !first || !self.take(draft, frontend, false, lost) {
                    let port = &mut draft.service.ports[index];
                    *if is_node_port { &mut port.node_port } else { &mut port.host_port } = None;
                }
            }
        }
        if let Some(number) = draft.service.health_check {
            let frontend = Frontend { address: None, port: number, protocol: Protocol::Tcp };
            if !self.take(draft, frontend, false, lost) {
                draft.service.health_check = None;
            }
        }
    }

    /// Whether the frontend is the service's.
    fn take(&mut self, draft: &Draft, frontend: Frontend, cluster_ip: bool, lost: &mut Lost) -> bool {
        let (own, ours) = (&draft.service.name, draft.is_ours());
        let owner = self.frontends.entry(frontend).or_insert_with(|| Owner {
            service: own.clone(),
            place: draft.place.clone(),
            ours,
            cluster_ip,
        });
        if owner.service == *own {
            return true;
        }
        let Owner { service: name, place, .. } = &*owner;
        let what = if frontend.address.is_some() { "another address or port" } else { "another port" };
        if ours && owner.ours {
            lost.errors.push(format!(
                "{frontend} of {own} belongs to service {name} at {place} already; give one of them {what}"
            ));
        } else {
            let why = if owner.cluster_ip { "is the cluster IP of" } else { "belongs to" };
            lost.warnings.push(format!(
                "{frontend} of {own} is not served for it: it {why} service {name} at {place}; give one of them \
                 {what}"
            ));
        }
        false
    }
}

impl Draft {
    fn is_ours(&self) -> bool {
        self.origin == Origin::Ours
    }
}
