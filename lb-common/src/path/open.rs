//! Open: the rows of a new flow, which begins among the unassured ones.

use super::flow_table::{begin_again, enter, find, gives_way, reverse_key, take};
use super::nat::{
    Nat,
    dnat::{client_mac, reply_row, translated},
    dsr,
};
use super::select::{self, recorded};
use super::state::PacketState;
use super::step::{Next, Step};
use super::tables::{Table, Tables, state_of};
use super::{hook::Hook, leave, packet::Packet};
use crate::{
    abi::{BackendRow, FlowRow, Stop, ZONE_OF_CLIENT, flow_bits},
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
    let state = state_of(tables)?;
    if hook == Hook::UplinkXdp && !leave::can_send(packet, tables, &state.parsed, state.backend.get()) {
        return Err(Stop::WrongHook);
    }
    let (_, backend) = tables.backend(state.backend.get().low).ok_or(Stop::Unsettled)?;
    match Nat::to(tables, hook, backend) {
        Nat::Dsr => dsr::record(packet, tables, state, backend)?,
        Nat::Snat => return Ok(Step::SnatAllocate.into()),
        Nat::Dnat => match put(packet, tables, hook, state, backend) {
            Err(Stop::Clash) if (state.attempts.get() as u32) < select::TRIES => {
                return Ok(Step::Select.into());
            }
            recorded => recorded?,
        },
    }
    recorded(tables, state, backend.service);
    Ok(Step::Translate.into())
}

#[inline(always)]
fn put<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    hook: Hook,
    state: &PacketState<F>,
    backend: &BackendRow<F>,
) -> Result<(), Stop> {
    let parsed = &state.parsed;
    let old = if state.stale.get() { find(tables, &parsed.key) } else { None };
    let ifindex = packet.ifindex();
    let protocol = parsed.protocol();
    // SCTP's checksum covers ports.
    let port = if protocol == Protocol::Sctp { 0 } else { state.port.get() };
    let zone = if backend.zone == ZONE_OF_CLIENT { parsed.key.zone } else { backend.zone };
    let hairpin = if backend.addr == parsed.key.src { flow_bits::HAIRPIN } else { 0 };
    let request = FlowRow {
        backend: state.backend.get(),
        seen: tables.now(),
        bits: hairpin | port << flow_bits::PORT_SHIFT | (zone as u32) << flow_bits::ZONE_SHIFT,
        addr: backend.addr,
        port: backend.port,
        mac: client_mac(parsed, hook != Hook::UplinkIngress || !state.decapsulated.get()),
        ifindex,
    };
    let reply = reply_row(tables, hook, ifindex, parsed, &request);
    let reply_key = reverse_key(&translated(&parsed.key, &request), zone);
    if let Some(old) = old
        && begin_again(tables, old, &request, &reply_key, &reply)
    {
        return Ok(());
    }
    // In the way among the assured ones: another flow that lives, or what is over.
    if let Some(found) = tables.flow(Table::Assured, &reply_key) {
        if !gives_way(tables, protocol, &found.get(), &reply) {
            return Err(Stop::Clash);
        }
        tables.remove_flow(Table::Assured, &reply_key);
    }
    take(tables, Table::Unassured, protocol, reply_key, &reply)?;
    let entered = enter(tables, &parsed.key, request, old);
    if entered.is_err() {
        tables.remove_flow(Table::Unassured, &reply_key);
    }
    entered
}
