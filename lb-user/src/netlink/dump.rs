//! Reading the whole world.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use futures::{TryStreamExt as _, pin_mut};
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressMessage},
    link::{
        BridgePortState, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, LinkAttribute,
        LinkInfo, LinkMessage, LinkXdp,
    },
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourMessage, NeighbourState},
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RouteNextHopFlags, RouteType,
        RouteVia,
    },
};
use rtnetlink::Handle;

use super::{
    routes::{Hop, Route, Via},
    world::{Address, Link, LinkKind, Neighbour, World},
};

/// Links, addresses, neighbours, forwarding tables and routes as they are now.
pub(super) async fn world(handle: &Handle) -> Result<World> {
    let mut world = World::default();
    let links = handle.link().get().execute();
    pin_mut!(links);
    while let Some(message) = links.try_next().await.context("reading links")? {
        let link = link(&message);
        world.links.insert(link.ifindex, link);
    }
    let addresses = handle.address().get().execute();
    pin_mut!(addresses);
    while let Some(message) = addresses.try_next().await.context("reading addresses")? {
        world.addresses.extend(address(&message));
    }
    let neighbours = handle.neighbours().get().execute();
    pin_mut!(neighbours);
    while let Some(message) = neighbours.try_next().await.context("reading neighbours")? {
        let Some(at) = destination(&message).map(|address| (message.header.ifindex, address)) else {
            continue;
        };
        if is_fresh(&message) {
            world.fresh.insert(at);
        }
        match message.header.state {
            NeighbourState::Failed => world.failed.extend([at]),
            NeighbourState::Incomplete => world.asked.extend([at]),
            _ => world.neighbours.extend(neighbour(&message).map(|neighbour| (at, neighbour))),
        }
    }
    let fdb = handle.neighbours().get().set_address_family(AddressFamily::Bridge).execute();
    pin_mut!(fdb);
    while let Some(message) = fdb.try_next().await.context("reading forwarding tables")? {
        if let Some((bridge, mac)) = forwarding(&message) {
            world.fdb.insert((bridge, mac), message.header.ifindex);
        }
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        let routes = handle.route().get(request).execute();
        pin_mut!(routes);
        while let Some(message) = routes.try_next().await.context("reading routes")? {
            if let Some((prefix, route)) = route(&message) {
                world.routes.add(prefix, route);
            }
        }
    }
    Ok(world)
}

fn link(message: &LinkMessage) -> Link {
    let mut link = Link { ifindex: message.header.index, forwarding: true, ..Link::default() };
    let mut other_netns = None;
    let mut kind = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name.clone(),
            LinkAttribute::Address(address) => link.mac = address.as_slice().try_into().unwrap_or_default(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(master) => link.master = Some(*master),
            LinkAttribute::Qdisc(qdisc) => link.qdisc = qdisc.clone(),
            LinkAttribute::Xdp(attached) => {
                link.xdp = attached.iter().find_map(|one| match one {
                    LinkXdp::ProgId(id) => Some(*id),
                    _ => None,
                });
            }
            LinkAttribute::LinkNetNsId(id) => other_netns = Some(*id),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(found) => kind = Some(found.clone()),
                        LinkInfo::Data(InfoData::Bridge(options)) => {
                            link.vlan_filtering = options.contains(&InfoBridge::VlanFiltering(true));
                        }
                        LinkInfo::PortData(InfoPortData::BridgePort(options)) => port(&mut link, options),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link.kind = match kind {
        None => LinkKind::Physical,
        Some(InfoKind::Veth) => LinkKind::Veth { other_netns },
        Some(InfoKind::Tun) => LinkKind::Tap,
        Some(InfoKind::Bridge) => LinkKind::Bridge,
        Some(other) => LinkKind::Other(other.to_string()),
    };
    link
}

fn port(link: &mut Link, options: &[InfoBridgePort]) {
    for option in options {
        match option {
            InfoBridgePort::Isolated(isolated) => link.isolated = *isolated,
            InfoBridgePort::Locked(locked) => link.locked = *locked,
            InfoBridgePort::State(state) => link.forwarding = *state == BridgePortState::Forwarding,
            _ => {}
        }
    }
}

fn address(message: &AddressMessage) -> Option<Address> {
    // On point-to-point links `Address` is the other end, `Local` ours.
    let find = |local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) if local => Some(*address),
            AddressAttribute::Address(address) if !local => Some(*address),
            _ => None,
        })
    };
    let net = IpNet::new(find(true).or(find(false))?, message.header.prefix_len).ok()?;
    Some(Address { ifindex: message.header.index, net })
}

fn mac(message: &NeighbourMessage) -> Option<[u8; 6]> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(mac) => mac.as_slice().try_into().ok(),
        _ => None,
    })
}

fn destination(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })
}

fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    if message.header.state == NeighbourState::Noarp {
        return None;
    }
    let permanent = message.header.state == NeighbourState::Permanent;
    Some(Neighbour { mac: mac(message)?, permanent })
}

fn is_fresh(message: &NeighbourMessage) -> bool {
    message.attributes.iter().any(|attribute| {
        matches!(attribute, NeighbourAttribute::ExtFlags(flags) if flags.contains(NeighbourExtFlags::Managed))
    })
}

/// An entry of a bridge's table that was learned or set; its own addresses are permanent.
fn forwarding(message: &NeighbourMessage) -> Option<(u32, [u8; 6])> {
    let bridge = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Controller(bridge) => Some(*bridge),
        _ => None,
    })?;
    (message.header.state != NeighbourState::Permanent).then_some((bridge, mac(message)?))
}

/// A route of the main table. Those for one type of service, by where packets come from, or over a next hop that
/// is down do not count.
fn route(message: &RouteMessage) -> Option<(IpNet, Route)> {
    let RouteMessage { header, attributes, .. } = message;
    let table = attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    let special = header.tos != 0 || header.source_prefix_length != 0;
    if special || table.unwrap_or(header.table.into()) != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return None;
    }
    let (mut destination, mut metric) = (None, 0);
    for attribute in attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address),
            RouteAttribute::Priority(priority) => metric = *priority,
            _ => {}
        }
    }
    let everything = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        _ => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let prefix = IpNet::new(destination.unwrap_or(everything), header.destination_prefix_length).ok()?;
    if header.kind != RouteType::Unicast {
        return Some((prefix, Route { metric, hop: None }));
    }
    // Flags of the only next hop are the route's.
    let is_up = |flags: u32| flags & u32::from(RouteNextHopFlags::Dead.bits()) == 0;
    let several = attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::MultiPath(hops) => Some(hops),
        _ => None,
    });
    let hop = match several {
        Some(hops) => hops.iter().find(|hop| is_up(hop.flags.bits().into())).map(one_of),
        None if is_up(header.flags.bits()) => attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(ifindex) => Some(Hop { ifindex: *ifindex, via: via(attributes) }),
            _ => None,
        }),
        None => None,
    };
    Some((prefix, Route { metric, hop: Some(hop?) }))
}

fn one_of(hop: &RouteNextHop) -> Hop {
    Hop { ifindex: hop.interface_index, via: via(&hop.attributes) }
}

fn via(attributes: &[RouteAttribute]) -> Via {
    let wraps = |attribute: &RouteAttribute| matches!(attribute, RouteAttribute::EncapType(_));
    if attributes.iter().any(wraps) {
        return Via::Tunnel;
    }
    let router = attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    });
    router.map_or(Via::Link, Via::Router)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}
