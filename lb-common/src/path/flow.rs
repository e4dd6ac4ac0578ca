//! The flow table: established packets, new flows, and the two rows that live and die together.

use core::cell::Cell;

use super::{
    Common, Hook, Insert, InsertError, Packet, Tables,
    parse::Parsed,
    select::{self, Choice},
    way_back,
};
use crate::{
    abi::{BackendState, Counter, FlowKey, FlowRow, FlowState, ReachKind, ZONE_OF_CLIENT, flow_bits},
    family::Family,
    wire::Protocol,
};

/// Whether a request may go on by the row it found, or needs a new choice.
#[inline(always)]
pub fn usable<F: Family, T: Tables<F>>(tables: &T, parsed: &Parsed<F>, row: &FlowRow<F>) -> bool {
    if row.expired(parsed.protocol, tables.now(), &tables.settings().lifetimes) {
        return false;
    }
    let Some((word, _)) = tables.backend(row.backend.low) else { return false };
    if word.0.generation != row.backend.generation {
        return false;
    }
    let state = word.state();
    if parsed.flags.opens() {
        // The port is used again: what is over, or could not begin again, is no guide.
        return row.state() != FlowState::Closing && state.is_active();
    }
    match state {
        BackendState::Active(_) | BackendState::Draining => true,
        BackendState::Removed => parsed.protocol != Protocol::Udp,
        BackendState::Free => false,
    }
}

/// A client's packet of a known flow: its backend.
#[inline(always)]
pub fn request<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    hook: Hook,
    parsed: &Parsed<F>,
    row: &Cell<FlowRow<F>>,
    known: FlowRow<F>,
) -> FlowRow<F> {
    let bits = if parsed.flags.finishes() { flow_bits::FIN_CLIENT } else { 0 };
    keep(tables, parsed, row, &known, bits, || reply_row(tables, hook, packet.ifindex(), parsed, &known));
    known
}

/// A backend's packet of a known flow: its client.
#[inline(always)]
pub fn reply<F: Family, T: Tables<F>>(
    tables: &T,
    parsed: &Parsed<F>,
    row: &Cell<FlowRow<F>>,
    known: FlowRow<F>,
) -> FlowRow<F> {
    let fin = if parsed.flags.finishes() { flow_bits::FIN_BACKEND } else { 0 };
    keep(tables, parsed, row, &known, flow_bits::ANSWERED | fin, || request_row(parsed, &known));
    known
}

/// The first packet of a flow, or of one that needs a new backend: a backend, recorded. `old` is the
/// row that was found and is no guide.
#[inline(always)]
pub fn open<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    hook: Hook,
    parsed: &Parsed<F>,
    old: Option<&Cell<FlowRow<F>>>,
) -> Result<(), Counter> {
    let target = select::target(tables, &parsed.key)?;
    let offer = select::offer(tables, &parsed.key, target, select::Client::Known)?;
    let mut stop = Counter::Unsettled;
    for attempt in 0..select::TRIES {
        let Some(choice) = select::backend(tables, &offer, attempt) else { continue };
        // A tuple that is another flow's at this backend: first another backend, then another port.
        let port = if attempt < 2 { 0 } else { 1 + offer.hash.wrapping_add(attempt) % OTHER_PORTS };
        let old = if attempt == 0 { old } else { None };
        match record(packet, tables, hook, parsed, old, &choice, port) {
            Ok(()) => {
                if offer.keep {
                    select::keep(tables, parsed.key.src, offer.service, choice.backend);
                }
                tables.count(Counter::NewFlow);
                return Ok(());
            }
            Err(Counter::Clash) => stop = Counter::Clash,
            Err(other) => return Err(other),
        }
    }
    Err(stop)
}

/// How many ports besides its own a client can have on the backend's side.
const OTHER_PORTS: u32 = flow_bits::PORT_MASK;

/// Records both rows of a new flow, the reply's first: the request's is what later packets go by.
#[inline(always)]
fn record<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    hook: Hook,
    parsed: &Parsed<F>,
    old: Option<&Cell<FlowRow<F>>>,
    choice: &Choice<'_, F>,
    port: u32,
) -> Result<(), Counter> {
    let ifindex = packet.ifindex();
    let backend = choice.row;
    // SCTP's checksum covers ports.
    let port = if parsed.protocol == Protocol::Sctp { 0 } else { port };
    let zone = if backend.zone == ZONE_OF_CLIENT { parsed.key.zone } else { backend.zone };
    let hairpin = if backend.addr == parsed.key.src { flow_bits::HAIRPIN } else { 0 };
    let request = FlowRow {
        backend: choice.backend,
        seen: tables.now(),
        bits: hairpin | port << flow_bits::PORT_SHIFT | (zone as u32) << flow_bits::ZONE_SHIFT,
        addr: backend.addr,
        port: backend.port,
        mac: parsed.source,
        ifindex,
    };
    let reply = reply_row(tables, hook, ifindex, parsed, &request);
    let reply_key = twin(&translated(&parsed.key, &request), zone);
    if let Some(old) = old
        && begin_again(tables, old, &request, &reply_key, &reply)
    {
        return Ok(());
    }
    match tables.insert_flow(reply_key, reply, Insert::New) {
        Ok(()) => {}
        Err(InsertError::Full) => return Err(Counter::TableFull),
        Err(InsertError::Exists) => {
            if !replaceable(tables, parsed.protocol, &reply_key, &reply) {
                return Err(Counter::Clash);
            }
            tables.insert_flow(reply_key, reply, Insert::Replace).map_err(|_| Counter::TableFull)?;
        }
    }
    if tables.insert_flow(parsed.key, request, Insert::Replace).is_err() {
        tables.remove_flow(&reply_key);
        return Err(Counter::TableFull);
    }
    Ok(())
}

/// A client that uses its port again gets the same backend again, most of the time: then both rows are
/// there and only begin anew, in place. Two inserts cost several times as much.
#[inline(always)]
fn begin_again<F: Family, T: Tables<F>>(
    tables: &T,
    old: &Cell<FlowRow<F>>,
    request: &FlowRow<F>,
    reply_key: &FlowKey<F>,
    reply: &FlowRow<F>,
) -> bool {
    if !old.get().leads_where(request) {
        return false;
    }
    let Some(twin) = tables.flow(reply_key) else { return false };
    if !twin.get().leads_where(reply) {
        return false;
    }
    for (row, new) in [(twin, reply), (old, request)] {
        FlowRow::touch(row, new.seen);
        FlowRow::set_bits(row, new.bits);
    }
    true
}

/// Whether the reply row that is in the way is this flow's own, or of a flow that is over. `ours` and its
/// own differ in nothing that names the flow: frontend, and which port of the client it stands for.
#[inline(always)]
fn replaceable<F: Family, T: Tables<F>>(
    tables: &T,
    protocol: Protocol,
    key: &FlowKey<F>,
    ours: &FlowRow<F>,
) -> bool {
    let Some(found) = tables.flow(key) else { return true };
    let found = found.get();
    let own = found.is_reply()
        && found.addr == ours.addr
        && found.port == ours.port
        && found.port_mask() == ours.port_mask();
    own || found.state() == FlowState::Closing
        || found.expired(protocol, tables.now(), &tables.settings().lifetimes)
}

/// Keeps both rows of a flow: times once a tick, bits when they change, and a lost twin made again.
#[inline(always)]
fn keep<F: Family, T: Tables<F>>(
    tables: &T,
    parsed: &Parsed<F>,
    row: &Cell<FlowRow<F>>,
    known: &FlowRow<F>,
    bits: u32,
    twin_row: impl FnOnce() -> FlowRow<F>,
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
    if let Some(other) = tables.flow(&twin_key) {
        FlowRow::touch(other, now);
        FlowRow::set_bits(other, other.get().bits | shared);
        return;
    }
    let mut row = twin_row();
    row.bits |= shared;
    // A tuple that belongs to another flow by now stays that flow's.
    if tables.insert_flow(twin_key, row, Insert::New).is_ok() {
        tables.count(Counter::Rebuilt);
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

/// The key of the other direction of a translated packet.
#[inline(always)]
fn twin<F: Family>(to: &FlowKey<F>, zone: u16) -> FlowKey<F> {
    FlowKey {
        src: to.dst,
        dst: to.src,
        src_port: to.dst_port,
        dst_port: to.src_port,
        zone,
        protocol: to.protocol,
    }
}

/// The reply row of the flow whose request is `parsed`.
#[inline(always)]
fn reply_row<F: Family, T: Common>(
    tables: &T,
    hook: Hook,
    ifindex: u32,
    parsed: &Parsed<F>,
    request: &FlowRow<F>,
) -> FlowRow<F> {
    let way: ReachKind = way_back(tables, hook);
    FlowRow {
        backend: request.backend,
        seen: tables.now(),
        bits: request.bits & flow_bits::SHARED
            | flow_bits::REPLY
            | (way as u32) << flow_bits::WAY_SHIFT
            | (parsed.key.zone as u32) << flow_bits::ZONE_SHIFT,
        addr: parsed.key.dst,
        port: parsed.key.dst_port,
        mac: parsed.source,
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
