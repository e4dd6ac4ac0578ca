//! Desired state: what the sources ask for, validated and without a word about maps or Kubernetes.

pub mod addresses;
pub mod diff;
pub mod refused;

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;

/// Everything the agent is asked to serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// Services by name. `Arc`, so that an unchanged service is recognised by its pointer.
    pub services: BTreeMap<ServiceName, Arc<Service>>,
    /// Ranges that services without an address get theirs from.
    pub service_cidrs: Vec<IpNet>,
    /// Seed of the Maglev tables; the same on every node gives the same tables. `None`: the agent's own.
    pub hash_seed: Option<u64>,
}

/// `namespace/name`, unique within a model.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Cluster IPs, at most one per family; never empty once addresses have been given.
    pub addresses: Vec<IpAddr>,
    /// Families that an address is given for from the ranges ([`addresses::Allocations`]); empty where the
    /// source names the addresses itself.
    pub wants: Vec<Family>,
    /// The ports, in the order of the config. No two share port and protocol.
    pub ports: Vec<ServicePort>,
}

/// One port of a service, with the endpoints it is balanced over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// The port's name, empty for an only port.
    pub name: String,
    /// The frontend's port, never 0.
    pub port: u16,
    /// Its transport protocol.
    pub protocol: Protocol,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// IP protocol 6.
    Tcp,
    /// IP protocol 17.
    Udp,
}

impl Protocol {
    /// The number in the IP header (IANA protocol numbers).
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
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
