//! What this node is, from the config and the host.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;

use super::{dsr, routes};
use crate::{
    compile::NodeFacts,
    model::{Model, NodePortAddress, Service, TrafficPolicy, refused::Refusal},
    netlink::{Address, World},
};

/// An address of each family.
pub type NodeAddresses = (Option<Ipv4Addr>, Option<Ipv6Addr>);

/// The config's words where it has some, else what the host says.
pub fn facts(model: &Model, view: &routes::View) -> NodeFacts {
    let world = view.world;
    let host = host_name();
    let own = own_addresses(world);
    let node = model.this_node(&host, &own);
    let addresses = match node.addresses.is_empty() {
        true => [view.node.0.map(IpAddr::V4), view.node.1.map(IpAddr::V6)].into_iter().flatten().collect(),
        false => node.addresses.clone(),
    };
    let node_ports = node_ports(model, &addresses, &own);
    let subnets = || {
        let of_bridges = world.addresses.iter().filter(|known| view.bridges.contains(&known.ifindex));
        let of_bridges = of_bridges.map(|known| known.net.trunc()).filter(|net| !is_link_local(net.addr()));
        let routed = world.routes.keys().filter(|address| view.routed_port(**address).is_some());
        let mut all: Vec<IpNet> = of_bridges.chain(routed.map(|address| IpNet::from(*address))).collect();
        all.sort();
        all
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

/// Backends that do not answer, or whose next hop does not.
fn silent(model: &Model, view: &routes::View) -> BTreeSet<IpAddr> {
    // Most of the time all of them do.
    if view.world.failed.is_empty() {
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
pub fn primary(model: &Model, view: &routes::View) -> NodeAddresses {
    let configured = model.this_node(&host_name(), &own_addresses(view.world)).addresses;
    if configured.is_empty() { view.node } else { firsts(configured) }
}

fn firsts(addresses: impl IntoIterator<Item = IpAddr>) -> NodeAddresses {
    let mut firsts = (None, None);
    for address in addresses {
        match address {
            IpAddr::V4(address) => firsts.0 = firsts.0.or(Some(address)),
            IpAddr::V6(address) => firsts.1 = firsts.1.or(Some(address)),
        }
    }
    firsts
}

/// Every address of the host, sorted.
fn own_addresses(world: &World) -> Vec<IpAddr> {
    let mut own: Vec<IpAddr> = world.addresses.iter().map(|known| known.net.addr()).collect();
    own.sort();
    own.dedup();
    own
}

/// What the node is known by where the config does not say it: what it was known by `before` while it is there, else
/// the first address of its uplinks, of our bridges that have a NIC as port, or of devices that are no bridge of ours, in
/// the order in which the kernel lists them. One that is no subnet's, as services' addresses are often added, comes
/// after the others.
pub fn addresses(world: &World, bridges: &[u32], uplinks: &[u32], before: NodeAddresses) -> NodeAddresses {
    let rank = |known: &Address| {
        let at = [uplinks.contains(&known.ifindex), bridges.contains(&known.ifindex)];
        let at = at.iter().position(|at| *at).unwrap_or(at.len());
        (at, known.net.prefix_len() == known.net.max_prefix_len())
    };
    let outside = |known: &&Address| {
        let addr = known.net.addr();
        let is_inside = bridges.contains(&known.ifindex) && !world.has_nic(known.ifindex);
        !is_inside && !addr.is_loopback() && !is_link_local(addr)
    };
    let find = |ipv4: bool, before: Option<IpAddr>| {
        let mut all: Vec<&Address> = world
            .addresses
            .iter()
            .filter(outside)
            .filter(|known| known.net.addr().is_ipv4() == ipv4)
            .collect();
        all.sort_by_key(|known| rank(known));
        let first = all.iter().find(|known| known.preferred);
        let stays = all.iter().find(|known| {
            let is_best = first.is_none_or(|first| known.preferred && rank(first).0 == rank(known).0);
            Some(known.net.addr()) == before && is_best
        });
        stays.or(first).map(|known| known.net.addr())
    };
    let (v4, v6) = (find(true, before.0.map(IpAddr::V4)), find(false, before.1.map(IpAddr::V6)));
    firsts(v4.into_iter().chain(v6))
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Link, LinkKind};

    const BRIDGE: u32 = 1;
    const UPLINK: u32 = 2;
    const OTHER: u32 = 3;

    fn world<const N: usize>(addresses: [(u32, &str, bool); N]) -> World {
        let address = |(ifindex, net, preferred): (u32, &str, bool)| {
            let net = net.parse().expect("a subnet");
            Address { ifindex, net, preferred }
        };
        World { addresses: addresses.map(address).into(), ..World::default() }
    }

    fn known_by(world: &World, before: NodeAddresses) -> NodeAddresses {
        addresses(world, &[BRIDGE], &[UPLINK], before)
    }

    #[test]
    fn an_uplinks_first_preferred_address_of_a_subnet() {
        let world = world([
            (BRIDGE, "10.244.1.1/24", true),
            (OTHER, "172.16.0.1/24", true),
            (UPLINK, "198.51.100.1/32", true),
            (UPLINK, "192.168.1.50/24", false),
            (UPLINK, "192.168.1.11/24", true),
            (UPLINK, "192.168.1.12/24", true),
            (UPLINK, "fe80::1/64", true),
            (OTHER, "fd00:3::1/64", true),
        ]);
        let found = known_by(&world, (None, None));
        assert_eq!(found, (Some([192, 168, 1, 11].into()), Some("fd00:3::1".parse().expect("an address"))));
    }

    #[test]
    fn a_bridges_own_where_it_has_a_nic() {
        let bridge_and_other = [(OTHER, "172.16.0.1/24", true), (BRIDGE, "192.168.1.11/24", true)];
        let (inside, outside) = (Some([172, 16, 0, 1].into()), Some([192, 168, 1, 11].into()));
        let other = |kind: &str| LinkKind::Other(kind.to_owned());
        for (kind, expected) in [
            (LinkKind::Physical, outside),
            (other("bond"), outside),
            (other("vxlan"), inside),
            (other("dummy"), inside),
            (LinkKind::Tap, inside),
            (LinkKind::Veth { other_netns: Some(1) }, inside),
        ] {
            let mut world = world(bridge_and_other);
            let port = Link { ifindex: 9, master: Some(BRIDGE), kind, ..Link::default() };
            world.links.insert(9, port.clone());
            assert_eq!(known_by(&world, (None, None)).0, expected, "{port:?}");
            let net = "198.51.100.1/24".parse().expect("a subnet");
            world.addresses.push(Address { ifindex: UPLINK, net, preferred: true });
            let at_uplink = Some([198, 51, 100, 1].into());
            assert_eq!(known_by(&world, (None, None)).0, at_uplink, "an uplink's comes first");
        }
    }

    #[test]
    fn it_stays_while_it_is_there() {
        let address = |last| Some(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, last));
        let after = |world: &World, before| known_by(world, (None, before)).1;
        let mut world = world([(UPLINK, "fd00:1::50/64", true), (UPLINK, "fd00:1::11/64", true)]);
        assert_eq!(after(&world, None), address(0x50));
        assert_eq!(after(&world, address(0x11)), address(0x11));
        assert_eq!(after(&world, address(0x12)), address(0x50), "it has gone");
        world.addresses[1].preferred = false;
        assert_eq!(after(&world, address(0x11)), address(0x50), "new connections are to keep off it");
        world.addresses.remove(0);
        assert_eq!(after(&world, address(0x11)), address(0x11), "there is no better one");
        assert_eq!(after(&world, None), None);
        world.addresses.push(Address {
            ifindex: OTHER,
            net: "fd00:3::1/64".parse().expect("a subnet"),
            preferred: true,
        });
        assert_eq!(after(&world, None).map(IpAddr::V6), Some("fd00:3::1".parse().expect("an address")));
        world.addresses[0].preferred = true;
        let other = "fd00:3::1".parse().ok();
        assert_eq!(after(&world, other), address(0x11), "an uplink has one again");
    }
}
