//! Messages about neighbours: ARP in IPv4, Neighbor Discovery in IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};

use etherparse::PacketBuilder;

use super::{Transport, Wire};
use crate::family::Net;

/// Everybody; in IPv6, who listens for the address asked for.
const BROADCAST: [u8; 6] = [0xff; 6];

/// What a message says.
#[derive(Copy, Clone, Debug)]
pub enum Message {
    /// `source` asks who has `destination`.
    WhoHas,
    /// `source` is at the link source; told to `destination`.
    IsAt,
}

/// Who has `target`? Asked by `asker`, of everybody; `0.0.0.0` asks before it takes the address itself.
pub fn who_has(target: &str, asker: &str) -> Wire {
    Wire { link_destination: BROADCAST, ..Wire::about(asker, target, Message::WhoHas) }
}

/// `target` is at the MAC of the device `at`, said to `asker`.
pub fn is_at(target: &str, at: &str, asker: &str) -> Wire {
    Wire::about(target, asker, Message::IsAt).link_from(at).link_to(asker)
}

impl Wire {
    fn about(source: &str, destination: &str, message: Message) -> Wire {
        let new = Wire::new(source, destination, Transport::Neighbour(message));
        Wire { hop_limit: 255, payload: Vec::new(), ..new }
    }
}

/// Its bytes.
pub fn bytes<F: Net>(wire: &Wire, message: Message) -> Vec<u8> {
    match (F::ip(*wire.source.ip()), F::ip(*wire.destination.ip())) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => arp(wire, message, source, destination),
        (IpAddr::V6(source), IpAddr::V6(destination)) => discovery(
            wire,
            message,
            specified(&wire.source, source),
            specified(&wire.destination, destination),
        ),
        _ => unreachable!("both addresses are of one family"),
    }
}

/// `0.0.0.0` is written for no address in either family.
fn specified(written: &SocketAddrV4, address: Ipv6Addr) -> Option<Ipv6Addr> {
    (!written.ip().is_unspecified()).then_some(address)
}

/// RFC 826.
fn arp(wire: &Wire, message: Message, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let (operation, target) = match message {
        Message::WhoHas => (1, [0; 6]),
        Message::IsAt => (2, wire.link_destination),
    };
    let mut bytes = [wire.link_destination, wire.link_source].concat();
    bytes.extend([0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4, 0, operation]);
    bytes.extend(wire.link_source);
    bytes.extend(source.octets());
    bytes.extend(target);
    bytes.extend(destination.octets());
    bytes
}

/// RFC 4861, sections 4.3 and 4.4.
fn discovery(wire: &Wire, message: Message, source: Option<Ipv6Addr>, to: Option<Ipv6Addr>) -> Vec<u8> {
    let own = wire.link_source;
    let (kind, flags, target, to, link) = match message {
        Message::WhoHas => {
            let target = to.expect("somebody asked for");
            let [.., a, b, c] = target.octets();
            let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
            if wire.link_destination == BROADCAST {
                (135, 0, target, group, [0x33, 0x33, 0xff, a, b, c])
            } else {
                (135, 0, target, target, wire.link_destination)
            }
        }
        Message::IsAt => {
            let target = source.expect("somebody told of");
            match to {
                Some(to) => (136, 0x60, target, to, wire.link_destination),
                None => {
                    (136, 0x20, target, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), [0x33, 0x33, 0, 0, 0, 1])
                }
            }
        }
    };
    let mut message = target.octets().to_vec();
    if let Some(option) = source.map(|_| if kind == 135 { 1 } else { 2 }) {
        message.extend([option, 1]);
        message.extend(own);
    }
    // More options.
    message.extend(&wire.payload);
    let source = source.unwrap_or(Ipv6Addr::UNSPECIFIED).octets();
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(own, link)
        .ipv6(source, to.octets(), wire.hop_limit)
        .icmpv6_raw(kind, 0, [flags, 0, 0, 0])
        .write(&mut bytes, &message)
        .expect("a vector takes every packet");
    bytes
}
