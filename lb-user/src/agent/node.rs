//! What this node is, from the config and the host.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use super::{dsr, routes};
use crate::{
    compile::NodeFacts,
    model::{Model, NodePortAddress, Service, TrafficPolicy, refused::Refusal},
    netlink::{Address, World},
};

/// The config's words where it has some, else what the host says.
pub fn facts(model: &Model, view: &routes::View) -> NodeFacts {
    let world = view.world;
    let host = host_name();
    let own = own_addresses(world);
    let node = model.this_node(&host, &own);
    let addresses = if node.addresses.is_empty() { addresses(view) } else { node.addresses.clone() };
    let node_ports = node_ports(model, &addresses, &own);
    let subnets = || {
        let of_bridges = world.addresses.iter().filter(|known| view.bridges.contains(&known.ifindex));
        of_bridges.map(|known| known.net.trunc()).filter(|net| !is_link_local(net.addr())).collect()
    };
    let name = node.name.unwrap_or(host);
    NodeFacts {
        zone: node.zone,
        node_ports,
        host_ports: host_ports(&own),
        host: primaries(&addresses),
        own,
        pods: if node.pod_cidrs.is_empty() { subnets() } else { node.pod_cidrs },
        other_node_ports: other_node_ports(model, &name),
        nodes: Arc::clone(&model.nodes),
        no_tunnels: dsr::refused(model, view),
        silent: silent(model, view),
        name,
    }
}

/// What is wrong where a policy Local keeps clients to this node's backends and nobody has heard of this node.
pub fn warning(model: &Model, view: &routes::View) -> Option<String> {
    let name = model.this_node(&host_name(), &own_addresses(view.world)).name?;
    if model.nodes.contains_key(&name) {
        return None;
    }
    let is_local = |service: &&Arc<Service>| {
        [service.internal_policy, service.external_policy].contains(&TrafficPolicy::Local)
    };
    let local =
        model.services.values().find(|service| is_local(service) && nodes_of(service).next().is_some())?;
    if model.services.values().any(|service| nodes_of(service).any(|node| *node == name)) {
        return None;
    }
    Some(format!(
        "service {} has a traffic policy Local, but this node is taken for \"{name}\", and no Node and no backend is of \
         that name, nor one Node alone of an address of this host: clients that are kept to its backends get none; \
         name it as Kubernetes does, `node: {{name: NAME}}`",
        local.name
    ))
}

/// The nodes that the backends of a service are said to be on.
fn nodes_of(service: &Service) -> impl Iterator<Item = &String> {
    let endpoints = service.ports.iter().flat_map(|port| &port.endpoints);
    endpoints.filter_map(|endpoint| endpoint.place.as_ref()?.node.as_ref())
}

/// The addresses at which node ports of other nodes than the one of this name are called, sorted.
pub fn other_node_ports(model: &Model, name: &str) -> Vec<IpAddr> {
    let others = model.nodes.iter().filter(|(other, _)| *other != name);
    let mut addresses: Vec<IpAddr> =
        others.flat_map(|(_, node)| node_ports(model, &node.addresses, &[])).collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

/// Backends off our bridges whose next hop does not answer.
fn silent(model: &Model, view: &routes::View) -> BTreeSet<IpAddr> {
    // Most of the time all of them do.
    if view.world.failed.iter().all(|(ifindex, _)| view.bridges.contains(ifindex)) {
        return BTreeSet::new();
    }
    let ports = model.services.values().flat_map(|service| &service.ports);
    let addresses: BTreeSet<IpAddr> =
        ports.flat_map(|port| &port.endpoints).map(|endpoint| endpoint.address).collect();
    addresses.into_iter().filter(|address| view.is_silent(*address)).collect()
}

/// The host's name, which is the node's where the config gives none.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_lowercase()
}

/// What `nodePortAddresses` come to, sorted. `addresses` are the node's, the primary one of each family
/// first, `own` all of the host's.
pub fn node_ports(model: &Model, addresses: &[IpAddr], own: &[IpAddr]) -> Vec<IpAddr> {
    let mut node_ports: Vec<IpAddr> = Vec::new();
    for wanted in &model.node_port_addresses {
        match wanted {
            NodePortAddress::Primary => {
                node_ports.extend(primaries(addresses));
            }
            // Every address of the host that lies there, as kube-proxy's --nodeport-addresses.
            NodePortAddress::Range(range) => {
                node_ports.extend(own.iter().chain(addresses).filter(|address| range.contains(*address)));
            }
        }
    }
    // A range of all addresses has loopback ones, too.
    node_ports.retain(|address| Refusal::of(*address).is_none());
    node_ports.sort();
    node_ports.dedup();
    node_ports
}

/// Those of the host's addresses that host ports are reached at. Loopback ones are its sockets' alone.
pub fn host_ports(own: &[IpAddr]) -> Vec<IpAddr> {
    let may = |address: &IpAddr| matches!(Refusal::of(*address), None | Some(Refusal::Loopback));
    own.iter().copied().filter(may).collect()
}

/// The first address of each family.
pub fn primaries(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let first = |ipv4| addresses.iter().copied().find(|address| address.is_ipv4() == ipv4);
    [first(true), first(false)].into_iter().flatten().collect()
}

/// The node's first address of each family, where it has one.
pub fn primary(model: &Model, view: &routes::View) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let configured = model.this_node(&host_name(), &own_addresses(view.world)).addresses;
    let addresses = if configured.is_empty() { addresses(view) } else { configured };
    let mut primary = (None, None);
    for address in addresses {
        match address {
            IpAddr::V4(address) => primary.0 = primary.0.or(Some(address)),
            IpAddr::V6(address) => primary.1 = primary.1.or(Some(address)),
        }
    }
    primary
}

/// Every address of the host, sorted.
fn own_addresses(world: &World) -> Vec<IpAddr> {
    let mut own: Vec<IpAddr> = world.addresses.iter().map(|known| known.net.addr()).collect();
    own.sort();
    own.dedup();
    own
}

/// The node's addresses where the config names none: those of its uplinks, then those of devices that are
/// no bridge of ours, in the order in which the kernel lists them.
fn addresses(view: &routes::View) -> Vec<IpAddr> {
    let outside = |known: &&Address| {
        let addr = known.net.addr();
        !view.bridges.contains(&known.ifindex) && !addr.is_loopback() && !is_link_local(addr)
    };
    let (uplinks, others): (Vec<&Address>, Vec<&Address>) =
        view.world.addresses.iter().filter(outside).partition(|known| view.uplinks.contains(&known.ifindex));
    uplinks.into_iter().chain(others).map(|known| known.net.addr()).collect()
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
