//! Reject: what nobody takes is answered at once, in the name of who was called. So is a client whose packet can't
//! travel on: what it hears of another address, filters may drop. A backend hears it from this node, a router.
//!
//! TCP that nobody takes gets a RST (RFC 9293, section 3.10.7.1), everything else an error of ICMP (RFC 792, RFC
//! 4443). The packet itself becomes the answer and leaves where it came from.

use super::answer::{Answer, NETWORK, complete, put, started, sum};
use super::parse::{Frame, Headers, readable};
use super::state::{PacketState, Parsed};
use super::step::{Egress, Next};
use super::{flow_table, hook::Hook, packet::Packet, tables::Tables};
use crate::{
    abi::{FlowRow, Stop},
    family::{Address, Family, V6},
    wire::{Ethernet, Icmp, NetworkHeader, Protocol, Tcp, checksum},
};

/// Turns the packet that was noted into the refusal of it. It is dropped where it gets none (a RST), or the kernel would
/// not let us.
#[inline(always)]
pub fn reject<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    asked: Next,
) -> Result<Next, Stop> {
    Ok(answer(packet, tables, hook, asked).map_or(asked.unanswered(), Next::from))
}

#[inline(always)]
fn answer<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    asked: Next,
) -> Option<Egress> {
    const TTL_EXCEEDED: u32 = Stop::TtlExceeded as u32;
    const TOO_BIG: u32 = Stop::TooBig as u32;
    let PacketState { parsed, mtu, .. } = tables.state()?;
    let Headers { ethernet, ip } = packet.load::<Headers<F>>(0)?;
    let settings = tables.settings();
    let called = ip.destination();
    let node = F::host(settings);
    // The client called a backend itself, or is one that answers.
    let is_on_the_way = |known: FlowRow<F>| known.is_reply() || known.is_call(&parsed.key);
    let router = match flow_table::find(tables, &parsed.key) {
        Some((_, known)) if is_on_the_way(known) && node != F::Addr::ZERO => node,
        _ => called,
    };
    // XDP leaves to tc what a router says.
    match asked.why()? {
        TTL_EXCEEDED if hook != Hook::UplinkXdp => {
            error(packet, parsed, ip, F::Header::TIME_EXCEEDED, router)?
        }
        TOO_BIG if hook != Hook::UplinkXdp => {
            let mtu = if mtu.get() == 0 { settings.mtu_floor } else { mtu.get() };
            error(packet, parsed, ip, F::Header::too_big(mtu), router)?;
        }
        _ if parsed.protocol() == Protocol::Tcp => reset(packet, parsed, &ip)?,
        _ => error(packet, parsed, ip, F::Header::PORT_UNREACHABLE, called)?,
    }
    let Ethernet { destination, source, ethertype } = ethernet;
    let turned = Ethernet { destination: source, source: destination, ethertype };
    packet.store(0, &turned).then_some(Egress::Device(packet.ifindex()))
}

#[inline(always)]
fn reset<F: Family, P: Packet>(packet: &mut P, parsed: &Parsed<F>, ip: &F::Header) -> Option<()> {
    let offset = parsed.transport();
    let tcp = readable::<Tcp, P>(packet, offset).ok()?;
    let network = (offset - NETWORK) as u32;
    let payload = ip.payload(packet.size() - NETWORK as u32) + size_of::<F::Header>() as u32 - network;
    let mut then = tcp.reset_for(payload)?;
    let ip = F::Header::answer(ip, Protocol::Tcp as u8, size_of::<Tcp>() as u16);
    let pseudo = ip.pseudo_sum();
    let unfinished = packet.unfinished(offset + Protocol::Tcp.checksum_offset()?);
    then.check = if unfinished { started(pseudo) } else { complete(pseudo + sum(&then)) };
    put(packet, &Answer::<F, Tcp> { ip, then })
}

/// Puts the error before the packet, of which its headers stay as they are.
#[inline(always)]
fn error<F: Family, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<F>,
    ip: F::Header,
    mut icmp: Icmp,
    source: F::Addr,
) -> Option<()> {
    let protocol = parsed.protocol();
    let quoted = size_of::<F::Header>() as u32 + protocol.header_len();
    let rest = transport_sum::<F, P>(packet, parsed)?;
    // What lies between the headers is left out: who reads it finds the ports.
    let about = ip.followed_by(protocol as u8);
    if parsed.transport() != Frame::<F>::TRANSPORT {
        join::<F, P>(packet, parsed, &about)?;
    }
    let length = (size_of::<Icmp>() as u32 + quoted) as u16;
    let mut ip = F::Header::answer(&ip, F::Header::ICMP, length);
    let difference = checksum::difference(ip.source().sum(), source.sum());
    ip.set_addresses(source, ip.destination(), difference);
    // ICMPv6's checksum covers a pseudo header, ICMP's does not.
    let pseudo = if F::ETHERTYPE == V6::ETHERTYPE { ip.pseudo_sum() } else { 0 };
    icmp.check = complete(pseudo + sum(&icmp) + sum(&about) + rest);
    let made = packet.resize(NETWORK as u32 + quoted)
        && packet.make_room((size_of::<F::Header>() + size_of::<Icmp>()) as u32)
        && packet.replace(NETWORK, &Answer::<F, Icmp> { ip, then: icmp });
    made.then_some(())
}

/// Puts the transport header right behind the network header.
#[inline(always)]
fn join<F: Family, P: Packet>(packet: &mut P, parsed: &Parsed<F>, ip: &F::Header) -> Option<()> {
    let (from, to) = (parsed.transport(), Frame::<F>::TRANSPORT);
    let moved = match parsed.protocol() {
        Protocol::Tcp => packet.load::<[u16; 10]>(from).map(|header| packet.replace(to, &header)),
        Protocol::Udp => packet.load::<[u16; 4]>(from).map(|header| packet.replace(to, &header)),
        Protocol::Sctp => packet.load::<[u16; 6]>(from).map(|header| packet.replace(to, &header)),
    };
    (moved? && packet.replace(NETWORK, ip)).then_some(())
}

/// One's complement sum of the transport header as it will be once no device has a part in it any more.
#[inline(always)]
fn transport_sum<F: Family, P: Packet>(packet: &mut P, parsed: &Parsed<F>) -> Option<u64> {
    let at = parsed.transport();
    let protocol = parsed.protocol();
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
