//! Reading the whole world.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use futures::{TryStreamExt as _, pin_mut};
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressMessage},
    link::{
        BridgePortState, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, LinkAttribute,
        LinkInfo, LinkMessage,
    },
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};
use rtnetlink::Handle;

use super::world::{Address, Link, LinkKind, Neighbour, World};

/// Links, addresses, neighbours and forwarding tables as they are now.
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
        if let Some((address, neighbour)) = neighbour(&message) {
            world.neighbours.insert((message.header.ifindex, address), neighbour);
        } else if message.header.state == NeighbourState::Failed
            && world.links.get(&message.header.ifindex).is_some_and(|link| link.kind == LinkKind::Bridge)
        {
            world.failed.extend(destination(&message).map(|address| (message.header.ifindex, address)));
        }
    }
    let fdb = handle.neighbours().get().set_address_family(AddressFamily::Bridge).execute();
    pin_mut!(fdb);
    while let Some(message) = fdb.try_next().await.context("reading forwarding tables")? {
        if let Some((bridge, mac)) = forwarding(&message) {
            world.fdb.insert((bridge, mac), message.header.ifindex);
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

fn neighbour(message: &NeighbourMessage) -> Option<(IpAddr, Neighbour)> {
    if matches!(
        message.header.state,
        NeighbourState::Failed | NeighbourState::Incomplete | NeighbourState::Noarp
    ) {
        return None;
    }
    let address = destination(message)?;
    let permanent = message.header.state == NeighbourState::Permanent;
    Some((address, Neighbour { mac: mac(message)?, permanent }))
}

/// An entry of a bridge's table that was learned or set; its own addresses are permanent.
fn forwarding(message: &NeighbourMessage) -> Option<(u32, [u8; 6])> {
    let bridge = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Controller(bridge) => Some(*bridge),
        _ => None,
    })?;
    (message.header.state != NeighbourState::Permanent).then_some((bridge, mac(message)?))
}
