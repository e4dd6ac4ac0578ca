//! Translate: what the row of a packet's flow makes of it.

use super::{
    dsr, flow, forward, hard,
    hook::Hook,
    parse::Parsed,
    rewrite::{self, Form},
    snat,
    step::{Next, Step},
    tables::{Packet, Tables, noted},
    xdp,
};
use crate::{
    abi::{Event, FlowKey, FlowRow, ReachKind, Stop},
    family::Family,
    wire::Part,
};

/// Carries out what the rows of a packet's flow say.
#[inline(always)]
pub fn translate<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    _: Next,
) -> Result<Next, Stop> {
    let note = noted(tables)?;
    let parsed = &note.parsed;
    // None of them comes to XDP.
    let (first, later) = match hook {
        Hook::UplinkXdp => (false, false),
        _ => (parsed.part == Part::First, parsed.part == Part::Later),
    };
    // What has just been recorded is gone again: the table is that full.
    let gone = if later { Stop::FragmentLost } else { Stop::TableFull };
    let found = flow::find(tables, &parsed.key);
    if later && hook == Hook::UplinkIngress && found.is_none() && tables.snat(&parsed.key).is_some() {
        return Ok(Step::SnatReverse.into());
    }
    let found = found.ok_or(gone)?;
    let backend = found.1.backend;
    if hook == Hook::UplinkXdp && !xdp::can_send(packet, tables, parsed, backend) {
        return Err(Stop::WrongHook);
    }
    // The flow has moved since its packet began.
    if later && backend != note.backend.get() {
        return Err(gone);
    }
    if dsr::is_of(hook, &found.1) {
        if first {
            hard::keep(tables, parsed, backend);
        }
        return dsr::aim(packet, tables, hook, parsed, found);
    }
    let form = if hook == Hook::UplinkXdp { Form::Plain } else { Form::Any };
    let next = go(packet, tables, hook, parsed, found, form)?;
    if first {
        hard::keep(tables, parsed, backend);
    }
    Ok(next)
}

/// The way of a packet whose flow's row is at hand.
#[inline(always)]
pub fn go<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    parsed: &Parsed<F>,
    found: flow::Found<'_, F>,
    form: Form,
) -> Result<Next, Stop> {
    let (_, known) = found;
    let (onward, port);
    if known.is_reply() {
        if hook == Hook::PortIngress && answers_for_another(packet, tables, &known) {
            return Err(Stop::Forged);
        }
        (onward, port) = (forward::to_client(packet, tables, hook, parsed, &known)?, known.ifindex);
        flow::reply(tables, parsed, found);
    } else if hook.is_egress() {
        return Err(Stop::WrongHook);
    } else {
        flow::request(packet, tables, hook, parsed, found);
        let (word, backend) = tables.backend(known.backend.low).ok_or(Stop::Unsettled)?;
        let reach = tables.reach(word.reach()).ok_or(Stop::Unreachable)?;
        onward = forward::to_backend(packet, tables, hook, parsed, &reach, known.is_hairpin())?;
        port = reach.ifindex;
        tables.account(backend.service, packet.size());
    }
    if !hook.is_egress() && forward::is_too_big(packet, tables, onward.way, port) {
        return Err(Stop::TooBig);
    }
    let to = translated(tables, hook, &parsed.key, &known);
    rewrite::rewrite(packet, parsed, &to, &onward, form)?;
    let event = if known.is_reply() { Event::Reply } else { Event::Request };
    tables.count(event.into());
    Ok(onward.way.into())
}

/// The addresses and ports that a packet gets.
#[inline(always)]
pub fn translated<F: Family, T: Tables<F>>(
    tables: &T,
    hook: Hook,
    key: &FlowKey<F>,
    row: &FlowRow<F>,
) -> FlowKey<F> {
    if snat::is_of(hook, row) { snat::translated(tables, key, row) } else { flow::translated(key, row) }
}

/// Whether a reply comes in by another port than that of the flow's backend.
#[inline(always)]
pub fn answers_for_another<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    known: &FlowRow<F>,
) -> bool {
    let Some((word, _)) = tables.backend(known.backend.low) else { return false };
    let Some(reach) = tables.reach(word.reach()) else { return false };
    word.0.generation == known.backend.generation
        && matches!(reach.kind(), ReachKind::Peer | ReachKind::Bridge)
        && reach.ifindex != packet.ifindex()
}
