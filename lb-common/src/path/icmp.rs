//! Messages: what ICMP and ICMPv6 have to say. An echo request to an address of a service is answered here, in
//! its name; an error about a packet of a flow is translated by [`super::icmp_error`]; all others are left alone.

use super::answer::{Answer, NETWORK};
use super::parse::{Frame, TransportSpan, readable};
use super::step::{Egress, Next, Step};
use super::tables::{Table, Tables, prefilter_hash};
use super::{
    hook::Hook,
    icmp_error::About,
    leave::{is_for_another, is_for_one},
    packet::Packet,
    prefilter::is_unassigned,
    select,
    state::Parsed,
    zone::zone,
};
use crate::{
    abi::{Event, FlowKey, Stop},
    family::{Family, V6},
    wire::{Ethernet, Icmp, NetworkHeader, Ports, Protocol, Solicitation, TcpFlags, checksum},
};

/// What a packet is of a protocol that is not balanced.
#[inline(always)]
pub fn icmp<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    _: Next,
) -> Result<Next, Stop> {
    let frame = readable::<Frame<F>, P>(packet, 0)?;
    if frame.ip.protocol() != F::Header::ICMP {
        return Err(Stop::Protocol);
    }
    if hook == Hook::UplinkXdp && is_for_another(packet, tables) {
        return Err(Stop::WrongHook);
    }
    let kind: [u8; 2] = bytemuck::cast(frame.ports.source);
    if F::Header::is_error(kind[0]) && hook.has(Step::IcmpError) {
        let parsed = about(packet, &frame, zone(packet, tables, hook)?)?;
        tables.begin(&parsed, tables.flow(Table::Assured, &parsed.key).is_some());
        return Ok(Step::IcmpError.into());
    }
    let answered = !hook.is_egress() && (hook != Hook::UplinkXdp || is_for_one(packet));
    if kind == [F::Header::ECHO_REQUEST, 0] && answered {
        return echo(packet, tables, &frame);
    }
    if F::ETHERTYPE == V6::ETHERTYPE && hook.is_asked() && kind == Solicitation::KIND {
        return Ok(Step::ProxyNd.into());
    }
    Err(Stop::Protocol)
}

/// What an error is about: as a packet of the other direction, whose row says what to make of it.
#[inline(always)]
fn about<F: Family, P: Packet>(packet: &mut P, frame: &Frame<F>, zone: u16) -> Result<Parsed<F>, Stop> {
    let payload = frame.ip.payload(packet.size() - NETWORK as u32);
    if payload < About::<F>::PAYLOAD as u32 {
        return Err(Stop::Protocol);
    }
    // Told by the size: it is all there.
    let quote = readable::<About<F>, P>(packet, NETWORK)?.quote;
    let known = Protocol::from_number(quote.ip.protocol()).is_some() && quote.ip.begins_transport();
    // Else somebody says something about a packet that is not from whom it tells.
    if !known || quote.ip.source() != frame.ip.destination() {
        return Err(Stop::Protocol);
    }
    let [source, destination, ..] = quote.transport;
    let key = FlowKey {
        src: quote.ip.destination(),
        dst: quote.ip.source(),
        src_port: destination,
        dst_port: source,
        zone,
        protocol: quote.ip.protocol() as u16,
    };
    Ok(Parsed::with(&frame.ethernet, key, TransportSpan::plain::<F>(payload), TcpFlags::default()))
}

/// Answers an echo request by turning it round.
#[inline(always)]
fn echo<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    frame: &Frame<F>,
) -> Result<Next, Stop> {
    let addr = frame.ip.destination();
    if !(tables.prefilter(prefilter_hash(addr, 0)) && select::is_owned::<F, T>(tables, addr)) {
        let unassigned = is_unassigned::<F, T>(tables, addr);
        return Err(if unassigned { Stop::UnassignedVip } else { Stop::Protocol });
    }
    let payload = frame.ip.payload(packet.size() - NETWORK as u32);
    if payload < size_of::<Icmp>() as u32 {
        return Err(Stop::Truncated);
    }
    let Ports { source: request, destination: check } = frame.ports;
    let reply: u16 = bytemuck::cast([F::Header::ECHO_REPLY, 0]);
    // The pseudo header's sum is the same with its addresses exchanged.
    let check = checksum::update(check, checksum::difference(request as u64, reply as u64));
    let ip = F::Header::answer(&frame.ip, F::Header::ICMP, payload as u16);
    let answer = Answer::<F, Ports> { ip, then: Ports { source: reply, destination: check } };
    let Ethernet { destination, source, .. } = frame.ethernet;
    if !packet.replace(NETWORK, &answer) || !packet.store(0, &[source, destination]) {
        return Err(Stop::RewriteFailed);
    }
    tables.count(Event::Echoed.into());
    Ok(Egress::Device(packet.ifindex()).into())
}
