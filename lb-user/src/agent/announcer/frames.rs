//! The frames that announce an address and ask who else has it, and what others say of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, ArpPacketSlice, Icmpv6Type, IpNumber, PacketBuilder, SlicedPacket,
    TransportSlice,
    err::packet::BuildWriteError,
    icmpv6::{NeighborAdvertisementHeader, TYPE_NEIGHBOR_ADVERTISEMENT},
};
use lb_common::wire::ndp::HOP_LIMIT;
use lb_sys::packet::step;

use super::At;
use crate::agent::groups::solicited_node;

const BROADCAST: [u8; 6] = [0xff; 6];
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Bytes of the address at the head of what an advertisement says.
const TARGET: usize = size_of::<Ipv6Addr>();
/// Options that tell a MAC, of the sender of a solicitation and of the target of an advertisement (RFC 4861 section
/// 4.6.1), and their length in units of 8 bytes.
const SOURCE_MAC: [u8; 2] = [1, 1];
const TARGET_MAC: [u8; 2] = [2, 1];

/// EtherType of the frames that tell of an address.
pub fn ether_type(address: IpAddr) -> u16 {
    (if address.is_ipv4() { libc::ETH_P_ARP } else { libc::ETH_P_IPV6 }) as u16
}

/// Tells everybody that an address is here: an ARP announcement (RFC 5227 section 2.3), or an unsolicited neighbour
/// advertisement that overrides what they know (RFC 4861 section 7.2.6).
pub fn announcement(address: IpAddr, at: &At) -> Result<Vec<u8>, BuildWriteError> {
    match address {
        IpAddr::V4(address) => arp(at.mac, address, address),
        IpAddr::V6(address) => {
            let header = NeighborAdvertisementHeader { router: false, solicited: false, r#override: true };
            let said = [&address.octets()[..], &TARGET_MAC, &at.mac].concat();
            let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
            discovery(at.mac, address, all, Icmpv6Type::NeighborAdvertisement(header), &said)
        }
    }
}

/// Asks who has an address: an ARP probe, which nobody learns from (RFC 5227 section 2.1.1), or a neighbour
/// solicitation.
pub fn question(address: IpAddr, at: &At) -> Result<Vec<u8>, BuildWriteError> {
    match (address, at.own) {
        (IpAddr::V4(address), _) => arp(at.mac, Ipv4Addr::UNSPECIFIED, address),
        (IpAddr::V6(address), own) => {
            let own = match own {
                IpAddr::V6(own) => own,
                IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED,
            };
            let said = [&address.octets()[..], &SOURCE_MAC, &at.mac].concat();
            discovery(at.mac, own, solicited_node(address), Icmpv6Type::NeighborSolicitation, &said)
        }
    }
}

fn arp(mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Result<Vec<u8>, BuildWriteError> {
    let request = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: mac,
        sender_ipv4: sender.octets(),
        target_mac: [0; 6],
        target_ipv4: target.octets(),
    };
    let builder = PacketBuilder::ethernet2(mac, BROADCAST).arp(request.into());
    let mut frame = Vec::with_capacity(builder.size());
    builder.write(&mut frame)?;
    Ok(frame)
}

fn discovery(
    mac: [u8; 6],
    source: Ipv6Addr,
    group: Ipv6Addr,
    kind: Icmpv6Type,
    said: &[u8],
) -> Result<Vec<u8>, BuildWriteError> {
    // RFC 2464 section 7.
    let [.., a, b, c, d] = group.octets();
    let builder = PacketBuilder::ethernet2(mac, [0x33, 0x33, a, b, c, d])
        .ipv6(source.octets(), group.octets(), HOP_LIMIT)
        .icmpv6(kind);
    let mut frame = Vec::with_capacity(builder.size(said.len()));
    builder.write(&mut frame, said)?;
    Ok(frame)
}

/// A filter for the frames of an EtherType that say who has an address: ARP replies and announcements, and neighbour
/// advertisements that no router has passed on.
pub fn filter(ether_type: u16) -> Vec<libc::sock_filter> {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_ABS;
    const EQUALS: u32 = libc::BPF_JMP | libc::BPF_JEQ;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let at = |offset: usize| (ETHERNET + offset) as u32;
    let (all, none) = (step(RETURN, 0, u32::MAX), step(RETURN, 0, 0));
    if i32::from(ether_type) == libc::ETH_P_ARP {
        let reply = u32::from(ArpOperation::REPLY.0);
        return vec![
            step(LOAD | libc::BPF_H, 0, at(6)),
            step(EQUALS | libc::BPF_K, 4, reply),
            // Sender and target are the same.
            step(LOAD | libc::BPF_W, 0, at(14)),
            step(libc::BPF_MISC | libc::BPF_TAX, 0, 0),
            step(LOAD | libc::BPF_W, 0, at(24)),
            libc::sock_filter { jf: 1, ..step(EQUALS | libc::BPF_X, 0, 0) },
            all,
            none,
        ];
    }
    let [protocol, hops, kind] = [6, 7, 40];
    let mut steps = Vec::new();
    for (offset, value) in
        [(protocol, IpNumber::IPV6_ICMP.0), (hops, HOP_LIMIT), (kind, TYPE_NEIGHBOR_ADVERTISEMENT)]
    {
        steps.extend([
            step(LOAD | libc::BPF_B, 0, at(offset)),
            step(EQUALS | libc::BPF_K, 1, value.into()),
            none,
        ]);
    }
    steps.push(all);
    steps
}

/// Which address somebody says to have, and the MAC there.
pub fn said(frame: &[u8]) -> Option<(IpAddr, [u8; 6])> {
    let (ethernet, rest) = frame.split_at_checked(ETHERNET)?;
    if ethernet.ends_with(&(libc::ETH_P_ARP as u16).to_be_bytes()) {
        let arp: ArpEthIpv4Packet = ArpPacketSlice::from_slice(rest).ok()?.to_packet().try_eth_ipv4().ok()?;
        return Some((arp.sender_ipv4.into(), arp.sender_mac));
    }
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(TransportSlice::Icmpv6(message)) = packet.transport else { return None };
    let Icmpv6Type::NeighborAdvertisement(_) = message.icmp_type() else { return None };
    let (target, mut options) = message.payload().split_first_chunk::<TARGET>()?;
    let mut mac = ethernet.get(6..12)?.try_into().ok()?;
    while let Some([kind, units]) = options.first_chunk::<2>() {
        if [*kind, *units] == TARGET_MAC {
            mac = options.get(2..8)?.try_into().ok()?;
        }
        options = options.get((usize::from(*units) * 8).max(8)..)?;
    }
    Some((IpAddr::from(*target), mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
        digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
    }

    fn both(address: &str, own: &str) -> [Vec<u8>; 2] {
        let at = At { device: 1, mac: MAC, own: own.parse().expect("an address") };
        let address = address.parse().expect("an address");
        [announcement(address, &at).expect("a frame"), question(address, &at).expect("a frame")]
    }

    #[test]
    fn arp_of_rfc_5227() {
        let [told, asked] = both("192.168.1.200", "192.168.1.11");
        let head = "ffffffffffff 020000000007 0806 0001 0800 06 04 0001 020000000007";
        assert_eq!(told, hex(&format!("{head} c0a801c8 000000000000 c0a801c8")));
        assert_eq!(asked, hex(&format!("{head} 00000000 000000000000 c0a801c8")));
        assert_eq!(said(&told), Some(([192, 168, 1, 200].into(), MAC)));
    }

    #[test]
    fn neighbour_discovery_of_rfc_4861() {
        let [told, asked] = both("fd00:1::200", "fd00:1::11");
        let target = "fd000001000000000000000000000200";
        let checksum =
            |frame: &[u8]| frame[56..58].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let expected = format!(
            "333300000001 020000000007 86dd 60000000 0020 3a ff {target} ff020000000000000000000000000001 \
             8800 {} 20000000 {target} 0201 020000000007",
            checksum(&told)
        );
        assert_eq!(told, hex(&expected));
        let expected = format!(
            "3333ff000200 020000000007 86dd 60000000 0020 3a ff fd000001000000000000000000000011 \
             ff0200000000000000000001ff000200 8700 {} 00000000 {target} 0101 020000000007",
            checksum(&asked)
        );
        assert_eq!(asked, hex(&expected));
        assert_eq!(said(&told), Some(("fd00:1::200".parse().expect("an address"), MAC)));
        assert_eq!(said(&asked), None, "nobody has said anything");
        // Without the option it is the sender's; cut off it is nothing.
        let mut plain = told[..told.len() - 8].to_vec();
        plain[19] = 24;
        plain[11] = 9;
        assert_eq!(said(&plain).map(|(_, mac)| mac), Some([2, 0, 0, 0, 0, 9]));
        assert_eq!(said(&told[..60]), None);
    }
}
