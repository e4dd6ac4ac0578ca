//! Reject: what nobody takes is answered at once, in the name of who was called; what can't travel on is, in the
//! name of this node, a router.
//!
//! TCP that nobody takes gets a RST (RFC 9293, section 3.10.7.1), everything else an error of ICMP (RFC 792, RFC
//! 4443). The packet itself becomes the answer and leaves where it came from.

use super::{
    Common, Packet, Way,
    answer::{Answer, NETWORK, complete, put, started, sum},
    parse::{Frame, readable},
};
use crate::{
    abi::Counter,
    family::{Address, Family, V6},
    wire::{Ethernet, Icmp, NetworkHeader, Protocol, Tcp, checksum},
};

/// Turns a packet into the refusal of it; `None`: it gets none (a RST), or the kernel would not let us.
#[inline(always)]
pub fn reject<F: Family, P: Packet, T: Common>(packet: &mut P, tables: &T, why: Counter) -> Option<Way> {
    let frame = packet.load::<Frame<F>>(0)?;
    let protocol = Protocol::from_number(frame.ip.protocol())?;
    let settings = tables.settings();
    let called = frame.ip.destination();
    let node = F::host(settings);
    let router = if node == F::Addr::ZERO { called } else { node };
    match why {
        Counter::TtlExceeded => error(packet, &frame, protocol, F::Header::TIME_EXCEEDED, router)?,
        Counter::TooBig => error(packet, &frame, protocol, F::Header::too_big(settings.mtu_floor), router)?,
        _ if protocol == Protocol::Tcp => reset(packet, &frame)?,
        _ => error(packet, &frame, protocol, F::Header::PORT_UNREACHABLE, called)?,
    }
    let Ethernet { destination, source, ethertype } = frame.ethernet;
    let turned = Ethernet { destination: source, source: destination, ethertype };
    packet.store(0, &turned).then_some(Way::Egress(packet.ifindex()))
}

#[inline(always)]
fn reset<F: Family, P: Packet>(packet: &mut P, frame: &Frame<F>) -> Option<()> {
    let offset = Frame::<F>::TRANSPORT;
    let tcp = readable::<Tcp, P>(packet, offset).ok()?;
    let payload = frame.ip.payload(packet.size() - NETWORK as u32);
    let mut then = tcp.reset_for(payload)?;
    let ip = F::Header::answer(&frame.ip, Protocol::Tcp as u8, size_of::<Tcp>() as u16);
    let pseudo = ip.pseudo_sum();
    let unfinished = packet.unfinished(offset + Protocol::Tcp.checksum_offset()?);
    then.check = if unfinished { started(pseudo) } else { complete(pseudo + sum(&then)) };
    put(packet, &Answer::<F, Tcp> { ip, then })
}

/// Puts the error before the packet, of which its headers stay as they are.
#[inline(always)]
fn error<F: Family, P: Packet>(
    packet: &mut P,
    frame: &Frame<F>,
    protocol: Protocol,
    mut icmp: Icmp,
    source: F::Addr,
) -> Option<()> {
    let quoted = size_of::<F::Header>() as u32 + protocol.header_len();
    let rest = transport_sum::<F, P>(packet, protocol)?;
    let length = (size_of::<Icmp>() as u32 + quoted) as u16;
    let mut ip = F::Header::answer(&frame.ip, F::Header::ICMP, length);
    let difference = checksum::difference(ip.source().sum(), source.sum());
    ip.set_addresses(source, ip.destination(), difference);
    // ICMPv6's checksum covers a pseudo header, ICMP's does not.
    let pseudo = if F::ETHERTYPE == V6::ETHERTYPE { ip.pseudo_sum() } else { 0 };
    icmp.check = complete(pseudo + sum(&icmp) + sum(&frame.ip) + rest);
    let made = packet.resize(NETWORK as u32 + quoted)
        && packet.make_room((size_of::<F::Header>() + size_of::<Icmp>()) as u32)
        && packet.replace(NETWORK, &Answer::<F, Icmp> { ip, then: icmp });
    made.then_some(())
}

/// One's complement sum of the transport header as it will be once no device has a part in it any more.
#[inline(always)]
fn transport_sum<F: Family, P: Packet>(packet: &mut P, protocol: Protocol) -> Option<u64> {
    let at = Frame::<F>::TRANSPORT;
    let sum = match protocol {
        Protocol::Tcp => sum(&readable::<[u16; 10], P>(packet, at).ok()?),
        Protocol::Udp => sum(&readable::<[u16; 4], P>(packet, at).ok()?),
        Protocol::Sctp => sum(&readable::<[u16; 6], P>(packet, at).ok()?),
    };
    let Some(offset) = protocol.checksum_offset() else { return Some(sum) };
    let started = packet.load::<u16>(at + offset)?;
    // A device that finishes a checksum makes all that it covers sum up to minus what the field held before,
    // however little of the packet is left.
    Some(if packet.unfinished(at + offset) { !started as u64 } else { sum })
}
