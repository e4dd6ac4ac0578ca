//! Established: the short path, of active backends' flows whose clients are known to be real.

use super::parse::{self, TransportSpan};
use super::step::{Next, Step};
use super::tables::{Table, Tables};
use super::{
    flow_table, hook::Hook, nat::dsr, packet::Packet, prefilter::outsider, rewrite::Form, source_guard,
    state::Parsed, translate, zone::zone,
};
use crate::{
    abi::{Stop, ZONE_UPLINK},
    family::Family,
    wire::{Ethernet, NetworkHeader as _},
};

/// Parses a plain, whole packet and sends it on its way, if its flow is assured and its backend active. Functions one
/// after the other, because all in one exceed the stack of a kernel program; known flows are the faster for it.
#[inline(always)]
pub fn established<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    _: Next,
) -> Result<Next, Stop> {
    if packet.tagged() {
        // At an uplink it is for the device of that VLAN, which may have a program of its own.
        return Ok(if hook.is_uplink() { Next::PASS } else { Step::SlowParse.into() });
    }
    let frame = match parse::frame::<F, P>(packet) {
        Ok(frame) => frame,
        // Too short: perhaps a fragment of a byte or two.
        Err(Stop::Truncated | Stop::Fragment | Stop::Options) => return Ok(Step::SlowParse.into()),
        Err(Stop::Protocol) => return Ok(Step::Icmp.into()),
        Err(stop) => return Err(stop),
    };
    // Looked up only where the packet may be ours.
    let mut key = frame.key(ZONE_UPLINK);
    if let Some(stop) = outsider(tables, hook, &key) {
        return Err(stop);
    }
    key.zone = zone(packet, tables, hook)?;
    let payload = frame.ip.payload(packet.size() - size_of::<Ethernet>() as u32);
    let parsed = Parsed::new(packet, &frame.ethernet, key, TransportSpan::plain::<F>(payload))?;
    // By the key where it stays: one more of 40 bytes, and kernel 6.1, which counts in steps of 32, finds "combined stack
    // size of 2 calls is 544".
    let row = tables.flow(Table::Assured, &parsed.key);
    if let Some(row) = row {
        let known = row.get();
        let guides = if known.is_reply() {
            !known.expired(parsed.protocol(), tables.now(), &tables.settings().lifetimes)
        } else {
            !hook.is_egress()
                && flow_table::usable(tables, &parsed, &known).is_some_and(|word| word.state().is_active())
                && !source_guard::is_elsewhere(packet, hook, &known)
        };
        if guides && dsr::is_of(hook, &known) {
            tables.begin(&parsed, true);
            return dsr::aim(packet, tables, hook, &parsed, (row, known));
        }
        if guides {
            let way = translate::go(packet, tables, hook, &parsed, (row, known), Form::Plain, false);
            if let Err(stop) = way
                && !hook.is_egress()
            {
                // [`super::reject`] and [`super::oversized`] may have to know it.
                tables.begin(&parsed, true);
                if stop == Stop::TooBig {
                    return Ok(Step::Oversized.into());
                }
            }
            return way;
        }
    }
    tables.begin(&parsed, row.is_some());
    Ok(Step::Lookup.into())
}
