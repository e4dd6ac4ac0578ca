//! What is asked, and what the answers say.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
    link::{
        AfSpecBridge, BridgePortState, BridgeVlanInfoFlags, InfoBridge, InfoBridgePort, InfoData, InfoKind,
        InfoPortData, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
        LinkXdp,
    },
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia},
};

use super::world::{Address, Hop, Link, LinkKind, Neighbour, Via};

/// All links.
pub(super) fn links() -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    RouteNetlinkMessage::GetLink(message)
}

/// All bridges and their ports with their VLANs.
pub(super) fn vlans() -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::Brvlan]));
    RouteNetlinkMessage::GetLink(message)
}

/// All addresses of the host.
pub(super) fn addresses() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetAddress(AddressMessage::default())
}

/// The neighbours at a device.
pub(super) fn neighbours(ifindex: u32) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.attributes.push(NeighbourAttribute::IfIndex(ifindex));
    RouteNetlinkMessage::GetNeighbour(message)
}

/// One neighbour.
pub(super) fn neighbour((ifindex, address): (u32, IpAddr)) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = ifindex;
    let (family, address) = match address {
        IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
    };
    message.header.family = family;
    message.attributes.push(NeighbourAttribute::Destination(address));
    RouteNetlinkMessage::GetNeighbour(message)
}

/// A MAC in a bridge's forwarding table, of one VLAN (0 where the bridge does not filter by them).
pub(super) fn forwarding((bridge, mac): (u32, [u8; 6]), vlan: u16) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.attributes.push(NeighbourAttribute::Controller(bridge));
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    if vlan != 0 {
        message.attributes.push(NeighbourAttribute::Vlan(vlan));
    }
    RouteNetlinkMessage::GetNeighbour(message)
}

/// The route to an address, as for a packet of the host's: by all tables and the rules of policy routing.
pub(super) fn route(address: IpAddr) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    let (family, length, address) = match address {
        IpAddr::V4(address) => (AddressFamily::Inet, 32, RouteAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(address)),
    };
    (message.header.address_family, message.header.destination_prefix_length) = (family, length);
    message.attributes.push(RouteAttribute::Destination(address));
    RouteNetlinkMessage::GetRoute(message)
}

/// A link, as data.
pub(super) fn link(message: &LinkMessage) -> Link {
    let mut link = Link { ifindex: message.header.index, forwarding: true, ..Link::default() };
    let framed = [LinkLayerType::Ether, LinkLayerType::Loopback];
    link.headerless = !framed.contains(&message.header.link_layer_type);
    link.up = message.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
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

/// The VLAN that a bridge or port puts untagged packets into.
pub(super) fn pvid(message: &LinkMessage) -> Option<u16> {
    let specific = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::AfSpecBridge(specific) => Some(specific),
        _ => None,
    })?;
    specific.iter().find_map(|one| match one {
        AfSpecBridge::VlanInfo(vlan) if vlan.flags.contains(BridgeVlanInfoFlags::Pvid) => Some(vlan.vid),
        _ => None,
    })
}

/// An address of the host.
pub(super) fn address(message: &AddressMessage) -> Option<Address> {
    // On point-to-point links `Address` is the other end, `Local` ours.
    let find = |local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) if local => Some(*address),
            AddressAttribute::Address(address) if !local => Some(*address),
            _ => None,
        })
    };
    let net = IpNet::new(find(true).or(find(false))?, message.header.prefix_len).ok()?;
    let others = AddressHeaderFlags::Secondary
        | AddressHeaderFlags::Deprecated
        | AddressHeaderFlags::Tentative
        | AddressHeaderFlags::Dadfailed;
    let preferred = !message.header.flags.intersects(others);
    Some(Address { ifindex: message.header.index, net, preferred })
}

/// The MAC that an entry of either kind is about.
pub(super) fn mac(message: &NeighbourMessage) -> Option<[u8; 6]> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(mac) => mac.as_slice().try_into().ok(),
        _ => None,
    })
}

/// The address that a neighbour has.
pub(super) fn destination(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })
}

/// A neighbour whose MAC is known.
pub(super) fn known(message: &NeighbourMessage) -> Option<Neighbour> {
    let unknown = [NeighbourState::Noarp, NeighbourState::Failed, NeighbourState::Incomplete];
    if unknown.contains(&message.header.state) {
        return None;
    }
    let permanent = message.header.state == NeighbourState::Permanent;
    Some(Neighbour { mac: mac(message)?, permanent })
}

/// Whether the kernel keeps a neighbour fresh by itself.
pub(super) fn is_fresh(message: &NeighbourMessage) -> bool {
    message.attributes.iter().any(|attribute| {
        matches!(attribute, NeighbourAttribute::ExtFlags(flags) if flags.contains(NeighbourExtFlags::Managed))
    })
}

/// The bridge that an entry of a forwarding table is of.
pub(super) fn bridge(message: &NeighbourMessage) -> Option<u32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Controller(bridge) => Some(*bridge),
        _ => None,
    })
}

/// The port of an entry of a bridge's table that was learned or set; the bridge's own addresses are permanent.
pub(super) fn learned(message: &NeighbourMessage) -> Option<u32> {
    (message.header.state != NeighbourState::Permanent).then_some(message.header.ifindex)
}

/// Where a route leads.
pub(super) fn hop(message: &RouteMessage) -> Option<Hop> {
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(ifindex) => Some(Hop { ifindex: *ifindex, via: via(&message.attributes) }),
        _ => None,
    })
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

/// The addresses that a route is for.
pub(super) fn prefix(message: &RouteMessage) -> Option<IpNet> {
    let destination = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => ip(address),
        _ => None,
    });
    let everything = match message.header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        AddressFamily::Inet6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    IpNet::new(destination.unwrap_or(everything), message.header.destination_prefix_length).ok()
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}
