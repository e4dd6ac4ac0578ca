//! Fragments: a packet's fragments go where its first one went, which alone has ports: what it says is kept until all
//! bytes have been seen. A later one that overtakes the first is dropped: it would have to wait for it, and a guess
//! could be another backend.

use super::tables::{Tables, prefilter_hash};
use super::{
    hook::Hook,
    packet::Packet,
    parse::TransportSpan,
    prefilter::is_unassigned,
    select,
    source_guard::{is_spoofed, other_zone},
    state::Parsed,
};
use crate::{
    abi::{BackendRef, FlowKey, FragmentKey, FragmentRow, Stop},
    family::Family,
};

/// Gives a later fragment's flow the ports of the first one, or says why it goes nowhere: the row of its packet. That
/// is forgotten when all bytes have been seen: the identification may be used again.
#[inline(always)]
pub fn follow<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    hook: Hook,
    flow: &mut FlowKey<F>,
    span: &TransportSpan,
) -> Result<FragmentRow, Stop> {
    let mut key = FragmentKey::new(flow, span.fragment.id);
    if let Some(zone) = other_zone(packet, tables, hook, flow)
        && tables.fragments(&key).is_none()
    {
        flow.zone = zone;
        key = FragmentKey::new(flow, span.fragment.id);
    }
    let Some(known) = tables.fragments(&key) else { return Err(lost(tables, hook, flow)) };
    let (row, now) = (known.get(), tables.now());
    if row.expired(now) {
        return Err(lost(tables, hook, flow));
    }
    if is_spoofed(packet, tables, hook, flow) {
        return Err(Stop::SpoofedSource);
    }
    let bytes = row.bytes + span.fragment.length;
    let end = span.fragment.offset as u32 + span.fragment.length;
    let total = if span.fragment.more { row.total } else { end };
    if total != 0 && bytes >= total {
        tables.forget_fragments(&key);
    } else {
        FragmentRow::update(known, now, bytes, total);
    }
    (flow.src_port, flow.dst_port, flow.protocol) = (row.src_port, row.dst_port, row.protocol as u16);
    Ok(row)
}

/// Why a later fragment of an unknown packet goes nowhere. It is ours for certain only where all of an address is a
/// service's: the host has other ports at its own.
#[inline(always)]
fn lost<F: Family, T: Tables<F>>(tables: &T, hook: Hook, flow: &FlowKey<F>) -> Stop {
    if hook.is_egress() {
        return Stop::Fragment;
    }
    if !tables.prefilter(prefilter_hash(flow.dst, 0)) {
        let unassigned = is_unassigned::<F, T>(tables, flow.dst);
        return if unassigned { Stop::UnassignedVip } else { Stop::Fragment };
    }
    if select::is_owned::<F, T>(tables, flow.dst) { Stop::FragmentLost } else { Stop::Fragment }
}

/// Keeps what a first fragment said, which has gone to this backend. `to_stack`: by way of the host's stack.
#[inline(always)]
pub fn keep<F: Family, T: Tables<F>>(tables: &T, parsed: &Parsed<F>, backend: BackendRef, to_stack: bool) {
    let row = FragmentRow {
        backend,
        src_port: parsed.key.src_port,
        dst_port: parsed.key.dst_port,
        seen: tables.now(),
        bytes: parsed.length as u32,
        total: 0,
        protocol: parsed.key.protocol as u32 | if to_stack { FragmentRow::TO_STACK } else { 0 },
    };
    tables.keep_fragments(FragmentKey::new(&parsed.key, parsed.id), row);
}
