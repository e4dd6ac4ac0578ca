//! The flow tables: established packets, and the two rows that live and die together. New flows are in
//! [`super::open`].

use core::cell::Cell;

use super::{
    forward::way_back,
    hook::Hook,
    parse::Parsed,
    snat,
    tables::{Common, Insert, Packet, Table, Tables},
};
use crate::{
    abi::{BackendState, BackendWord, Event, FlowKey, FlowRow, FlowState, ReachKind, flow_bits, is_known},
    family::Family,
    wire::Protocol,
};

/// A row where it lies, and what it said when it was read.
pub type Found<'a, F> = (&'a Cell<FlowRow<F>>, FlowRow<F>);

/// The row of a tuple, in whichever table it is.
#[inline(always)]
pub fn find<'a, F: Family, T: Tables<F>>(tables: &'a T, key: &FlowKey<F>) -> Option<Found<'a, F>> {
    let row = match tables.flow(Table::Proven, key) {
        Some(row) => row,
        None => tables.flow(Table::Unproven, key)?,
    };
    Some((row, row.get()))
}

impl<F: Family> FlowRow<F> {
    /// The table it is in.
    #[inline(always)]
    pub fn table(&self) -> Table {
        if self.is_proven() { Table::Proven } else { Table::Unproven }
    }
}

/// The backend that a request may go on to by the row it found; `None`: it needs a new choice.
#[inline(always)]
pub fn usable<F: Family, T: Tables<F>>(
    tables: &T,
    parsed: &Parsed<F>,
    row: &FlowRow<F>,
) -> Option<BackendWord> {
    let protocol = parsed.protocol();
    if row.expired(protocol, tables.now(), &tables.settings().lifetimes) {
        return None;
    }
    let (word, _) = tables.backend(row.backend.low)?;
    if word.0.generation != row.backend.generation {
        return None;
    }
    let state = word.state();
    let usable = if parsed.flags.opens() {
        // The port is used again: what is over, or could not begin again, is no guide.
        row.state() != FlowState::Closing && state.is_active()
    } else {
        match state {
            BackendState::Active(_) | BackendState::Draining => true,
            BackendState::Removed | BackendState::Reset => protocol != Protocol::Udp,
            BackendState::Free => false,
        }
    };
    usable.then_some(word)
}

/// Notes on both rows that a flow is over.
#[inline(always)]
pub fn end<F: Family, T: Tables<F>>(tables: &T, parsed: &Parsed<F>, (row, known): Found<'_, F>) {
    FlowRow::set_bits(row, known.bits | flow_bits::RESET);
    if known.is_tunnel() {
        return;
    }
    if known.is_snat() {
        return snat::end(tables, &parsed.key, &known);
    }
    let twin_key = twin(&translated(&parsed.key, &known), known.twin_zone());
    if let Some(other) = tables.flow(known.table(), &twin_key) {
        FlowRow::set_bits(other, other.get().bits | flow_bits::RESET);
    }
}

/// Whether a client's packet comes in by another port of the bridge than its flow is known to.
#[inline(always)]
pub fn is_elsewhere<F: Family, P: Packet>(packet: &P, hook: Hook, row: &FlowRow<F>) -> bool {
    hook == Hook::PortIngress && row.ifindex != packet.ifindex()
}

/// Whether a packet is sent in the name of an address that is at home at another port.
#[inline(always)]
pub fn is_forged<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    hook: Hook,
    source: F::Addr,
) -> bool {
    hook == Hook::PortIngress
        && tables
            .home(&F::answer_key(source, tables.settings().zone))
            .is_some_and(|home| home.ifindex != packet.ifindex())
}

/// Notes a client's packet of a known flow.
#[inline(always)]
pub fn request<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    hook: Hook,
    parsed: &Parsed<F>,
    (row, known): Found<'_, F>,
) {
    if snat::is_of(hook, &known) {
        return snat::request(packet, tables, parsed, (row, known));
    }
    let bits = if parsed.flags.finishes() { flow_bits::FIN_CLIENT } else { 0 };
    let ifindex = packet.ifindex();
    let reply = || reply_row(tables, hook, ifindex, parsed, &known);
    keep(tables, parsed, row, &known, bits, reply, |reply| follow(tables, hook, ifindex, parsed, reply));
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
pub fn reply<F: Family, T: Tables<F>>(tables: &T, parsed: &Parsed<F>, (row, known): Found<'_, F>) {
    let fin = if parsed.flags.finishes() { flow_bits::FIN_BACKEND } else { 0 };
    keep(tables, parsed, row, &known, flow_bits::ANSWERED | fin, || request_row(parsed, &known), |_| {});
}

/// Keeps both rows of a flow: times once a tick, bits when they change, and a lost twin made again; one that is there
/// is given to `guide`.
#[inline(always)]
fn keep<F: Family, T: Tables<F>>(
    tables: &T,
    parsed: &Parsed<F>,
    row: &Cell<FlowRow<F>>,
    known: &FlowRow<F>,
    bits: u32,
    twin_row: impl FnOnce() -> FlowRow<F>,
    guide: impl FnOnce(&Cell<FlowRow<F>>),
) {
    let now = tables.now();
    let reset = if parsed.flags.resets() { flow_bits::RESET } else { 0 };
    let bits = known.bits | bits | reset;
    if known.seen == now && known.bits == bits {
        return;
    }
    FlowRow::touch(row, now);
    FlowRow::set_bits(row, bits);
    let shared = bits & flow_bits::SHARED;
    let twin_key = twin(&translated(&parsed.key, known), known.twin_zone());
    let table = known.table();
    if let Some(other) = tables.flow(table, &twin_key) {
        FlowRow::touch(other, now);
        FlowRow::set_bits(other, other.get().bits | shared);
        guide(other);
        return;
    }
    let mut row = twin_row();
    row.bits |= shared;
    // A tuple that belongs to another flow by now stays that flow's.
    let elsewhere = if table == Table::Proven { Table::Unproven } else { Table::Proven };
    if tables.flow(elsewhere, &twin_key).is_none()
        && tables.insert_flow(table, twin_key, row, Insert::New).is_ok()
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

/// The key of the other direction of a packet.
#[inline(always)]
pub fn twin<F: Family>(to: &FlowKey<F>, zone: u16) -> FlowKey<F> {
    FlowKey {
        src: to.dst,
        dst: to.src,
        src_port: to.dst_port,
        dst_port: to.src_port,
        zone,
        protocol: to.protocol,
    }
}

/// The reply row of the flow whose request is `parsed`. It leads to the MAC that its request's row has.
#[inline(always)]
pub fn reply_row<F: Family, T: Common>(
    tables: &T,
    hook: Hook,
    ifindex: u32,
    parsed: &Parsed<F>,
    request: &FlowRow<F>,
) -> FlowRow<F> {
    let way: ReachKind = way_back(tables, hook, parsed.tagged);
    FlowRow {
        backend: request.backend,
        seen: tables.now(),
        bits: request.bits & flow_bits::SHARED
            | flow_bits::REPLY
            | (way as u32) << flow_bits::WAY_SHIFT
            | (parsed.key.zone as u32) << flow_bits::ZONE_SHIFT,
        addr: parsed.key.dst,
        port: parsed.key.dst_port,
        mac: request.mac,
        ifindex,
    }
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
