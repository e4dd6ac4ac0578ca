//! DNAT: a packet's destination becomes its backend, its source stays the client's, or the frontend's where both are
//! one (hairpin). The two rows of a flow live and die together.

use core::cell::Cell;

use super::super::flow_table::{Found, advance, progress, reverse_key};
use super::super::tables::{Common, Insert, Table, Tables};
use super::super::{egress::return_path, hook::Hook, packet::Packet, state::Parsed};
use crate::{
    abi::{Event, FlowKey, FlowRow, Mac, NextHopKind, flow_bits, is_known},
    family::Family,
};

/// Notes a client's packet of a known flow.
#[inline(always)]
pub fn request<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    hook: Hook,
    parsed: &Parsed<F>,
    found: Found<'_, F>,
) {
    let bits = progress(parsed.flags, flow_bits::FIN_CLIENT);
    let ifindex = packet.ifindex();
    let known = found.1;
    let reply = || reply_row(tables, hook, ifindex, parsed, &known);
    keep(tables, parsed, found, bits, reply, |reply| follow(tables, hook, ifindex, parsed, reply));
}

/// Where there are several uplinks, or routers, a client's packets may come by another one than before: replies
/// follow, once a tick.
#[inline(always)]
fn follow<F: Family, T: Common>(
    tables: &T,
    hook: Hook,
    ifindex: u32,
    parsed: &Parsed<F>,
    reply: &Cell<FlowRow<F>>,
) {
    if !hook.from_outside() || tables.settings().several_uplinks == 0 {
        return;
    }
    let FlowRow { mac, ifindex: known, .. } = reply.get();
    if is_known(&mac) && (mac, known) != (parsed.source, ifindex) {
        FlowRow::lead_to(reply, parsed.source, ifindex);
    }
}

/// Notes a backend's packet of a known flow.
#[inline(always)]
pub fn reply<F: Family, T: Tables<F>>(tables: &T, parsed: &Parsed<F>, found: Found<'_, F>) {
    let bits = flow_bits::ANSWERED | progress(parsed.flags, flow_bits::FIN_BACKEND);
    let known = found.1;
    keep(tables, parsed, found, bits, || request_row(parsed, &known), |_| {});
}

/// Keeps both rows of a flow: times once a tick, bits when they change, and a lost reverse row made again; one that
/// is there
/// is given to `guide`.
#[inline(always)]
fn keep<F: Family, T: Tables<F>>(
    tables: &T,
    parsed: &Parsed<F>,
    found: Found<'_, F>,
    bits: u32,
    reverse_row: impl FnOnce() -> FlowRow<F>,
    guide: impl FnOnce(&Cell<FlowRow<F>>),
) {
    let Some(bits) = advance(tables, &found, bits) else { return };
    let (now, known) = (tables.now(), &found.1);
    let shared = bits & flow_bits::SHARED;
    let reverse = reverse_key(&translated(&parsed.key, known), known.reverse_zone());
    let table = known.table();
    if let Some(other) = tables.flow(table, &reverse) {
        FlowRow::touch(other, now);
        FlowRow::set_bits(other, other.get().bits | shared);
        guide(other);
        return;
    }
    let mut row = reverse_row();
    row.bits |= shared;
    // A tuple that belongs to another flow by now stays that flow's.
    let elsewhere = if table == Table::Assured { Table::Unassured } else { Table::Assured };
    if tables.flow(elsewhere, &reverse).is_none()
        && tables.insert_flow(table, reverse, row, Insert::New).is_ok()
    {
        tables.count(Event::Rebuilt.into());
    }
}

/// The addresses and ports a packet gets from its row.
#[inline(always)]
pub fn translated<F: Family>(key: &FlowKey<F>, row: &FlowRow<F>) -> FlowKey<F> {
    let (hairpin, mask) = (row.is_hairpin(), row.port_mask());
    if row.is_reply() {
        let client = if hairpin { key.src } else { key.dst };
        FlowKey { src: row.addr, src_port: row.port, dst: client, dst_port: key.dst_port ^ mask, ..*key }
    } else {
        let client = if hairpin { key.dst } else { key.src };
        FlowKey { dst: row.addr, dst_port: row.port, src: client, src_port: key.src_port ^ mask, ..*key }
    }
}

/// The reply row of the flow whose request is `parsed`. It leads to where that comes from, unless another node has
/// passed it on, or the flow's first.
#[inline(always)]
pub fn reply_row<F: Family, T: Common>(
    tables: &T,
    hook: Hook,
    ifindex: u32,
    parsed: &Parsed<F>,
    request: &FlowRow<F>,
) -> FlowRow<F> {
    let way: NextHopKind = return_path(tables, hook, parsed.tagged);
    FlowRow {
        backend: request.backend,
        seen: tables.now(),
        bits: request.bits & flow_bits::SHARED
            | flow_bits::REPLY
            | (way as u32) << flow_bits::RETURN_SHIFT
            | (parsed.key.zone as u32) << flow_bits::ZONE_SHIFT,
        addr: parsed.key.dst,
        port: parsed.key.dst_port,
        mac: client_mac(parsed, is_known(&request.mac)),
        ifindex,
    }
}

/// The MAC that the client's packets come from, or zero where nobody knows it. By a mask: of two arrays LLVM would copy
/// one by memmove.
#[inline(always)]
pub fn client_mac<F: Family>(parsed: &Parsed<F>, known: bool) -> Mac {
    let mask = if known { u16::MAX } else { 0 };
    let [a, b, c] = parsed.source;
    [a & mask, b & mask, c & mask]
}

/// The request row of the flow whose reply is `parsed`.
#[inline(always)]
fn request_row<F: Family>(parsed: &Parsed<F>, reply: &FlowRow<F>) -> FlowRow<F> {
    FlowRow {
        backend: reply.backend,
        seen: reply.seen,
        bits: reply.bits & flow_bits::SHARED | (parsed.key.zone as u32) << flow_bits::ZONE_SHIFT,
        addr: parsed.key.src,
        port: parsed.key.src_port,
        mac: reply.mac,
        ifindex: reply.ifindex,
    }
}

/// Notes on the row of a flow's replies that it is over.
#[inline(always)]
pub fn end<F: Family, T: Tables<F>>(tables: &T, key: &FlowKey<F>, request: &FlowRow<F>) {
    let reply = reverse_key(&translated(key, request), request.reverse_zone());
    if let Some(reply) = tables.flow(request.table(), &reply) {
        FlowRow::set_bits(reply, reply.get().bits | flow_bits::RESET);
    }
}
