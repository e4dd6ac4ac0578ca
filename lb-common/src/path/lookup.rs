//! Lookup: what the flow tables know of a packet that the short path could not send on. An unassured flow moves to the
//! assured ones once its client has shown that it hears the backend.

use super::flow_table::{self, expect, reverse_key, take};
use super::nat::{
    self, Nat,
    dnat::{self, translated},
    dsr, snat,
};
use super::source_guard::{find_zone, is_elsewhere, is_spoofed};
use super::state::{PacketState, Parsed};
use super::step::{Next, Step};
use super::tables::{Common, Insert, Table, Tables, prefilter_hash, state_of};
use super::{hook::Hook, leave, packet::Packet, parse::readable, prefilter::is_unassigned, select};
use crate::{
    abi::{BackendState, BackendWord, Event, FlowRow, FlowState, NextHopKind, Stop, flow_bits},
    family::Family,
    wire::Protocol,
};

/// Looks for the rows of a packet's flow: [`Step::Translate`] if there are any, else it may be of a new one.
#[inline(always)]
pub fn lookup<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    asked: Next,
) -> Result<Next, Stop> {
    find_zone(packet, tables, hook, state_of(tables)?);
    let state = state_of(tables)?;
    if hook == Hook::UplinkIngress {
        state.decapsulated.set(asked.is_decapped());
    }
    let parsed = &state.parsed;
    let key = &parsed.key;
    match resume(packet, tables, hook, state)? {
        FlowLookup::Hit => Ok(Step::Translate.into()),
        // The node's address may be a frontend's, too.
        FlowLookup::Miss
            if hook.from_outside() && key.dst == F::host(tables.settings()) && tables.snat(key).is_some() =>
        {
            Ok(Step::SnatTrack.into())
        }
        FlowLookup::StaleCall if !select::is_frontend::<F, T>(tables, key) => {
            state.stale.set(true);
            Ok(Step::Direct.into())
        }
        known if known != FlowLookup::Miss || tables.prefilter(prefilter_hash(key.dst, 0)) => {
            if is_spoofed(packet, tables, hook, key) {
                return Err(Stop::SpoofedSource);
            }
            state.stale.set(known != FlowLookup::Miss);
            Ok(Step::Select.into())
        }
        _ if hook == Hook::PortIngress && tables.prefilter(prefilter_hash(key.dst, key.dst_port)) => {
            let begins = parsed.protocol() != Protocol::Tcp || parsed.flags.opens();
            if begins {
                return Ok(Step::Direct.into());
            }
            let mark = || {
                flow_table::find(tables, &reverse_key(key, key.zone)).is_some_and(|(_, row)| row.is_direct())
            };
            let made = !parsed.flags.resets() || mark();
            Err(if made { Stop::Direct } else { Stop::StrayReset })
        }
        _ => {
            let unassigned = !hook.is_egress() && is_unassigned::<F, T>(tables, key.dst);
            Err(if unassigned { Stop::UnassignedVip } else { Stop::NoFrontend })
        }
    }
}

/// Whether the rows of both tables guide the packet; if not it may be of a new one. Or why it ends here.
#[inline(always)]
fn resume<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    state: &PacketState<F>,
) -> Result<FlowLookup, Stop> {
    let parsed = &state.parsed;
    let table = if state.assured.get() { Table::Assured } else { Table::Unassured };
    let Some(row) = tables.flow(table, &parsed.key) else {
        return if hook.is_egress() { Err(Stop::WrongHook) } else { Ok(FlowLookup::Miss) };
    };
    let known = row.get();
    if known.is_direct() {
        FlowRow::touch(row, tables.now());
        return Err(Stop::Direct);
    }
    if known.is_reply() {
        if hook == Hook::UplinkXdp {
            return Err(Stop::WrongHook);
        }
        answered(packet, tables, parsed, &known)?;
        return Ok(FlowLookup::Hit);
    }
    if hook.is_egress() {
        return Err(Stop::WrongHook);
    }
    let lost_port = Nat::of(hook, &known) == Nat::Snat
        && !known.is_assured()
        && !snat::holds(tables, &parsed.key, &known);
    if lost_port {
        return Ok(FlowLookup::Stale);
    }
    let Some(word) = flow_table::usable(tables, parsed, &known) else {
        let is_call = hook == Hook::PortIngress && known.is_call(&parsed.key);
        return Ok(if is_call { FlowLookup::StaleCall } else { FlowLookup::Stale });
    };
    if parsed.protocol() == Protocol::Tcp && ends(tables, word) {
        nat::end(tables, hook, parsed, (row, known));
        return Err(Stop::BackendGone);
    }
    if hook == Hook::UplinkXdp && !leave::can_send(packet, tables, parsed, known.backend) {
        return Err(Stop::WrongHook);
    }
    if is_elsewhere(packet, hook, &known) {
        if is_spoofed(packet, tables, hook, &parsed.key) {
            return Err(Stop::SpoofedSource);
        }
        move_over(packet, tables, hook, parsed, known)?;
    } else if !known.is_assured() {
        promote(packet, tables, hook, parsed, &known);
    }
    Ok(FlowLookup::Hit)
}

/// Whether a backend's TCP flows end: it is not to take new ones, and has gone or is not to keep those it has. One that
/// would serve may come back: its clients wait.
#[inline(always)]
fn ends<T: Common>(tables: &T, word: BackendWord) -> bool {
    let gone = || {
        tables
            .next_hop(word.next_hop())
            .is_none_or(|next_hop| matches!(next_hop.kind(), NextHopKind::None | NextHopKind::Gone))
    };
    match word.state() {
        BackendState::Active(_) | BackendState::Silent => false,
        BackendState::Reset => true,
        BackendState::Draining | BackendState::Removed | BackendState::Free => gone(),
    }
}

/// What the tables of flows know of a packet.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum FlowLookup {
    /// Its flow.
    Hit,
    /// A flow that is over, or whose backend serves no more.
    Stale,
    /// Such a flow, of a client that called the backend by its own address.
    StaleCall,
    /// Nothing.
    Miss,
}

/// A backend's packet. Of an unassured flow it is noted what a client that hears it will acknowledge.
#[inline(always)]
fn answered<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    parsed: &Parsed<F>,
    known: &FlowRow<F>,
) -> Result<(), Stop> {
    let protocol = parsed.protocol();
    if known.expired(protocol, tables.now(), &tables.settings().lifetimes) {
        return Err(Stop::NotOurs);
    }
    if protocol == Protocol::Tcp {
        expect(packet, tables, parsed, &reverse_key(&translated(&parsed.key, known), known.reverse_zone()))?;
    }
    Ok(())
}

/// Whether a client's packet of an unassured flow shows that it hears the backend: TCP acknowledges what it
/// was sent, others say a second thing after they were answered.
#[inline(always)]
fn assures<F: Family, P: Packet, T: Tables<F>>(
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

/// Moves a flow to the assured ones if the packet shows that its client is real, the reply's row first. Where there is no
/// room it stays where it is.
#[inline(always)]
fn promote<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    parsed: &Parsed<F>,
    known: &FlowRow<F>,
) {
    let nat = Nat::of(hook, known);
    if nat == Nat::Dsr {
        if dsr::assures(parsed) {
            dsr::promote(tables, &parsed.key, known);
        }
        return;
    }
    if !assures(packet, tables, parsed, known) {
        return;
    }
    let request = FlowRow { bits: known.bits | flow_bits::ASSURED, seen: tables.now(), ..*known };
    if nat == Nat::Snat {
        return snat::promote(packet, tables, parsed, &request);
    }
    let reply = dnat::reply_row(tables, hook, packet.ifindex(), parsed, &request);
    let reply_key = reverse_key(&translated(&parsed.key, &request), request.reverse_zone());
    if take(tables, Table::Assured, parsed.protocol(), reply_key, &reply).is_err() {
        return;
    }
    if tables.insert_flow(Table::Assured, parsed.key, request, Insert::Replace).is_err() {
        return tables.remove_flow(Table::Assured, &reply_key);
    }
    tables.remove_flow(Table::Unassured, &parsed.key);
    tables.remove_flow(Table::Unassured, &reply_key);
    tables.count(Event::Assured.into());
}

/// A known flow's client is at another port of its bridge, and nobody knows better: replies go there.
#[inline(always)]
fn move_over<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    hook: Hook,
    parsed: &Parsed<F>,
    known: FlowRow<F>,
) -> Result<(), Stop> {
    let request = FlowRow { mac: parsed.source, ifindex: packet.ifindex(), seen: tables.now(), ..known };
    let reply = dnat::reply_row(tables, hook, packet.ifindex(), parsed, &request);
    let reply_key = reverse_key(&translated(&parsed.key, &request), request.reverse_zone());
    let full = |_| Stop::TableFull;
    tables.insert_flow(known.table(), reply_key, reply, Insert::Replace).map_err(full)?;
    tables.insert_flow(known.table(), parsed.key, request, Insert::Replace).map_err(full)?;
    tables.count(Event::Moved.into());
    Ok(())
}
