//! Hard packets: fragments, IPv4 options, IPv6 extension headers, VLAN tags. Only parsing differs, what is noted of them goes
//! the way of all packets.
//!
//! A packet's fragments go where its first one went, which alone has ports: what it says is kept until all bytes
//! have been seen. A later one that overtakes the first is dropped: it would have to wait for it, and a guess
//! could be another backend.

use core::hint::black_box;

use super::{
    established::outsider,
    flow::is_forged,
    hook::Hook,
    parse::{FARTHEST, Headers, Parsed, Place, readable},
    select,
    step::{Next, Step},
    tables::{Packet, Table, Tables, interest_hash, noted},
    xdp,
};
use crate::{
    abi::{BackendRef, FlowKey, FragmentKey, FragmentRow, Stop},
    family::Family,
    wire::{Ethernet, Extension, Layers, NetworkHeader, Part, Ports, Protocol, TcpFlags},
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
        return xdp::parse(packet, tables);
    }
    let Headers { ethernet, ip } = readable::<Headers<F>, P>(packet, 0)?;
    let Layers { mut protocol, offset, payload, fragment } = ip.layers(packet.size() - NETWORK as u32)?;
    let mut place = Place { transport: NETWORK + offset as usize, payload, fragment };
    if F::Header::EXTENSIBLE {
        protocol = pass_by(packet, protocol, &mut place)?;
    }
    place.transport &= FARTHEST;
    let mut key = FlowKey {
        src: ip.source(),
        dst: ip.destination(),
        src_port: 0,
        dst_port: 0,
        zone: tables.settings().zone as u16,
        protocol: protocol as u16,
    };
    if place.fragment.part() == Part::Later {
        let backend = follow(packet, tables, hook, &mut key, &place)?;
        let mut parsed = Parsed::with(&ethernet, key, place, TcpFlags::default());
        parsed.tagged = packet.tagged();
        tables.note(&parsed, false);
        noted(tables)?.backend.set(backend);
        return Ok(Step::Translate.into());
    }
    if Protocol::from_number(protocol).is_none() {
        return Err(Stop::Protocol);
    }
    if (place.payload as usize) < size_of::<Ports>() {
        return Err(Stop::Truncated);
    }
    let ports = readable::<Ports, P>(packet, place.transport)?;
    (key.src_port, key.dst_port) = (ports.source, ports.destination);
    if let Some(stop) = outsider(tables, hook, &key) {
        return Err(stop);
    }
    let mut parsed = Parsed::new(packet, &ethernet, key, place)?;
    parsed.tagged = packet.tagged();
    tables.note(&parsed, tables.flow(Table::Proven, &key).is_some());
    Ok(Step::Lookup.into())
}

/// Passes by the extension headers; not by what is behind the header of a later fragment. The protocol of what
/// follows them.
#[inline(always)]
fn pass_by<P: Packet>(packet: &mut P, mut number: u8, place: &mut Place) -> Result<u8, Stop> {
    for _ in 0..EXTENSIONS {
        if !Extension::can_be_passed(number) {
            break;
        }
        let header = readable::<Extension, P>(packet, place.transport)?;
        let length = header.length(number);
        if length > place.payload {
            return Err(Stop::Truncated);
        }
        if number == Extension::ROUTING && header.segments_left() != 0 {
            return Err(Stop::Options);
        }
        place.transport += length as usize;
        place.payload -= length;
        if place.transport > FARTHEST {
            return Err(Stop::Options);
        }
        place.transport = within(place.transport, FARTHEST);
        place.payload = within(place.payload as usize, MOST_PAYLOAD) as u32;
        if number == Extension::FRAGMENT {
            place.fragment = header.fragment(place.payload);
        }
        number = header.next();
        if place.fragment.part() == Part::Later {
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

/// Gives a later fragment's flow the ports of the first one, or says why it goes nowhere: the backend of its
/// packet. The row is forgotten when all bytes have been seen: the identification may be used again.
#[inline(always)]
fn follow<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    hook: Hook,
    flow: &mut FlowKey<F>,
    place: &Place,
) -> Result<BackendRef, Stop> {
    let key = FragmentKey::new(flow, place.fragment.id);
    let Some(known) = tables.fragments(&key) else { return Err(lost(tables, hook, flow)) };
    let (row, now) = (known.get(), tables.now());
    if row.expired(now) {
        return Err(lost(tables, hook, flow));
    }
    if is_forged(packet, tables, hook, flow.src) {
        return Err(Stop::Forged);
    }
    let bytes = row.bytes + place.fragment.length;
    let end = place.fragment.offset as u32 + place.fragment.length;
    let total = if place.fragment.more { row.total } else { end };
    if total != 0 && bytes >= total {
        tables.forget_fragments(&key);
    } else {
        FragmentRow::update(known, now, bytes, total);
    }
    (flow.src_port, flow.dst_port, flow.protocol) = (row.src_port, row.dst_port, row.protocol as u16);
    Ok(row.backend)
}

/// Why a later fragment of an unknown packet goes nowhere. It is ours for certain only where all of an address is a
/// service's: the host has other ports at its own.
#[inline(always)]
fn lost<F: Family, T: Tables<F>>(tables: &T, hook: Hook, flow: &FlowKey<F>) -> Stop {
    if hook.is_egress() {
        return Stop::Fragment;
    }
    if !tables.interesting(interest_hash(flow.dst, 0)) {
        let unowned = select::is_unowned::<F, T>(tables, flow.dst);
        return if unowned { Stop::Unowned } else { Stop::Fragment };
    }
    if select::is_owned::<F, T>(tables, flow.dst) { Stop::FragmentLost } else { Stop::Fragment }
}

/// Keeps what a first fragment said, which has gone to this backend.
#[inline(always)]
pub fn keep<F: Family, T: Tables<F>>(tables: &T, parsed: &Parsed<F>, backend: BackendRef) {
    let row = FragmentRow {
        backend,
        src_port: parsed.key.src_port,
        dst_port: parsed.key.dst_port,
        seen: tables.now(),
        bytes: parsed.length as u32,
        total: 0,
        protocol: parsed.key.protocol as u32,
    };
    tables.keep_fragments(FragmentKey::new(&parsed.key, parsed.id), row);
}
