//! Translate: what the row of a packet's flow makes of it.

use super::flow_table::{self, Found};
use super::nat::{self, dnat, dsr};
use super::rewrite::{self, Form};
use super::step::{Next, Step};
use super::tables::{Tables, state_of};
use super::{
    egress, fragments, hook::Hook, leave, packet::Packet, source_guard::answers_for_another, state::Parsed,
};
use crate::{
    abi::{Event, Stop},
    family::Family,
    wire::FragmentKind,
};

/// Carries out what the rows of a packet's flow say.
#[inline(always)]
pub fn translate<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    _: Next,
) -> Result<Next, Stop> {
    let state = state_of(tables)?;
    let parsed = &state.parsed;
    // None of them comes to XDP.
    let (first, later) = match hook {
        Hook::UplinkXdp => (false, false),
        _ => (parsed.fragment == FragmentKind::First, parsed.fragment == FragmentKind::Later),
    };
    // What has just been recorded is gone again: the table is that full.
    let gone = if later { Stop::FragmentLost } else { Stop::TableFull };
    let found = flow_table::find(tables, &parsed.key);
    if later && hook == Hook::UplinkIngress && found.is_none() && tables.snat(&parsed.key).is_some() {
        return Ok(Step::SnatReverse.into());
    }
    let found = found.ok_or(gone)?;
    let backend = found.1.backend;
    if hook == Hook::UplinkXdp && !leave::can_send(packet, tables, parsed, backend) {
        return Err(Stop::WrongHook);
    }
    // The flow has moved since its packet began.
    if later && backend != state.backend.get() {
        return Err(gone);
    }
    if dsr::is_of(hook, &found.1) {
        if first {
            fragments::keep(tables, parsed, backend, false);
        }
        return dsr::aim(packet, tables, hook, parsed, found);
    }
    let form = if hook == Hook::UplinkXdp { Form::Plain } else { Form::Any };
    let next = go(packet, tables, hook, parsed, found, form, later && state.to_stack.get());
    let is_too_big = next == Err(Stop::TooBig);
    if first && (is_too_big || next.is_ok()) {
        fragments::keep(tables, parsed, backend, is_too_big);
    }
    if is_too_big { Ok(Step::Oversized.into()) } else { next }
}

/// The way of a packet whose flow's row is at hand. `to_stack`: by way of the host's stack, whatever its size.
#[inline(always)]
pub fn go<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    parsed: &Parsed<F>,
    found: Found<'_, F>,
    form: Form,
    to_stack: bool,
) -> Result<Next, Stop> {
    let (_, known) = found;
    let (plan, port);
    if known.is_reply() {
        if hook == Hook::PortIngress && answers_for_another(packet, tables, parsed.key.src, &known) {
            return Err(Stop::SpoofedSource);
        }
        (plan, port) = (egress::to_client(packet, tables, hook, parsed, &known)?, known.ifindex);
        dnat::reply(tables, parsed, found);
    } else if hook.is_egress() {
        return Err(Stop::WrongHook);
    } else {
        nat::request(packet, tables, hook, parsed, found);
        let (word, backend) = tables.backend(known.backend.low).ok_or(Stop::Unsettled)?;
        let next_hop = tables.next_hop(word.next_hop()).ok_or(Stop::Unreachable)?;
        plan = egress::to_backend(packet, tables, hook, parsed, &next_hop, known.is_hairpin())?;
        port = next_hop.ifindex;
        tables.account(backend.service, packet.size());
    }
    if !hook.is_egress() && (to_stack || egress::is_too_big(packet, tables, plan.way, port)) {
        return Err(Stop::TooBig);
    }
    let to = nat::translated(tables, hook, &parsed.key, &known);
    rewrite::rewrite(packet, parsed, &to, &plan, form)?;
    let event = if known.is_reply() { Event::Reply } else { Event::Request };
    tables.count(event.into());
    Ok(plan.way.into())
}
