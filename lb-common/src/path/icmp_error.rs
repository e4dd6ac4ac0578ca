//! Errors of ICMP about packets of flows: who hears one knows the packet as it was before it was translated. So
//! the packet in it is translated back, and the message goes where a packet of the other direction would.

use bytemuck::{Pod, Zeroable};

use super::answer::{Answer, NETWORK, sum};
use super::nat::{self, Nat, snat};
use super::source_guard::{answers_for_another, find_zone, is_another_pod};
use super::step::{Next, Step};
use super::tables::{Tables, state_of};
use super::{egress, flow_table, hook::Hook, packet::Packet, parse::readable, state::Parsed, stop};
use crate::{
    abi::{Event, FlowKey, Stop},
    family::{Address, Family, V4, V6},
    wire::{Icmp, NetworkHeader, Protocol, checksum},
};

/// An error from its network header on, as far as every one goes.
#[repr(C)]
#[derive(Copy, Clone)]
pub struct About<F: Family> {
    ip: F::Header,
    icmp: Icmp,
    pub quote: Quote<F>,
}

/// As much of a packet as every error holds: the network header and 8 bytes (RFC 792).
#[repr(C)]
#[derive(Copy, Clone)]
pub struct Quote<F: Family> {
    pub ip: F::Header,
    /// Ports first.
    pub transport: [u16; 4],
}

const _: () = assert!(size_of::<About<V4>>() == 20 + 8 + 28 && size_of::<About<V6>>() == 40 + 8 + 48);
// SAFETY: repr(C), every field is Pod with alignment 2 at most, and the sizes asserted above are the sums of
// the fields' sizes, so there is no padding.
unsafe impl<F: Family> Zeroable for About<F> {}
// SAFETY: as above.
unsafe impl<F: Family> Pod for About<F> {}
// SAFETY: as above.
unsafe impl<F: Family> Zeroable for Quote<F> {}
// SAFETY: as above.
unsafe impl<F: Family> Pod for Quote<F> {}

impl<F: Family> About<F> {
    /// Bytes behind the network header.
    pub const PAYLOAD: usize = size_of::<Self>() - size_of::<F::Header>();
    /// Offset of the quoted transport header.
    const TRANSPORT: usize = Self::QUOTE + size_of::<F::Header>();
    /// Offset of the message's checksum.
    const CHECK: usize = Self::QUOTE - size_of::<Icmp>() + 2;
    /// Offset of the quoted network header.
    const QUOTE: usize = NETWORK + size_of::<Self>() - size_of::<Quote<F>>();
}

/// Translates an error of ICMP, if it is about a flow of ours. The flow stays as it is: what is said about it proves
/// nothing.
#[inline(always)]
pub fn icmp_error<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    _: Next,
) -> Result<Next, Stop> {
    find_zone(packet, tables, hook, state_of(tables)?);
    let left = translate(packet, tables, hook, &state_of(tables)?.parsed);
    // No error is ever answered by one (RFC 1122 section 3.2.2, RFC 4443 section 2.4).
    Ok(stop::conclude(left, tables, hook).unanswered())
}

/// `parsed` is the packet's other direction.
#[inline(always)]
fn translate<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    parsed: &Parsed<F>,
) -> Result<Next, Stop> {
    let key = &parsed.key;
    let found = flow_table::find(tables, key);
    let allocated = if hook == Hook::UplinkIngress && found.is_none() { tables.snat(key) } else { None };
    let known = match (found, allocated) {
        (Some((_, known)), _) => known,
        (None, Some(row)) => row.get().row,
        (None, None) => return Err(Stop::Protocol),
    };
    let from = packet.load::<F::Header>(NETWORK).ok_or(Stop::Truncated)?.source();
    // One of the flow's two ends; a router on the way otherwise.
    let of_end = from == key.src;
    let at_port = hook == Hook::PortIngress;
    let plan = if known.is_reply() {
        if known.is_direct() || known.expired(parsed.protocol(), tables.now(), &tables.settings().lifetimes) {
            return Err(Stop::Protocol);
        }
        if of_end && at_port && answers_for_another(packet, tables, key.src, &known) {
            return Err(Stop::SpoofedSource);
        }
        egress::to_client(packet, tables, hook, parsed, &known)?
    } else {
        if hook.is_egress() {
            return Err(Stop::WrongHook);
        }
        if flow_table::usable(tables, parsed, &known).is_none() {
            return Err(Stop::Protocol);
        }
        if of_end && at_port && is_another_pod::<F, P, T>(packet, tables, key.src, known.ifindex) {
            return Err(Stop::SpoofedSource);
        }
        if Nat::of(hook, &known) == Nat::Dsr {
            state_of(tables)?.backend.set(known.backend);
            return Ok(Step::Encap.into());
        }
        let (word, _) = tables.backend(known.backend.low).ok_or(Stop::Unsettled)?;
        let next_hop = tables.next_hop(word.next_hop()).ok_or(Stop::Unreachable)?;
        egress::to_backend(packet, tables, hook, parsed, &next_hop, known.is_hairpin())?
    };
    let next = Next::from(plan.way);
    let to = match allocated {
        Some(row) => snat::returned(key, &row.get()),
        None => nat::translated(tables, hook, key, &known),
    };
    let source = if of_end { to.src } else { from };
    // One after the other: both at once do not fit the stack.
    outer::<F, P>(packet, (from, key.dst), (source, to.dst), plan.hop)?;
    quoted(packet, parsed, &to)?;
    if !packet.store(0, &[plan.destination, plan.source]) {
        return Err(Stop::RewriteFailed);
    }
    tables.count(Event::Error.into());
    Ok(next)
}

/// Gives a message new addresses and, if it is routed, one hop less.
#[inline(always)]
fn outer<F: Family, P: Packet>(
    packet: &mut P,
    (old_source, old_destination): (F::Addr, F::Addr),
    (source, destination): (F::Addr, F::Addr),
    hop: bool,
) -> Result<(), Stop> {
    let mut message = packet.load::<Answer<F, Icmp>>(NETWORK).ok_or(Stop::Truncated)?;
    if hop {
        message.ip.take_hop().ok_or(Stop::TtlExceeded)?;
    }
    let addresses =
        checksum::difference(old_source.sum() + old_destination.sum(), source.sum() + destination.sum());
    message.ip.set_addresses(source, destination, addresses);
    if F::ETHERTYPE == V6::ETHERTYPE {
        // ICMPv6's checksum covers them, ICMP's does not.
        message.then.check = checksum::update(message.then.check, addresses);
    }
    packet.replace(NETWORK, &message).then_some(()).ok_or(Stop::RewriteFailed)
}

/// Translates the quoted packet, whose other direction is `parsed` and becomes `to`, and mends the message's
/// checksum.
#[inline(always)]
fn quoted<F: Family, P: Packet>(packet: &mut P, parsed: &Parsed<F>, to: &FlowKey<F>) -> Result<(), Stop> {
    let from = &parsed.key;
    let (old, new) = (from.src.sum() + from.dst.sum(), to.src.sum() + to.dst.sum());
    let all = checksum::difference(old + ports(from), new + ports(to));
    let (mut before, mut after) = (0u64, 0u64);
    if parsed.protocol() == Protocol::Tcp {
        const CHECK: usize = 16;
        let at = About::<F>::TRANSPORT + CHECK;
        let ip = packet.load::<F::Header>(NETWORK).ok_or(Stop::Truncated)?;
        let end = ip.payload(packet.size() - NETWORK as u32) + (NETWORK + size_of::<F::Header>()) as u32;
        if end >= (at + size_of::<u16>()) as u32 {
            let check = readable::<u16, P>(packet, at)?;
            let updated = checksum::update(check, all);
            (before, after) = (check as u64, updated as u64);
            if !packet.replace(at, &updated) {
                return Err(Stop::RewriteFailed);
            }
        }
    }
    let mut quote = packet.load::<Quote<F>>(About::<F>::QUOTE).ok_or(Stop::Truncated)?;
    before += sum(&quote);
    quote.ip.set_addresses(to.dst, to.src, checksum::difference(old, new));
    [quote.transport[0], quote.transport[1]] = [to.dst_port, to.src_port];
    if parsed.protocol() == Protocol::Udp {
        let check = &mut quote.transport[3];
        if *check != 0 {
            *check = match checksum::update(*check, all) {
                0 => 0xffff,
                check => check,
            };
        }
    }
    after += sum(&quote);
    let check = packet.load::<u16>(About::<F>::CHECK).ok_or(Stop::Truncated)?;
    let check = checksum::update(check, checksum::difference(before, after));
    let done = packet.replace(About::<F>::QUOTE, &quote) && packet.replace(About::<F>::CHECK, &check);
    done.then_some(()).ok_or(Stop::RewriteFailed)
}

#[inline(always)]
fn ports<F: Family>(key: &FlowKey<F>) -> u64 {
    key.src_port as u64 + key.dst_port as u64
}
