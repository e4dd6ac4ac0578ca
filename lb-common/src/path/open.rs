//! Open: the rows of a new flow, which begins among the unassured ones.

use super::{
    dsr,
    flow::{self, Found, find, translated, twin},
    hook::Hook,
    parse::{Note, Parsed},
    select, snat,
    step::{Next, Step},
    tables::{Insert, InsertError, Packet, Table, Tables, noted},
    xdp,
};
use crate::{
    abi::{BackendRow, Event, FlowKey, FlowRow, FlowState, Mac, Stop, ZONE_OF_CLIENT, flow_bits},
    family::Family,
    wire::Protocol,
};

/// Records both rows of a new flow with the backend that was noted, the reply's first: the request's is what
/// later packets go by. What is to be done then, if not: another backend is to be tried.
#[inline(always)]
pub fn open<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    _: Next,
) -> Result<Next, Stop> {
    let note = noted(tables)?;
    if hook == Hook::UplinkXdp && !xdp::can_send(packet, tables, &note.parsed, note.backend.get()) {
        return Err(Stop::WrongHook);
    }
    let (_, backend) = tables.backend(note.backend.get().low).ok_or(Stop::Unsettled)?;
    if dsr::is_needed(hook, backend) {
        dsr::record(packet, tables, note, backend)?;
        recorded(tables, note, backend.service);
        return Ok(Step::Translate.into());
    }
    if snat::is_needed(tables, hook, backend) {
        return Ok(Step::SnatAllocate.into());
    }
    match put(packet, tables, hook, note, backend) {
        Ok(()) => {}
        Err(Stop::Clash) if (note.attempts.get() as u32) < select::TRIES => return Ok(Step::Select.into()),
        Err(stop) => return Err(stop),
    }
    recorded(tables, note, backend.service);
    Ok(Step::Translate.into())
}

/// A new flow is recorded.
#[inline(always)]
pub fn recorded<F: Family, T: Tables<F>>(tables: &T, note: &Note<F>, service: u32) {
    if note.keep.get() {
        select::keep(tables, note.parsed.key.src, service, note.backend.get());
    }
    tables.count(Event::NewFlow.into());
}

#[inline(always)]
fn put<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    hook: Hook,
    note: &Note<F>,
    backend: &BackendRow<F>,
) -> Result<(), Stop> {
    let parsed = &note.parsed;
    let old = if note.misguided.get() { find(tables, &parsed.key) } else { None };
    let ifindex = packet.ifindex();
    let protocol = parsed.protocol();
    // SCTP's checksum covers ports.
    let port = if protocol == Protocol::Sctp { 0 } else { note.port.get() };
    let zone = if backend.zone == ZONE_OF_CLIENT { parsed.key.zone } else { backend.zone };
    let hairpin = if backend.addr == parsed.key.src { flow_bits::HAIRPIN } else { 0 };
    let request = FlowRow {
        backend: note.backend.get(),
        seen: tables.now(),
        bits: hairpin | port << flow_bits::PORT_SHIFT | (zone as u32) << flow_bits::ZONE_SHIFT,
        addr: backend.addr,
        port: backend.port,
        mac: client_mac(parsed, hook == Hook::UplinkIngress && note.unwrapped.get()),
        ifindex,
    };
    let reply = flow::reply_row(tables, hook, ifindex, parsed, &request);
    let reply_key = twin(&translated(&parsed.key, &request), zone);
    if let Some(old) = old
        && begin_again(tables, old, &request, &reply_key, &reply)
    {
        return Ok(());
    }
    // In the way among the proven ones: another flow that lives, or what is over.
    if let Some(found) = tables.flow(Table::Proven, &reply_key) {
        if !gives_way(tables, protocol, &found.get(), &reply) {
            return Err(Stop::Clash);
        }
        tables.remove_flow(Table::Proven, &reply_key);
    }
    take(tables, Table::Unproven, protocol, reply_key, &reply)?;
    let entered = enter(tables, &parsed.key, request, old);
    if entered.is_err() {
        tables.remove_flow(Table::Unproven, &reply_key);
    }
    entered
}

/// The MAC that the client's packets come from, or zero where another node has passed them on. By a mask: of two arrays
/// LLVM would copy one by memmove.
#[inline(always)]
fn client_mac<F: Family>(parsed: &Parsed<F>, passed_on: bool) -> Mac {
    let mask = if passed_on { 0 } else { u16::MAX };
    let [a, b, c] = parsed.source;
    [a & mask, b & mask, c & mask]
}

/// Records the request row of a new flow, whose tuple had `old`.
#[inline(always)]
pub fn enter<F: Family, T: Tables<F>>(
    tables: &T,
    key: &FlowKey<F>,
    request: FlowRow<F>,
    old: Option<Found<'_, F>>,
) -> Result<(), Stop> {
    tables.insert_flow(Table::Unproven, *key, request, Insert::Replace).map_err(|_| Stop::TableFull)?;
    if old.is_some_and(|(_, known)| known.is_proven()) {
        // It would be found before the new one.
        tables.remove_flow(Table::Proven, key);
    }
    Ok(())
}

/// Records a reply's row unless a live flow's is in the way.
#[inline(always)]
pub fn take<F: Family, T: Tables<F>>(
    tables: &T,
    table: Table,
    protocol: Protocol,
    key: FlowKey<F>,
    row: &FlowRow<F>,
) -> Result<(), Stop> {
    match tables.insert_flow(table, key, *row, Insert::New) {
        Ok(()) => return Ok(()),
        Err(InsertError::Full) => return Err(Stop::TableFull),
        Err(InsertError::Exists) => {}
    }
    if let Some(found) = tables.flow(table, &key)
        && !gives_way(tables, protocol, &found.get(), row)
    {
        return Err(Stop::Clash);
    }
    tables.insert_flow(table, key, *row, Insert::Replace).map_err(|_| Stop::TableFull)
}

/// A client that uses its port again gets the same backend again, most of the time: then both rows are
/// there and only begin anew, in place. Two inserts cost several times as much.
#[inline(always)]
fn begin_again<F: Family, T: Tables<F>>(
    tables: &T,
    (old, known): Found<'_, F>,
    request: &FlowRow<F>,
    reply_key: &FlowKey<F>,
    reply: &FlowRow<F>,
) -> bool {
    if !known.leads_where(request) {
        return false;
    }
    let Some(twin) = tables.flow(known.table(), reply_key) else { return false };
    if !twin.get().leads_where(reply) {
        return false;
    }
    let proven = known.bits & flow_bits::PROVEN;
    for (row, new) in [(twin, reply), (old, request)] {
        FlowRow::touch(row, new.seen);
        FlowRow::set_bits(row, new.bits | proven);
    }
    true
}

/// Whether the reply row that is in the way is this flow's own, or of a flow that is over. `ours` and its
/// own differ in nothing that names the flow: frontend, and which port of the client it stands for.
#[inline(always)]
fn gives_way<F: Family, T: Tables<F>>(
    tables: &T,
    protocol: Protocol,
    found: &FlowRow<F>,
    ours: &FlowRow<F>,
) -> bool {
    let own = found.is_reply()
        && !found.is_direct()
        && found.addr == ours.addr
        && found.port == ours.port
        && found.port_mask() == ours.port_mask();
    own || is_over(tables, protocol, found)
}

/// Whether a row is of a flow that is over.
#[inline(always)]
pub fn is_over<F: Family, T: Tables<F>>(tables: &T, protocol: Protocol, row: &FlowRow<F>) -> bool {
    row.state() == FlowState::Closing || row.expired(protocol, tables.now(), &tables.settings().lifetimes)
}
