//! Oversized: what is too big for the device that it leaves by. A router fragments it where it may be fragmented, which
//! the host's stack does: it gets the packet translated, and finds its way by itself. All else is refused.

use super::answer::NETWORK;
use super::egress::EgressPlan;
use super::nat::{self, snat};
use super::rewrite::{self, Form};
use super::step::{Egress, Next};
use super::tables::{Tables, state_of};
use super::{flow_table, hook::Hook, packet::Packet, select, state::Parsed};
use crate::{
    abi::{BackendRef, Event, FlowKey, Mac, Stop, bridge_zone},
    family::Family,
    wire::NetworkHeader as _,
};

/// Hands the packet that was noted to the host's stack, or says that it is too big.
#[inline(always)]
pub fn oversized<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    _: Next,
) -> Result<Next, Stop> {
    let parsed = &state_of(tables)?.parsed;
    let mut ip = packet.load::<F::Header>(NETWORK).ok_or(Stop::Truncated)?;
    // The bridge's tag is none of the stack's.
    if !ip.may_be_fragmented() || parsed.tagged {
        return Err(Stop::TooBig);
    }
    // Else the stack would tell the frontend.
    ip.take_hop().ok_or(Stop::TtlExceeded)?;
    let (to, event, destination) = heading(tables, hook, parsed)?;
    // A packet that comes in from one of the host's own addresses is dropped by the stack (a martian source).
    if to.src != parsed.key.src && !select::is_owned::<F, T>(tables, to.src) {
        return Err(Stop::TooBig);
    }
    let plan = EgressPlan { way: Egress::Continue, destination, source: parsed.source, hop: false };
    rewrite::rewrite(packet, parsed, &to, &plan, Form::Any)?;
    tables.count(event.into());
    Ok(plan.way.into())
}

/// What the packet becomes, as what it counts, and the MAC that has the stack take it.
#[inline(always)]
fn heading<F: Family, T: Tables<F>>(
    tables: &T,
    hook: Hook,
    parsed: &Parsed<F>,
) -> Result<(FlowKey<F>, Event, Mac), Stop> {
    let key = &parsed.key;
    let Some((_, known)) = flow_table::find(tables, key) else {
        let held = tables.snat(key).ok_or(Stop::TooBig)?.get();
        return Ok((snat::returned(key, &held), Event::Reply, parsed.destination));
    };
    let to = nat::translated(tables, hook, key, &known);
    if !known.is_reply() {
        return Ok((to, Event::Request, parsed.destination));
    }
    Ok((to, Event::Reply, bridge_of(tables, parsed, known.backend).unwrap_or(parsed.destination)))
}

/// The MAC of the bridge that a backend is on, if it is the one of this hook: its router may be another than this host.
#[inline(always)]
fn bridge_of<F: Family, T: Tables<F>>(tables: &T, parsed: &Parsed<F>, backend: BackendRef) -> Option<Mac> {
    let (word, _) = tables.backend(backend.low)?;
    let next_hop = tables.next_hop(word.next_hop())?;
    let is_here = next_hop.bridge != 0 && bridge_zone(next_hop.bridge) == parsed.key.zone;
    is_here.then_some(next_hop.host_mac)
}
