//! SNAT: a client outside whose backend is on another node is shown to it as this node, so that the replies
//! come back here. Each such flow has a port of the node's; taking one is inserting the row of its replies
//! where there is none, in a table that never evicts.

use core::cell::Cell;

use super::{
    flow::{self, find},
    forward, hard,
    hook::Hook,
    lookup::expect,
    open,
    parse::Parsed,
    rewrite::{self, Form},
    step::{Next, Step},
    tables::{Insert, InsertError, Packet, Table, Tables, interest_hash, noted},
    xdp,
};
use crate::{
    abi::{
        BackendRow, Event, FlowKey, FlowRow, Mac, ReachKind, SnatRow, Stop, flow_bits, maps::PORT_CURSORS,
    },
    family::{Address as _, Family},
    wire::{Part, Protocol},
};

/// How many ports are tried for a flow.
pub const PORT_TRIES: u32 = 32;

/// For how many ticks a port is kept for a client that has yet to show that it hears the backend, where
/// another flow wants it: a flood of clients that do not exist holds no port for longer.
const UNPROVEN_TICKS: u32 = 5;

/// Whether a request row is of a flow that has a port of the node's: only where packets come from outside.
#[inline(always)]
pub fn is_of<F: Family>(hook: Hook, request: &FlowRow<F>) -> bool {
    hook.from_outside() && request.is_snat()
}

/// Whether a flow to a backend needs a port of the node's.
#[inline(always)]
pub fn is_needed<F: Family, T: Tables<F>>(tables: &T, hook: Hook, backend: &BackendRow<F>) -> bool {
    let settings = tables.settings();
    if !hook.from_outside() || settings.snat_ports == 0 || F::host(settings) == F::Addr::ZERO {
        return false;
    }
    let reach = tables.reach(crate::abi::BackendWord(backend.word).reach());
    reach.is_some_and(|reach| reach.kind() == ReachKind::Uplink)
}

/// Lends a port to a new flow with the backend that was noted, and records it.
#[inline(always)]
pub fn allocate<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    _: Hook,
    _: Next,
) -> Result<Next, Stop> {
    let note = noted(tables)?;
    let parsed = &note.parsed;
    let key = &parsed.key;
    let settings = tables.settings();
    let backend = note.backend.get();
    let (_, to) = tables.backend(backend.low).ok_or(Stop::Unsettled)?;
    let mut lent = FlowKey {
        // By a mask: whole, LLVM would copy an IPv6 address by memmove.
        src: to.addr.masked(F::Addr::ONES),
        dst: F::host(settings),
        src_port: to.port,
        dst_port: key.src_port,
        zone: to.zone,
        protocol: key.protocol,
    };
    let old = || if note.misguided.get() { find(tables, key) } else { None };
    let row = SnatRow {
        row: FlowRow {
            backend,
            seen: tables.now(),
            bits: flow_bits::REPLY
                | (ReachKind::Uplink as u32) << flow_bits::WAY_SHIFT
                | (key.zone as u32) << flow_bits::ZONE_SHIFT,
            addr: key.dst,
            port: key.dst_port,
            mac: parsed.source,
            ifindex: packet.ifindex(),
        },
        client: key.src,
        port: key.src_port,
        reserved: 0,
    };
    if parsed.protocol() == Protocol::Sctp {
        // Its checksum covers ports: the client's own, or none.
        if !take(tables, &lent, &row)? {
            return Err(Stop::Clash);
        }
    } else {
        let ports = settings.snat_ports.max(1);
        let count = interest_hash(to.addr, to.port) % PORT_CURSORS;
        // Asked for once more below: "R2 !read_ok" (kernel 6.18) where what it has not found is kept over the loop.
        let start = match old() {
            // A port that is used again gets the same one, most of the time. Towards another backend, that may be one
            // which somebody has yet to prove.
            Some((_, old)) if old.is_snat() && old.addr == to.addr && old.port == to.port => {
                (u16::from_be(old.snat_port()) as u32).wrapping_sub(settings.snat_first)
            }
            // Else the ports of the range take turns, towards each backend by themselves: the next one is that which
            // was lent the longest ago. By ports that a hash chooses, 32 tries are used up where half to two thirds
            // of a range are lent.
            _ => tables.turn(count, 1),
        } % ports;
        // Looked for first and then taken, so that the verifier walks what is little often and what is much once.
        let mut free = false;
        for attempt in 0..PORT_TRIES {
            let port = settings.snat_first + start.wrapping_add(attempt) % ports;
            lent.dst_port = (port as u16).to_be();
            free = is_free(tables, &lent, &row);
            if free {
                break;
            }
        }
        // The next flow need not try these. The number of tries, a constant in each of them, would be walked with all
        // that comes.
        let passed = (u16::from_be(lent.dst_port) as u32).wrapping_sub(settings.snat_first + start);
        if passed != 0 {
            tables.turn(count, passed.wrapping_add(ports) % ports);
        }
        if !free || !take(tables, &lent, &row)? {
            return Err(Stop::NoSnatPort);
        }
    }
    let request = FlowRow {
        bits: flow_bits::SNAT | (to.zone as u32) << flow_bits::ZONE_SHIFT,
        addr: to.addr,
        port: to.port,
        mac: [lent.dst_port, 0, 0],
        ..row.row
    };
    let entered = open::enter(tables, key, request, old());
    if entered.is_err() {
        tables.remove_snat(&lent);
        return entered.map(|()| Next::PASS);
    }
    open::recorded(tables, note, to.service);
    Ok(Step::Translate.into())
}

/// Takes one port for a flow, if nobody has it, or who had it is gone.
#[inline(always)]
fn take<F: Family, T: Tables<F>>(tables: &T, lent: &FlowKey<F>, row: &SnatRow<F>) -> Result<bool, Stop> {
    match tables.insert_snat(lent, row) {
        Ok(()) => return Ok(true),
        Err(InsertError::Full) => return Err(Stop::NoSnatPort),
        Err(InsertError::Exists) => {}
    }
    let Some(held) = tables.snat(lent) else { return Ok(false) };
    let found = held.get();
    // Two may have seen that it is left. One of them has it.
    let ours = found.is_of(row) || is_left(tables, lent, &found) && tables.claim(held, found.row.seen);
    if ours {
        tables.remove_snat(lent);
    }
    Ok(ours && tables.insert_snat(lent, row).is_ok())
}

/// Whether a flow may have a port.
#[inline(always)]
fn is_free<F: Family, T: Tables<F>>(tables: &T, lent: &FlowKey<F>, row: &SnatRow<F>) -> bool {
    let Some(held) = tables.snat(lent) else { return true };
    let found = held.get();
    found.is_of(row) || is_left(tables, lent, &found)
}

/// Whether the flow that has a port is over, or nobody has shown that it is one.
#[inline(always)]
fn is_left<F: Family, T: Tables<F>>(tables: &T, lent: &FlowKey<F>, found: &SnatRow<F>) -> bool {
    let Some(protocol) = Protocol::from_number(lent.protocol as u8) else { return false };
    let now = tables.now();
    found.row.expired(protocol, now, &tables.settings().lifetimes)
        || !found.row.is_proven() && now.wrapping_sub(found.row.seen) > UNPROVEN_TICKS
}

/// The key of a flow's replies, which are sent to the port that it has.
#[inline(always)]
fn lent_to<F: Family, T: Tables<F>>(tables: &T, key: &FlowKey<F>, request: &FlowRow<F>) -> FlowKey<F> {
    flow::twin(&translated(tables, key, request), request.twin_zone())
}

/// The addresses and ports that a request gets.
#[inline(always)]
pub fn translated<F: Family, T: Tables<F>>(tables: &T, key: &FlowKey<F>, request: &FlowRow<F>) -> FlowKey<F> {
    FlowKey {
        src: F::host(tables.settings()),
        src_port: request.snat_port(),
        dst: request.addr,
        dst_port: request.port,
        ..*key
    }
}

/// The addresses and ports that a reply gets.
#[inline(always)]
pub fn returned<F: Family>(key: &FlowKey<F>, held: &SnatRow<F>) -> FlowKey<F> {
    FlowKey { src: held.row.addr, src_port: held.row.port, dst: held.client, dst_port: held.port, ..*key }
}

/// Whether a flow still has its port: of one whose client has proved nothing it may have been taken.
#[inline(always)]
pub fn holds<F: Family, T: Tables<F>>(tables: &T, key: &FlowKey<F>, request: &FlowRow<F>) -> bool {
    tables.snat(&lent_to(tables, key, request)).is_some_and(|held| {
        let held = held.get();
        held.client == key.src && held.port == key.src_port
    })
}

/// Notes a client's packet of a known flow: as [`flow::request`].
#[inline(always)]
pub fn request<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    parsed: &Parsed<F>,
    (row, known): flow::Found<'_, F>,
) {
    let now = tables.now();
    let bits = known.bits | progress(parsed, flow_bits::FIN_CLIENT);
    if known.seen == now && known.bits == bits {
        return;
    }
    FlowRow::touch(row, now);
    FlowRow::set_bits(row, bits);
    let shared = bits & flow_bits::SHARED;
    let lent = lent_to(tables, &parsed.key, &known);
    if let Some(held) = tables.snat(&lent) {
        let row = held.get().row;
        SnatRow::touch(held, now, row.bits | shared);
        if (row.mac, row.ifindex) != (parsed.source, packet.ifindex()) {
            SnatRow::lead_to(held, parsed.source, packet.ifindex());
        }
        return;
    }
    let reply = SnatRow {
        row: FlowRow {
            mac: parsed.source,
            ..flow::reply_row(tables, Hook::UplinkIngress, packet.ifindex(), parsed, &known)
        },
        client: parsed.key.src,
        port: parsed.key.src_port,
        reserved: 0,
    };
    if tables.insert_snat(&lent, &reply).is_ok() {
        tables.count(Event::Rebuilt.into());
    }
}

/// Notes that a flow is over.
#[inline(always)]
pub fn end<F: Family, T: Tables<F>>(tables: &T, key: &FlowKey<F>, request: &FlowRow<F>) {
    if let Some(held) = tables.snat(&lent_to(tables, key, request)) {
        let row = held.get().row;
        SnatRow::touch(held, row.seen, row.bits | flow_bits::RESET);
    }
}

/// Notes that a flow's client has proved itself.
#[inline(always)]
pub fn promote<F: Family, T: Tables<F>>(tables: &T, key: &FlowKey<F>, request: &FlowRow<F>) {
    if tables.insert_flow(Table::Proven, *key, *request, Insert::Replace).is_err() {
        return;
    }
    tables.remove_flow(Table::Unproven, key);
    if let Some(held) = tables.snat(&lent_to(tables, key, request)) {
        SnatRow::touch(held, request.seen, held.get().row.bits | request.bits & flow_bits::SHARED);
    }
    tables.count(Event::Proven.into());
}

/// Notes a packet to a port of the node's that is lent: [`Step::SnatReverse`] takes it then.
#[inline(always)]
pub fn track<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    _: Next,
) -> Result<Next, Stop> {
    let parsed = &noted(tables)?.parsed;
    let key = &parsed.key;
    let held = tables.snat(key).ok_or(Stop::NotOurs)?;
    if hook == Hook::UplinkXdp && !xdp::can_return::<F, P>(packet, &held.get()) {
        return Err(Stop::WrongHook);
    }
    let SnatRow { row: known, client, port, .. } = held.get();
    let now = tables.now();
    if known.expired(parsed.protocol(), now, &tables.settings().lifetimes) {
        return Err(Stop::NotOurs);
    }
    let asked = FlowKey {
        src: client,
        src_port: port,
        dst: known.addr,
        dst_port: known.port,
        zone: known.twin_zone(),
        protocol: key.protocol,
    };
    if !known.is_proven() && parsed.protocol() == Protocol::Tcp {
        expect(packet, tables, parsed, &asked)?;
    }
    let bits = known.bits | flow_bits::ANSWERED | progress(parsed, flow_bits::FIN_BACKEND);
    if known.seen == now && known.bits == bits {
        return Ok(Step::SnatReverse.into());
    }
    SnatRow::touch(held, now, bits);
    let shared = bits & flow_bits::SHARED;
    if let Some((row, request)) = find(tables, &asked) {
        FlowRow::touch(row, now);
        FlowRow::set_bits(row, request.bits | shared);
        return Ok(Step::SnatReverse.into());
    }
    let request = FlowRow {
        bits: shared | flow_bits::SNAT | (key.zone as u32) << flow_bits::ZONE_SHIFT,
        addr: key.src,
        port: key.src_port,
        mac: [key.dst_port, 0, 0],
        ..known
    };
    if tables.insert_flow(request.table(), asked, request, Insert::New).is_ok() {
        tables.count(Event::Rebuilt.into());
    }
    Ok(Step::SnatReverse.into())
}

/// Sends it back to the client.
#[inline(always)]
pub fn reverse<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    _: Next,
) -> Result<Next, Stop> {
    let parsed = &noted(tables)?.parsed;
    let later = hook != Hook::UplinkXdp && parsed.part == Part::Later;
    let lost = if later { Stop::FragmentLost } else { Stop::TableFull };
    let held = tables.snat(&parsed.key).ok_or(lost)?.get();
    if hook == Hook::UplinkXdp && !xdp::can_return::<F, P>(packet, &held) {
        return Err(Stop::WrongHook);
    }
    let onward = forward::to_client(packet, tables, hook, parsed, &held.row)?;
    let form = if hook == Hook::UplinkXdp { Form::Plain } else { Form::Any };
    rewrite::rewrite(packet, parsed, &returned(&parsed.key, &held), &onward, form)?;
    if hook != Hook::UplinkXdp && parsed.part == Part::First {
        hard::keep(tables, parsed, held.row.backend);
    }
    tables.count(Event::Reply.into());
    Ok(onward.way.into())
}

/// How far a packet brings its flow; `fin`: the bit of the side that sent it. [`flow`] has its own where rows are
/// kept: by this one the verifier walks a third more of every program.
#[inline(always)]
fn progress<F: Family>(parsed: &Parsed<F>, fin: u32) -> u32 {
    let finished = if parsed.flags.finishes() { fin } else { 0 };
    let reset = if parsed.flags.resets() { flow_bits::RESET } else { 0 };
    finished | reset
}

impl<F: Family> SnatRow<F> {
    /// Whether it is of the same client's flow to the same frontend.
    #[inline(always)]
    fn is_of(&self, other: &Self) -> bool {
        self.client == other.client
            && self.port == other.port
            && self.row.addr == other.row.addr
            && self.row.port == other.row.port
    }

    /// As [`FlowRow::lead_to`].
    #[inline(always)]
    fn lead_to(held: &Cell<Self>, mac: Mac, ifindex: u32) {
        // SAFETY: as below, and only aligned fields are written, whole.
        FlowRow::lead_to(unsafe { &*held.as_ptr().cast::<Cell<FlowRow<F>>>() }, mac, ifindex);
    }

    /// Writes time and bits, in place.
    #[inline(always)]
    fn touch(held: &Cell<Self>, now: u32, bits: u32) {
        // SAFETY: a live row begins with a flow's, of which only aligned fields are written, whole.
        let row = unsafe { &*held.as_ptr().cast::<Cell<FlowRow<F>>>() };
        FlowRow::touch(row, now);
        FlowRow::set_bits(row, bits);
    }
}
