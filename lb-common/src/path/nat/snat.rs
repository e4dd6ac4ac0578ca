//! SNAT: a client outside whose backend is on another node is shown to it as this node, so that the replies
//! come back here. Each such flow has a port of the node's; taking one is inserting the row of its replies
//! where there is none, in a table that never evicts.

use core::cell::Cell;

use super::super::flow_table::{Found, advance, expect, find, progress, reverse_key};
use super::super::rewrite::{self, Form};
use super::super::step::{Next, Step};
use super::super::tables::{Insert, Table, Tables, state_of};
use super::super::{egress, fragments, hook::Hook, leave, packet::Packet, state::Parsed};
use super::dnat;
use crate::{
    abi::{BackendRow, BackendWord, Event, FlowKey, FlowRow, Mac, NextHopKind, SnatRow, Stop, flow_bits},
    family::{Address as _, Family},
    wire::{FragmentKind, Protocol},
};

/// Whether a request row is of a flow that has a port of the node's: only where packets come from outside.
#[inline(always)]
pub fn is_of<F: Family>(hook: Hook, request: &FlowRow<F>) -> bool {
    hook.from_outside() && request.is_snat()
}

/// Whether a packet is to a port of the node's that may be allocated.
#[inline(always)]
pub fn is_snat_port<F: Family, T: Tables<F>>(tables: &T, key: &FlowKey<F>) -> bool {
    let settings = tables.settings();
    let port = (u16::from_be(key.dst_port) as u32).wrapping_sub(settings.snat_first);
    port < settings.snat_ports && key.dst == F::host(settings)
}

/// Whether a flow to a backend needs a port of the node's.
#[inline(always)]
pub fn is_needed<F: Family, T: Tables<F>>(tables: &T, hook: Hook, backend: &BackendRow<F>) -> bool {
    let settings = tables.settings();
    if !hook.from_outside() || settings.snat_ports == 0 || F::host(settings) == F::Addr::ZERO {
        return false;
    }
    let next_hop = tables.next_hop(BackendWord(backend.word).next_hop());
    next_hop.is_some_and(|next_hop| next_hop.kind() == NextHopKind::Uplink)
}

/// The key of a flow's replies, which are sent to the port that it has.
#[inline(always)]
fn reply_key<F: Family, T: Tables<F>>(tables: &T, key: &FlowKey<F>, request: &FlowRow<F>) -> FlowKey<F> {
    reverse_key(&translated(tables, key, request), request.reverse_zone())
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
    tables.snat(&reply_key(tables, key, request)).is_some_and(|held| {
        let held = held.get();
        held.client == key.src && held.port == key.src_port
    })
}

/// Notes a client's packet of a known flow: as [`dnat::request`].
#[inline(always)]
pub fn request<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    parsed: &Parsed<F>,
    found: Found<'_, F>,
) {
    let bits = progress(parsed.flags, flow_bits::FIN_CLIENT);
    let Some(bits) = advance(tables, &found, bits) else { return };
    let (now, known) = (tables.now(), found.1);
    let shared = bits & flow_bits::SHARED;
    let allocated = reply_key(tables, &parsed.key, &known);
    if let Some(held) = tables.snat(&allocated) {
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
            ..dnat::reply_row(tables, Hook::UplinkIngress, packet.ifindex(), parsed, &known)
        },
        client: parsed.key.src,
        port: parsed.key.src_port,
        reserved: 0,
    };
    if tables.insert_snat(&allocated, &reply).is_ok() {
        tables.count(Event::Rebuilt.into());
    }
}

/// Notes that a flow is over.
#[inline(always)]
pub fn end<F: Family, T: Tables<F>>(tables: &T, key: &FlowKey<F>, request: &FlowRow<F>) {
    if let Some(held) = tables.snat(&reply_key(tables, key, request)) {
        let row = held.get().row;
        SnatRow::touch(held, row.seen, row.bits | flow_bits::RESET);
    }
}

/// Notes that a flow's client has proved itself, and where it is.
#[inline(always)]
pub fn promote<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    parsed: &Parsed<F>,
    request: &FlowRow<F>,
) {
    let key = &parsed.key;
    if tables.insert_flow(Table::Assured, *key, *request, Insert::Replace).is_err() {
        return;
    }
    tables.remove_flow(Table::Unassured, key);
    if let Some(held) = tables.snat(&reply_key(tables, key, request)) {
        SnatRow::touch(held, request.seen, held.get().row.bits | request.bits & flow_bits::SHARED);
        SnatRow::lead_to(held, parsed.source, packet.ifindex());
    }
    tables.count(Event::Assured.into());
}

/// Notes a packet to a port of the node's that is allocated: [`Step::SnatReverse`] takes it then.
#[inline(always)]
pub fn track<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    _: Next,
) -> Result<Next, Stop> {
    let parsed = &state_of(tables)?.parsed;
    let key = &parsed.key;
    let held = tables.snat(key).ok_or(Stop::NotOurs)?;
    if hook == Hook::UplinkXdp && !leave::can_return::<F, P>(packet, &held.get()) {
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
        zone: known.reverse_zone(),
        protocol: key.protocol,
    };
    if !known.is_assured() && parsed.protocol() == Protocol::Tcp {
        expect(packet, tables, parsed, &asked)?;
    }
    let bits = known.bits | flow_bits::ANSWERED | progress(parsed.flags, flow_bits::FIN_BACKEND);
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
    let state = state_of(tables)?;
    let parsed = &state.parsed;
    let later = hook != Hook::UplinkXdp && parsed.fragment == FragmentKind::Later;
    let lost = if later { Stop::FragmentLost } else { Stop::TableFull };
    let held = tables.snat(&parsed.key).ok_or(lost)?.get();
    if hook == Hook::UplinkXdp && !leave::can_return::<F, P>(packet, &held) {
        return Err(Stop::WrongHook);
    }
    let plan = egress::to_client(packet, tables, hook, parsed, &held.row)?;
    let to_stack = hook != Hook::UplinkXdp
        && (later && state.to_stack.get() || egress::is_too_big(packet, tables, plan.way, 0));
    if hook != Hook::UplinkXdp && parsed.fragment == FragmentKind::First {
        fragments::keep(tables, parsed, held.row.backend, to_stack);
    }
    if to_stack {
        return Ok(Step::Oversized.into());
    }
    let form = if hook == Hook::UplinkXdp { Form::Plain } else { Form::Any };
    rewrite::rewrite(packet, parsed, &returned(&parsed.key, &held), &plan, form)?;
    tables.count(Event::Reply.into());
    Ok(plan.way.into())
}

impl<F: Family> SnatRow<F> {
    /// As [`FlowRow::lead_to`].
    #[inline(always)]
    fn lead_to(held: &Cell<Self>, mac: Mac, ifindex: u32) {
        // SAFETY: as below, and only aligned fields are written, whole.
        FlowRow::lead_to(unsafe { &*held.as_ptr().cast::<Cell<FlowRow<F>>>() }, mac, ifindex);
    }

    /// Writes time and bits, in place.
    #[inline(always)]
    pub fn touch(held: &Cell<Self>, now: u32, bits: u32) {
        // SAFETY: a live row begins with a flow's, of which only aligned fields are written, whole.
        let row = unsafe { &*held.as_ptr().cast::<Cell<FlowRow<F>>>() };
        FlowRow::touch(row, now);
        FlowRow::set_bits(row, bits);
    }
}
