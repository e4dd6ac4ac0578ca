//! Direct: a client that calls a backend by its own address.

use super::flow_table::{find, is_over, reverse_key};
use super::nat::dnat::translated;
use super::step::{Next, Step};
use super::tables::{Insert, Table, Tables, state_of};
use super::{hook::Hook, packet::Packet, select};
use crate::{
    abi::{FlowKey, FlowRow, Stop, flow_bits},
    family::Family,
    wire::Protocol,
};

/// A client's packet to a backend by its own address. On the backend's side that
/// is the tuple which a flow through a service would have: from the same port of the client both are one
/// connection there. So the call is marked, and later flows through services keep off its tuple; where a
/// flow was there first, the call becomes a flow itself, with another port.
#[inline(always)]
pub fn direct<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    _: Hook,
    _: Next,
) -> Result<Next, Stop> {
    let state = state_of(tables)?;
    let parsed = &state.parsed;
    let protocol = parsed.protocol();
    let key = &parsed.key;
    let reply_key = reverse_key(key, key.zone);
    if let Some((row, known)) = find(tables, &reply_key) {
        if known.is_direct() {
            FlowRow::touch(row, tables.now());
            return Err(Stop::Direct);
        }
        if !is_over(tables, protocol, &known) && protocol != Protocol::Sctp && is_at(tables, &known, key) {
            state.backend.set(known.backend);
            state.port.set(select::other_port(select::slot_hash(key, tables.settings().hash_seed), 0));
            state.attempts.set(select::TRIES as u8);
            return Ok(Step::Open.into());
        }
        tables.remove_flow(known.table(), &reply_key);
    }
    if state.stale.get()
        && let Some((_, old)) = find(tables, key)
    {
        // The call's flow when it had another port. Its replies could make the row of its requests anew.
        tables.remove_flow(old.table(), &reverse_key(&translated(key, &old), old.reverse_zone()));
        tables.remove_flow(old.table(), key);
    }
    let mark = FlowRow {
        backend: state.backend.get(),
        seen: tables.now(),
        bits: flow_bits::REPLY | flow_bits::DIRECT,
        addr: key.dst,
        port: key.dst_port,
        mac: parsed.source,
        ifindex: packet.ifindex(),
    };
    // Without a mark it is as it would be without us.
    let _ = tables.insert_flow(Table::Unassured, reply_key, mark, Insert::Replace);
    Err(Stop::Direct)
}

/// Whether the backend of a reply's row still is the one that is called: its row may be another's by now.
#[inline(always)]
fn is_at<F: Family, T: Tables<F>>(tables: &T, known: &FlowRow<F>, call: &FlowKey<F>) -> bool {
    tables.backend(known.backend.low).is_some_and(|(word, backend)| {
        word.0.generation == known.backend.generation
            && backend.addr == call.dst
            && backend.port == call.dst_port
    })
}
