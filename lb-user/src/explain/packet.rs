//! The packet that is asked about: the first one of a client, made up, and read again afterwards.

use std::net::{IpAddr, SocketAddr};

use etherparse::{IpNumber, PacketBuilder, SlicedPacket};
use lb_sim::Packet;

use crate::model::Protocol;

/// Hops the packet may still make.
pub const HOPS: u8 = 64;

/// What a packet's headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Source address and port.
    pub source: SocketAddr,
    /// Destination address and port.
    pub destination: SocketAddr,
    /// TTL or hop limit.
    pub hops: u8,
    /// Protocol number.
    pub protocol: u8,
}

/// The first packet of a client: TCP's SYN, a UDP datagram, SCTP's INIT. `None`: the addresses are not
/// of one family.
pub fn first(from: SocketAddr, to: SocketAddr, protocol: Protocol, ifindex: u32) -> Option<Packet> {
    const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 2];
    let link = PacketBuilder::ethernet2(CLIENT, GATEWAY);
    let ip = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => link.ipv4(from.octets(), to.octets(), HOPS),
        (IpAddr::V6(from), IpAddr::V6(to)) => link.ipv6(from.octets(), to.octets(), HOPS),
        _ => return None,
    };
    let (source, destination) = (from.port(), to.port());
    let mut bytes = Vec::new();
    let written = match protocol {
        Protocol::Tcp => ip.tcp(source, destination, 1, 0xfaf0).syn().write(&mut bytes, &[]),
        Protocol::Udp => ip.udp(source, destination).write(&mut bytes, b"?"),
        Protocol::Sctp => {
            ip.write(&mut bytes, IpNumber(Protocol::Sctp.number()), &sctp_init(source, destination))
        }
    };
    written.ok().map(|()| Packet::new(bytes, ifindex))
}

/// What a packet's headers say.
pub fn headers(packet: &Packet) -> Option<Headers> {
    let packet = SlicedPacket::from_ethernet(&packet.bytes).ok()?;
    let net = packet.net?;
    let (source, destination, hops): (IpAddr, IpAddr, u8) = match &net {
        etherparse::NetSlice::Ipv4(ip) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into(), header.ttl())
        }
        etherparse::NetSlice::Ipv6(ip) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into(), header.hop_limit())
        }
        etherparse::NetSlice::Arp(_) => return None,
    };
    let payload = net.ip_payload_ref()?;
    let port = |at: usize| Some(u16::from_be_bytes(payload.payload.get(at..at + 2)?.try_into().ok()?));
    Some(Headers {
        source: SocketAddr::new(source, port(0)?),
        destination: SocketAddr::new(destination, port(2)?),
        hops,
        protocol: payload.ip_number.0,
    })
}

/// SCTP's common header with an INIT chunk (RFC 9260, sections 3.1 and 3.3.2).
fn sctp_init(source: u16, destination: u16) -> [u8; 32] {
    const INIT: [u8; 4] = [1, 0, 0, 20]; // type, flags, length
    let mut packet = [0; 32];
    packet[..2].copy_from_slice(&source.to_be_bytes());
    packet[2..4].copy_from_slice(&destination.to_be_bytes());
    packet[12..16].copy_from_slice(&INIT);
    packet[16..20].copy_from_slice(&1u32.to_be_bytes()); // initiate tag
    packet[20..24].copy_from_slice(&0xffffu32.to_be_bytes()); // receiver window
    packet[24..28].copy_from_slice(&[0, 1, 0, 1]); // streams out and in
    packet[28..].copy_from_slice(&1u32.to_be_bytes()); // initial TSN
    let check = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&check);
    packet
}

/// SCTP's checksum (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let bit = |crc: u32| if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ POLYNOMIAL };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| bit(crc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_crc32c() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn what_is_made_can_be_read() {
        for (from, to) in [("10.244.1.2:40000", "10.96.0.10:80"), ("[fd00::2]:40000", "[fd00:96::10]:80")] {
            let (source, destination) = (from.parse().expect("a socket"), to.parse().expect("a socket"));
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                let packet = first(source, destination, protocol, 1).expect("one family");
                let expected = Headers { source, destination, hops: HOPS, protocol: protocol.number() };
                assert_eq!(headers(&packet), Some(expected));
            }
        }
    }
}
