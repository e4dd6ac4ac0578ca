//! What an agent would serve of a config on its first start, with a made-up host around it: the maps, and
//! whose each row is.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use lb_common::{
    abi::{NextHopKind, NextHopRow, Scope, Settings, ZONE_OF_CLIENT, ZONE_UPLINK, bridge_zone},
    family::{Family as _, V4, V6},
};

use lb_sim::Maps;

use super::{At, ExplainError};
use crate::{
    agent::{
        node,
        programs::{cidrs, short_seed},
    },
    apply::apply,
    compile::{Frontend, NodeFacts, Wanted, compile, shared},
    maps::Sizes,
    model::{Endpoint, Model, Service, ServiceName, addresses::Allocations},
    plan::{self, Ids, Mirror, Routes, Tuning},
};

/// Interface indexes of the made-up host.
pub const UPLINK: u32 = 2;
const BRIDGE: u32 = 3;
/// The port the client is behind.
pub const CLIENT: u32 = 4;
/// The port the other pods are behind. Nothing depends on which: a call to oneself is told by its address.
const PODS: u32 = 5;
/// The bridge's zone.
const ZONE: u16 = bridge_zone(BRIDGE);

/// Why an address is taken for a pod's of this node.
pub enum Pod {
    /// It lies in a range of `podCIDRs`.
    Range(IpNet),
    /// It is a backend's that is not said to be on another node.
    BackendOf(ServiceName),
}

/// See the module.
pub struct Served {
    /// What is asked for, every service with its addresses.
    pub model: Model,
    /// The node it is asked of.
    pub node: NodeFacts,
    /// The config says where this node's pods are.
    pub pods_known: bool,
    /// The node's addresses as the config has them, the primary one of each family first.
    primary: Vec<IpAddr>,
    /// What packets would find.
    pub maps: Maps,
    /// By service row: the service, and what its port was compiled to.
    pub owners: HashMap<u32, (ServiceName, Wanted)>,
    mirror: Mirror,
}

impl Served {
    /// Carries a whole config out.
    ///
    /// # Errors
    /// A service can be given no address; rows do not fit the largest maps there are.
    pub fn new(mut model: Model) -> Result<Served, ExplainError> {
        Allocations::default().assign(&mut model)?;
        let node = facts(&model);
        let shared = shared(&model, &node);
        let mut wanted: Vec<(ServiceName, Wanted)> = model
            .services
            .values()
            .flat_map(|service| {
                compile(service, &node).into_iter().map(|wanted| (service.name.clone(), wanted))
            })
            .collect();
        wanted.retain_mut(|(name, wanted)| {
            wanted.frontends.retain(|frontend| shared.other_owner(&frontend.at, name).is_none());
            !wanted.frontends.is_empty()
        });
        let routes = Host::new(&node, &wanted);
        let mut maps = Maps::default();
        let mut mirror = Mirror::new(Ids::of(Sizes { services: 1 << 20, flows: 1024 }));
        let mut owners = HashMap::new();
        // Seconds are ticks here, and no time passes.
        let tuning = Tuning { seed: seed(&model), hz: 1, tick_shift: 0 };
        for (name, wanted) in wanted {
            let steps = plan::service(&mut mirror, &wanted, &routes, tuning)?;
            apply(&mut maps, &mut mirror, &steps)?;
            if let Some(id) = mirror.service_of(&wanted.frontends[0].at) {
                owners.insert(id, (name, wanted));
            }
        }
        let steps = plan::addresses(&mut mirror, &node.own, &node.other_node_ports);
        apply(&mut maps, &mut mirror, &steps)?;
        let this = model.this_node(&node.name, &[]);
        let (pods_known, primary) = (!this.pod_cidrs.is_empty(), this.addresses);
        Ok(Served { model, node, pods_known, primary, maps, owners, mirror })
    }

    /// Where a packet with that source is seen first.
    pub fn first_seen(&self, from: IpAddr) -> At {
        if from.is_loopback() || self.node.own.contains(&from) {
            At::Host
        } else if self.pod(from).is_some() {
            At::Port
        } else {
            At::Uplink
        }
    }

    /// Why an address is taken for a pod's of this node, if it is.
    pub fn pod(&self, address: IpAddr) -> Option<Pod> {
        if self.pods_known
            && let Some(range) = self.node.pods.iter().find(|range| range.contains(&address))
        {
            return Some(Pod::Range(*range));
        }
        let here = |endpoint: &Endpoint| {
            let node = endpoint.place.as_ref().and_then(|place| place.node.as_ref());
            endpoint.address == address && node.map_or(!self.pods_known, |node| *node == self.node.name)
        };
        let has = |service: &Service| service.ports.iter().any(|port| port.endpoints.iter().any(here));
        let service = self.model.services.values().find(|service| has(service))?;
        Some(Pod::BackendOf(service.name.clone()))
    }

    /// The service that has a frontend, its row and what was compiled.
    pub fn owner(&self, frontend: &Frontend) -> Option<(u32, &ServiceName, &Wanted)> {
        let id = self.mirror.service_of(frontend)?;
        self.owners.get(&id).map(|(name, wanted)| (id, name, wanted))
    }

    /// How a backend's address is reached.
    pub fn way_to(&self, address: IpAddr) -> NextHopKind {
        self.mirror.way_to(address).map_or(NextHopKind::None, |(_, row)| row.kind())
    }

    /// Who a socket of the host is to source ranges and affinity: the node's primary address, or the one that
    /// is asked about where that is not known.
    pub fn host_address(&self, from: IpAddr) -> IpAddr {
        let mut addresses = self.primary.iter();
        addresses.find(|address| address.is_ipv4() == from.is_ipv4()).copied().unwrap_or(from)
    }

    /// What is fixed where the packet of a client `from` there is first seen.
    pub fn settings(&self, at: At, from: IpAddr) -> Settings {
        let (return_path, outside) = match at {
            At::Port | At::Host => (NextHopKind::Peer, 0),
            At::Uplink => (NextHopKind::Uplink, 1),
        };
        let (cidrs4, cidrs6) = cidrs(&self.model.service_cidrs);
        Settings {
            zone: ZONE.into(),
            return_path: return_path as u32,
            hash_seed: short_seed(seed(&self.model)),
            outside,
            cidrs4,
            cidrs6,
            host4: V4::from_ip(self.host_address(from)).unwrap_or_default(),
            host6: V6::from_ip(self.host_address(from)).unwrap_or_default(),
            ..Settings::DEFAULT
        }
    }
}

/// Local addresses that no config needs to name.
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// An agent without a `hashSeed` makes one up; 0 is as good as any.
fn seed(model: &Model) -> u64 {
    model.hash_seed.unwrap_or(0)
}

/// The node as far as the config tells; where pods are is anywhere if it does not say.
fn facts(model: &Model) -> NodeFacts {
    let host = node::host_name();
    let node = model.this_node(&host, &[]);
    let mut own = [&node.addresses[..], &LOOPBACK].concat();
    own.sort();
    own.dedup();
    let everywhere = || vec![Ipv4Net::default().into(), Ipv6Net::default().into()];
    let name = node.name.unwrap_or(host);
    NodeFacts {
        other_node_ports: node::other_node_ports(model, &name),
        nodes: std::sync::Arc::clone(&model.nodes),
        no_tunnels: Vec::new(),
        name,
        zone: node.zone,
        node_ports: node::node_ports(model, &node.addresses, &own),
        host_ports: node::host_ports(&own),
        host: node::primaries(&node.addresses),
        pods: if node.pod_cidrs.is_empty() { everywhere() } else { node.pod_cidrs },
        own,
        ..NodeFacts::default()
    }
}

/// Ways on the made-up host: its own processes, pods on its bridge, everything else behind the uplink.
struct Host<'a> {
    own: &'a [IpAddr],
    pods: HashSet<IpAddr>,
}

impl<'a> Host<'a> {
    /// Backends that were compiled to be on this node are.
    fn new(node: &'a NodeFacts, wanted: &[(ServiceName, Wanted)]) -> Self {
        let backends = wanted.iter().flat_map(|(_, wanted)| &wanted.backends);
        let here = backends.filter(|backend| backend.state.takes(Scope::Local));
        Host { own: &node.own, pods: here.map(|backend| backend.address).collect() }
    }
}

impl Routes for Host<'_> {
    fn next_hop(&self, address: IpAddr) -> (NextHopRow, u16) {
        let row = |kind: NextHopKind, ifindex, bridge| NextHopRow {
            ifindex,
            bridge,
            kind: kind as u32,
            ..NextHopRow::default()
        };
        if self.own.contains(&address) {
            (row(NextHopKind::Host, 0, 0), ZONE_OF_CLIENT)
        } else if self.pods.contains(&address) {
            (row(NextHopKind::Peer, PODS, BRIDGE), ZONE)
        } else {
            (row(NextHopKind::Uplink, UPLINK, 0), ZONE_UPLINK)
        }
    }
}
