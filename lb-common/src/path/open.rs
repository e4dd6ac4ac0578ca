//! Open: what becomes of a packet that the table of proven flows can't guide. A flow begins among the
//! unproven ones and moves over once its client has shown that it hears the backend.

use super::{
    Common, Hook, Insert, InsertError, Note, Packet, Parsed, Table, Tables, Verdict, dsr,
    flow::{self, Found, find, translated, twin},
    readable, select, snat, turn,
};
use crate::{
    abi::{
        BackendRow, BackendState, BackendWord, Counter, FlowKey, FlowRow, FlowState, Mac, ReachKind,
        ZONE_OF_CLIENT, flow_bits,
    },
    family::Family,
    wire::Protocol,
};

/// Whether the rows of both tables guide the packet; if not it needs [`open`]. Or why it ends here.
#[inline(always)]
pub fn resume<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    note: &Note<F>,
) -> Result<Resumed, Counter> {
    let parsed = &note.parsed;
    let table = if note.proven.get() { Table::Proven } else { Table::Unproven };
    let Some(row) = tables.flow(table, &parsed.key) else {
        return if hook.is_egress() { Err(Counter::WrongHook) } else { Ok(Resumed::Unknown) };
    };
    let known = row.get();
    if known.is_direct() {
        FlowRow::touch(row, tables.now());
        return Err(Counter::Direct);
    }
    if known.is_reply() {
        if hook == Hook::UplinkXdp {
            return Err(Counter::WrongHook);
        }
        answered(packet, tables, parsed, &known)?;
        return Ok(Resumed::Guided);
    }
    if hook.is_egress() {
        return Err(Counter::WrongHook);
    }
    let lost_port =
        snat::is_of(hook, &known) && !known.is_proven() && !snat::holds(tables, &parsed.key, &known);
    if lost_port {
        return Ok(Resumed::Misguided);
    }
    let Some(word) = flow::usable(tables, parsed, &known) else { return Ok(Resumed::Misguided) };
    if parsed.protocol() == Protocol::Tcp && ends(tables, word) {
        flow::end(tables, parsed, (row, known));
        return Err(Counter::BackendGone);
    }
    if hook == Hook::UplinkXdp && !turn::can_send(packet, tables, parsed, known.backend) {
        return Err(Counter::WrongHook);
    }
    if flow::is_elsewhere(packet, hook, &known) {
        if flow::is_forged(packet, tables, hook, parsed.key.src) {
            return Err(Counter::Forged);
        }
        move_over(packet, tables, hook, parsed, known)?;
    } else if dsr::is_of(hook, &known) {
        if !known.is_proven() && dsr::proves(parsed) {
            dsr::promote(tables, &parsed.key, &known);
        }
    } else if !known.is_proven() && proves(packet, tables, parsed, &known) {
        promote(packet, tables, hook, parsed, &known);
    }
    Ok(Resumed::Guided)
}

/// Whether a backend's TCP flows end: it takes no new ones, and has gone or is not to keep those it has. An
/// active one may come back: its clients wait.
#[inline(always)]
fn ends<T: Common>(tables: &T, word: BackendWord) -> bool {
    let gone = || {
        tables
            .reach(word.reach())
            .is_none_or(|reach| matches!(reach.kind(), ReachKind::None | ReachKind::Gone))
    };
    match word.state() {
        BackendState::Active(_) => false,
        BackendState::Reset => true,
        BackendState::Draining | BackendState::Silent | BackendState::Removed | BackendState::Free => gone(),
    }
}

/// What the tables of flows know of a packet.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// Its flow.
    Guided,
    /// A flow that is over, or whose backend serves no more.
    Misguided,
    /// Nothing.
    Unknown,
}

/// Notes a backend for a new flow; whether there is one to try now, or why there is none at all.
#[inline(always)]
pub fn choose<F: Family, T: Tables<F>>(tables: &T, note: &Note<F>) -> Result<bool, Counter> {
    let parsed = &note.parsed;
    let target = select::target(tables, &parsed.key)?;
    let attempt = note.attempts.get() as u32;
    // Who has sent it here has chosen as we do: one of this node's, if it knows what we know.
    let here = note.unwrapped.get();
    let among = if here && attempt != 0 { select::Among::Here } else { select::Among::All };
    let offer = select::offer(tables, &parsed.key, target, select::Client::Known, among)?;
    note.attempts.set(attempt as u8 + 1);
    if let Some(choice) = select::backend(tables, &offer, attempt)
        && (!here || dsr::is_here(choice.row))
    {
        note.backend.set(choice.backend);
        note.keep.set(offer.keep);
        // A tuple that is another flow's at this backend: first another backend, then another port.
        note.port.set(if attempt < 2 { 0 } else { other_port(offer.hash, attempt) });
        return Ok(true);
    }
    if attempt + 1 < select::TRIES { Ok(false) } else { Err(Counter::Unsettled) }
}

/// One of the ports besides its own that a client can have on the backend's side.
#[inline(always)]
fn other_port(hash: u32, attempt: u32) -> u32 {
    const OTHER_PORTS: u32 = flow_bits::PORT_MASK;
    1 + hash.wrapping_add(attempt) % OTHER_PORTS
}

/// A backend's packet. Of an unproven flow it is noted what a client that hears it will acknowledge.
#[inline(always)]
fn answered<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    parsed: &Parsed<F>,
    known: &FlowRow<F>,
) -> Result<(), Counter> {
    let protocol = parsed.protocol();
    if known.expired(protocol, tables.now(), &tables.settings().lifetimes) {
        return Err(Counter::NotOurs);
    }
    if protocol == Protocol::Tcp {
        expect(packet, tables, parsed, &twin(&translated(&parsed.key, known), known.twin_zone()))?;
    }
    Ok(())
}

/// Notes what the client of an unproven TCP flow, whose request's key this is, will acknowledge.
#[inline(always)]
pub fn expect<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    parsed: &Parsed<F>,
    request: &FlowKey<F>,
) -> Result<(), Counter> {
    const SEQUENCE: usize = 4;
    let sequence = readable::<[u16; 2], P>(packet, parsed.transport() + SEQUENCE)?;
    if let Some(proof) = tables.proof(request) {
        proof.set(u32::from_be(bytemuck::cast(sequence)));
    }
    Ok(())
}

/// Whether a client's packet of an unproven flow shows that it hears the backend: TCP acknowledges what it
/// was sent, others say a second thing after they were answered.
#[inline(always)]
fn proves<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    parsed: &Parsed<F>,
    known: &FlowRow<F>,
) -> bool {
    if known.state() != FlowState::Established || parsed.flags.resets() {
        return false;
    }
    if parsed.protocol() != Protocol::Tcp {
        return true;
    }
    /// How far the acknowledged byte may be from the last segment that was seen: what is on its way at once.
    const NEAR: u32 = 1 << 20;
    const ACKNOWLEDGEMENT: usize = 8;
    let Ok(number) = readable::<[u16; 2], P>(packet, parsed.transport() + ACKNOWLEDGEMENT) else {
        return false;
    };
    let number = u32::from_be(bytemuck::cast(number));
    let Some(proof) = tables.proof(&parsed.key) else { return false };
    parsed.flags.acknowledges() && number.wrapping_sub(proof.get()).wrapping_add(NEAR) < 2 * NEAR
}

/// Moves a flow to the proven ones, the reply's row first. Where there is no room it stays where it is.
#[inline(always)]
fn promote<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    hook: Hook,
    parsed: &Parsed<F>,
    known: &FlowRow<F>,
) {
    let request = FlowRow { bits: known.bits | flow_bits::PROVEN, seen: tables.now(), ..*known };
    if snat::is_of(hook, known) {
        return snat::promote(tables, &parsed.key, &request);
    }
    let reply = flow::reply_row(tables, hook, packet.ifindex(), parsed, &request);
    let reply_key = twin(&translated(&parsed.key, &request), request.twin_zone());
    if take(tables, Table::Proven, parsed.protocol(), reply_key, &reply).is_err() {
        return;
    }
    if tables.insert_flow(Table::Proven, parsed.key, request, Insert::Replace).is_err() {
        return tables.remove_flow(Table::Proven, &reply_key);
    }
    tables.remove_flow(Table::Unproven, &parsed.key);
    tables.remove_flow(Table::Unproven, &reply_key);
    tables.count(Counter::Proven);
}

/// A known flow's client is at another port of its bridge, and nobody knows better: replies go there.
#[inline(always)]
fn move_over<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    hook: Hook,
    parsed: &Parsed<F>,
    known: FlowRow<F>,
) -> Result<(), Counter> {
    let request = FlowRow { mac: parsed.source, ifindex: packet.ifindex(), seen: tables.now(), ..known };
    let reply = flow::reply_row(tables, hook, packet.ifindex(), parsed, &request);
    let reply_key = twin(&translated(&parsed.key, &request), request.twin_zone());
    let full = |_| Counter::TableFull;
    tables.insert_flow(known.table(), reply_key, reply, Insert::Replace).map_err(full)?;
    tables.insert_flow(known.table(), parsed.key, request, Insert::Replace).map_err(full)?;
    tables.count(Counter::Moved);
    Ok(())
}

/// Records both rows of a new flow with the backend that was noted, the reply's first: the request's is what
/// later packets go by. What is to be done then, if not: another backend is to be tried.
#[inline(always)]
pub fn record<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    hook: Hook,
    note: &Note<F>,
) -> Result<Verdict, Counter> {
    let (_, backend) = tables.backend(note.backend.get().low).ok_or(Counter::Unsettled)?;
    if dsr::is_needed(hook, backend) {
        dsr::record(packet, tables, note, backend)?;
        recorded(tables, note, backend.service);
        return Ok(Verdict::Finish);
    }
    if snat::is_needed(tables, hook, backend) {
        return Ok(Verdict::Lend);
    }
    match put(packet, tables, hook, note, backend) {
        Ok(()) => {}
        Err(Counter::Clash) if (note.attempts.get() as u32) < select::TRIES => return Ok(Verdict::Open),
        Err(stop) => return Err(stop),
    }
    recorded(tables, note, backend.service);
    Ok(Verdict::Finish)
}

/// A new flow is recorded.
#[inline(always)]
pub fn recorded<F: Family, T: Tables<F>>(tables: &T, note: &Note<F>, service: u32) {
    if note.keep.get() {
        select::keep(tables, note.parsed.key.src, service, note.backend.get());
    }
    tables.count(Counter::NewFlow);
}

#[inline(always)]
fn put<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    hook: Hook,
    note: &Note<F>,
    backend: &BackendRow<F>,
) -> Result<(), Counter> {
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
            return Err(Counter::Clash);
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
) -> Result<(), Counter> {
    tables.insert_flow(Table::Unproven, *key, request, Insert::Replace).map_err(|_| Counter::TableFull)?;
    if old.is_some_and(|(_, known)| known.is_proven()) {
        // It would be found before the new one.
        tables.remove_flow(Table::Proven, key);
    }
    Ok(())
}

/// Records a reply's row unless a live flow's is in the way.
#[inline(always)]
fn take<F: Family, T: Tables<F>>(
    tables: &T,
    table: Table,
    protocol: Protocol,
    key: FlowKey<F>,
    row: &FlowRow<F>,
) -> Result<(), Counter> {
    match tables.insert_flow(table, key, *row, Insert::New) {
        Ok(()) => return Ok(()),
        Err(InsertError::Full) => return Err(Counter::TableFull),
        Err(InsertError::Exists) => {}
    }
    if let Some(found) = tables.flow(table, &key)
        && !gives_way(tables, protocol, &found.get(), row)
    {
        return Err(Counter::Clash);
    }
    tables.insert_flow(table, key, *row, Insert::Replace).map_err(|_| Counter::TableFull)
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
fn is_over<F: Family, T: Tables<F>>(tables: &T, protocol: Protocol, row: &FlowRow<F>) -> bool {
    row.state() == FlowState::Closing || row.expired(protocol, tables.now(), &tables.settings().lifetimes)
}

/// A client's packet to a backend by its own address. On the backend's side that
/// is the tuple which a flow through a service would have: from the same port of the client both are one
/// connection there. So the call is marked, and later flows through services keep off its tuple; where a
/// flow was there first, the call becomes a flow itself, with another port.
#[inline(always)]
pub fn direct<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    note: &Note<F>,
) -> Result<(), Counter> {
    let parsed = &note.parsed;
    let protocol = parsed.protocol();
    let key = &parsed.key;
    let reply_key = twin(key, key.zone);
    if let Some((row, known)) = find(tables, &reply_key) {
        if known.is_direct() {
            FlowRow::touch(row, tables.now());
            return Err(Counter::Direct);
        }
        if !is_over(tables, protocol, &known) && protocol != Protocol::Sctp {
            note.backend.set(known.backend);
            note.port.set(other_port(select::slot_hash(key, tables.settings().hash_seed), 0));
            note.attempts.set(select::TRIES as u8);
            return Ok(());
        }
        tables.remove_flow(known.table(), &reply_key);
    }
    let mark = FlowRow {
        backend: note.backend.get(),
        seen: tables.now(),
        bits: flow_bits::REPLY | flow_bits::DIRECT,
        addr: key.dst,
        port: key.dst_port,
        mac: parsed.source,
        ifindex: packet.ifindex(),
    };
    // Without a mark it is as it would be without us.
    let _ = tables.insert_flow(Table::Unproven, reply_key, mark, Insert::Replace);
    Err(Counter::Direct)
}
