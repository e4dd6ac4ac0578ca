//! Slow parse: fragments, IPv4 options, IPv6 extension headers, VLAN tags. Only parsing differs, what is noted of
//! them goes
//! the way of all packets.

use core::hint::black_box;

use super::parse::{self, Headers, TransportSpan, readable};
use super::state::{FARTHEST, Parsed};
use super::step::{Next, Step};
use super::tables::{Table, Tables, state_of};
use super::{
    fragments::follow,
    hook::Hook,
    leave::{is_for_another, is_for_one},
    nat::snat,
    packet::Packet,
    prefilter::outsider,
    zone::zone,
};
use crate::{
    abi::{FlowKey, Stop, ZONE_UPLINK},
    family::Family,
    wire::{Ethernet, Extension, FragmentKind, Layers, NetworkHeader, Ports, Protocol, TcpFlags},
};

/// How many extension headers are passed by.
const EXTENSIONS: usize = 8;
/// No packet carries more bytes, see GSO_MAX_SIZE of the kernel's include/linux/netdevice.h; a mask.
const MOST_PAYLOAD: usize = 0xf_ffff;
/// Offset of the network header.
const NETWORK: usize = size_of::<Ethernet>();

/// Notes what is known of a packet that [`Step::Established`] could not read. [`Step::Lookup`] takes it then, or
/// [`Step::Translate`] if it belongs to one that was seen before.
#[inline(always)]
pub fn slow_parse<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    _: Next,
) -> Result<Next, Stop> {
    if hook == Hook::UplinkXdp {
        return plain(packet, tables);
    }
    let Headers { ethernet, ip } = readable::<Headers<F>, P>(packet, 0)?;
    let ip = parse::in_parts::<F, P>(packet, ip);
    let Layers { mut protocol, offset, payload, fragment } = ip.layers(packet.size() - NETWORK as u32)?;
    let mut span = TransportSpan { transport: NETWORK + offset as usize, payload, fragment };
    if F::Header::EXTENSIBLE {
        protocol = pass_by(packet, protocol, &mut span)?;
    }
    span.transport &= FARTHEST;
    let mut key = FlowKey {
        src: ip.source(),
        dst: ip.destination(),
        src_port: 0,
        dst_port: 0,
        zone: zone(packet, tables, hook)?,
        protocol: protocol as u16,
    };
    if span.fragment.fragment() == FragmentKind::Later {
        let row = follow(packet, tables, hook, &mut key, &span)?;
        let mut parsed = Parsed::with(&ethernet, key, span, TcpFlags::default());
        parsed.tagged = packet.tagged();
        tables.begin(&parsed, false);
        let state = state_of(tables)?;
        state.backend.set(row.backend);
        state.to_stack.set(row.is_to_stack());
        return Ok(Step::Translate.into());
    }
    if Protocol::from_number(protocol).is_none() {
        return Err(Stop::Protocol);
    }
    if (span.payload as usize) < size_of::<Ports>() {
        return Err(Stop::Truncated);
    }
    let ports = readable::<Ports, P>(packet, span.transport)?;
    (key.src_port, key.dst_port) = (ports.source, ports.destination);
    if let Some(stop) = outsider(tables, hook, &key) {
        return Err(stop);
    }
    let mut parsed = Parsed::new(packet, &ethernet, key, span)?;
    parsed.tagged = packet.tagged();
    tables.begin(&parsed, tables.flow(Table::Assured, &key).is_some());
    Ok(Step::Lookup.into())
}

/// Passes by the extension headers; not by what is behind the header of a later fragment. The protocol of what
/// follows them.
#[inline(always)]
fn pass_by<P: Packet>(packet: &mut P, mut number: u8, span: &mut TransportSpan) -> Result<u8, Stop> {
    for _ in 0..EXTENSIONS {
        if !Extension::can_be_passed(number) {
            break;
        }
        let header = readable::<Extension, P>(packet, span.transport)?;
        let length = header.length(number);
        if length > span.payload {
            return Err(Stop::Truncated);
        }
        if number == Extension::ROUTING && header.segments_left() != 0 {
            return Err(Stop::Options);
        }
        span.transport += length as usize;
        span.payload -= length;
        if span.transport > FARTHEST {
            return Err(Stop::Options);
        }
        span.transport = within(span.transport, FARTHEST);
        span.payload = within(span.payload as usize, MOST_PAYLOAD) as u32;
        if number == Extension::FRAGMENT {
            span.fragment = header.fragment(span.payload);
        }
        number = header.next();
        if span.fragment.fragment() == FragmentKind::Later {
            return Ok(number);
        }
    }
    if Extension::is(number) { Err(Stop::Options) } else { Ok(number) }
}

/// A value that is not above a mask. That is nothing new to LLVM, but it must not leave the mask out: else each chain
/// of headers ends within other bounds, and the verifier walks all that follows once for each (kernel 6.18: 100,000
/// instructions more).
#[inline(always)]
fn within(value: usize, mask: usize) -> usize {
    black_box(value) & mask
}

/// XDP's: reads a plain packet again, and leaves to tc what is none.
#[inline(always)]
fn plain<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T) -> Result<Next, Stop> {
    let frame = match parse::frame::<F, P>(packet) {
        Err(Stop::Protocol) => return Ok(Step::Icmp.into()),
        frame => frame?,
    };
    let key = frame.key(ZONE_UPLINK);
    if let Some(stop) = outsider(tables, Hook::UplinkXdp, &key) {
        return Err(stop);
    }
    if !is_for_one(packet) || is_for_another(packet, tables) {
        return Err(Stop::WrongHook);
    }
    let payload = frame.ip.payload(packet.size() - NETWORK as u32);
    let parsed = Parsed::new(packet, &frame.ethernet, key, TransportSpan::plain::<F>(payload))?;
    tables.begin(&parsed, tables.flow(Table::Assured, &key).is_some());
    // First, as on the short path.
    let is_reply = snat::is_snat_port(tables, &key) && tables.snat(&key).is_some();
    Ok(if is_reply { Step::SnatTrack } else { Step::Lookup }.into())
}
