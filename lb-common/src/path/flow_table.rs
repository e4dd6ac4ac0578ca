//! The flow table: rows where they lie, and how they are found, entered and left to others.

use core::cell::Cell;

use super::tables::{Common, Insert, InsertError, Table, Tables};
use super::{packet::Packet, parse::readable, state::Parsed};
use crate::{
    abi::{BackendWord, FlowKey, FlowRow, FlowState, Stop, flow_bits},
    family::Family,
    wire::{Protocol, TcpFlags},
};

/// A row where it lies, and what it said when it was read.
pub type Found<'a, F> = (&'a Cell<FlowRow<F>>, FlowRow<F>);

/// The row of a tuple, in whichever table it is.
#[inline(always)]
pub fn find<'a, F: Family, T: Tables<F>>(tables: &'a T, key: &FlowKey<F>) -> Option<Found<'a, F>> {
    let row = match tables.flow(Table::Assured, key) {
        Some(row) => row,
        None => tables.flow(Table::Unassured, key)?,
    };
    Some((row, row.get()))
}

impl<F: Family> FlowRow<F> {
    /// The table it is in.
    #[inline(always)]
    pub fn table(&self) -> Table {
        if self.is_assured() { Table::Assured } else { Table::Unassured }
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
        state.keeps(protocol)
    };
    usable.then_some(word)
}

/// The key of the other direction of a packet.
#[inline(always)]
pub fn reverse_key<F: Family>(to: &FlowKey<F>, zone: u16) -> FlowKey<F> {
    FlowKey {
        src: to.dst,
        dst: to.src,
        src_port: to.dst_port,
        dst_port: to.src_port,
        zone,
        protocol: to.protocol,
    }
}

/// How far a packet brings its flow; `fin`: the bits of the side that sent it.
#[inline(always)]
pub fn progress(flags: TcpFlags, fin: u32) -> u32 {
    let finished = if flags.finishes() { fin } else { 0 };
    let reset = if flags.resets() { flow_bits::RESET } else { 0 };
    finished | reset
}

/// Writes the time and the bits that a packet brings its flow to; `None` where that is nothing new.
#[inline(always)]
pub fn advance<F: Family, T: Common>(tables: &T, (row, known): &Found<'_, F>, bits: u32) -> Option<u32> {
    let (now, bits) = (tables.now(), known.bits | bits);
    if known.seen == now && known.bits == bits {
        return None;
    }
    FlowRow::touch(row, now);
    FlowRow::set_bits(row, bits);
    Some(bits)
}

/// Records the request row of a new flow, whose tuple had `old`.
#[inline(always)]
pub fn enter<F: Family, T: Tables<F>>(
    tables: &T,
    key: &FlowKey<F>,
    request: FlowRow<F>,
    old: Option<Found<'_, F>>,
) -> Result<(), Stop> {
    tables.insert_flow(Table::Unassured, *key, request, Insert::Replace).map_err(|_| Stop::TableFull)?;
    if old.is_some_and(|(_, known)| known.is_assured()) {
        // It would be found before the new one.
        tables.remove_flow(Table::Assured, key);
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
pub fn begin_again<F: Family, T: Tables<F>>(
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
    let assured = known.bits & flow_bits::ASSURED;
    for (row, new) in [(twin, reply), (old, request)] {
        FlowRow::touch(row, new.seen);
        FlowRow::set_bits(row, new.bits | assured);
    }
    true
}

/// Whether the reply row that is in the way is this flow's own, or of a flow that is over. `ours` and its
/// own differ in nothing that names the flow: frontend, and which port of the client it stands for.
#[inline(always)]
pub fn gives_way<F: Family, T: Tables<F>>(
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

/// Notes what the client of an unassured TCP flow, whose request's key this is, will acknowledge.
#[inline(always)]
pub fn expect<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    parsed: &Parsed<F>,
    request: &FlowKey<F>,
) -> Result<(), Stop> {
    const SEQUENCE: usize = 4;
    let sequence = readable::<[u16; 2], P>(packet, parsed.transport() + SEQUENCE)?;
    if let Some(proof) = tables.proof(request) {
        proof.set(u32::from_be(bytemuck::cast(sequence)));
    }
    Ok(())
}
