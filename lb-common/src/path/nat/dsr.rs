//! DSR: a client outside whose backend is on another node is passed on to that node, its packets as they are but for
//! a hop, each inside another (RFC 2003, RFC 2473). There they are taken out and handled as if they had come there
//! by themselves; the replies go straight to the client. So here is a row of requests and none of replies.

use super::super::flow_table::{Found, advance, enter, find, progress};
use super::super::state::{PacketState, Parsed};
use super::super::step::{Egress, Next, Step};
use super::super::tables::{Common, Insert, Table, Tables, prefilter_hash, state_of};
use super::super::{answer::NETWORK, egress, hook::Hook, packet::Packet, parse::readable, select, stop};
use crate::{
    abi::{BackendRow, Event, FlowKey, FlowRow, Mac, Stop, flow_bits},
    family::{Address as _, Family, V6},
    wire::{NetworkHeader as _, Protocol},
};

/// Whether a request row is of a flow that is passed on so: only where packets come from outside.
#[inline(always)]
pub fn is_of<F: Family>(hook: Hook, request: &FlowRow<F>) -> bool {
    hook.from_outside() && request.is_tunnel()
}

/// Whether a flow to a backend is to be passed on so.
#[inline(always)]
pub fn is_needed<F: Family>(hook: Hook, backend: &BackendRow<F>) -> bool {
    hook.from_outside() && backend.node != F::Addr::ZERO
}

/// Records a new flow to the backend that was noted.
#[inline(always)]
pub fn record<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    state: &PacketState<F>,
    backend: &BackendRow<F>,
) -> Result<(), Stop> {
    let key = &state.parsed.key;
    let old = if state.stale.get() { find(tables, key) } else { None };
    let row = FlowRow {
        backend: state.backend.get(),
        seen: tables.now(),
        bits: flow_bits::TUNNEL,
        addr: backend.addr,
        port: backend.port,
        mac: state.parsed.source,
        ifindex: packet.ifindex(),
    };
    enter(tables, key, row, old)
}

/// Notes a client's packet of a known flow, which [`send`] takes then.
#[inline(always)]
pub fn aim<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    hook: Hook,
    parsed: &Parsed<F>,
    found: Found<'_, F>,
) -> Result<Next, Stop> {
    let to = found.1.backend;
    let (_, backend) = tables.backend(to.low).ok_or(Stop::Unsettled)?;
    if hook != Hook::UplinkXdp {
        tables.account(backend.service, packet.size());
    }
    state_of(tables)?.backend.set(to);
    keep(tables, parsed, found);
    Ok(Step::Encap.into())
}

/// Keeps the row of a flow. What the backend sends is not seen: the flow ends with the client's last word.
#[inline(always)]
pub fn keep<F: Family, T: Tables<F>>(tables: &T, parsed: &Parsed<F>, found: Found<'_, F>) {
    const FINISHED: u32 = flow_bits::FIN_CLIENT | flow_bits::FIN_BACKEND;
    advance(tables, &found, progress(parsed.flags, FINISHED));
}

/// Whether a packet of an unassured flow, which is not its first, shows that the client is real, as far as that can
/// be seen without the backend's answers: TCP acknowledges something.
#[inline(always)]
pub fn assures<F: Family>(parsed: &Parsed<F>) -> bool {
    let flags = parsed.flags;
    parsed.protocol() != Protocol::Tcp || flags.acknowledges() && !flags.opens() && !flags.resets()
}

/// Moves a flow to the assured ones. Where there is no room it stays where it is.
#[inline(always)]
pub fn promote<F: Family, T: Tables<F>>(tables: &T, key: &FlowKey<F>, known: &FlowRow<F>) {
    let bits = known.bits | flow_bits::ASSURED | flow_bits::ANSWERED;
    let request = FlowRow { bits, seen: tables.now(), ..*known };
    if tables.insert_flow(Table::Assured, *key, request, Insert::Replace).is_err() {
        return;
    }
    tables.remove_flow(Table::Unassured, key);
    tables.count(Event::Assured.into());
}

/// Sends the packet to the node of the backend that was noted.
#[inline(always)]
pub fn encap<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    _: Next,
) -> Result<Next, Stop> {
    let next = stop::conclude(send(packet, tables, hook, state_of(tables)?), tables, hook);
    // As in [`super::super::icmp_error`], which some of them have come from.
    Ok(if next == Step::Reject && is_message::<F, P>(packet) { next.unanswered() } else { next })
}

#[inline(always)]
fn send<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    state: &PacketState<F>,
) -> Result<Next, Stop> {
    let parsed = &state.parsed;
    let here = F::host(tables.settings());
    let (word, backend) = tables.backend(state.backend.get().low).ok_or(Stop::Unsettled)?;
    if here == F::Addr::ZERO || backend.node == F::Addr::ZERO {
        return Err(Stop::Unreachable);
    }
    let next_hop = tables.next_hop(word.next_hop()).ok_or(Stop::Unreachable)?;
    let plan = egress::to_backend(packet, tables, hook, parsed, &next_hop, false)?;
    let device = match plan.way {
        Egress::Device(device) | Egress::Neighbour(device) => device,
        // A pod takes everything.
        Egress::Peer(_) => 0,
        Egress::Continue => return Err(Stop::Unreachable),
    };
    let outer = size_of::<F::Header>() as u32;
    let mtu = packet.mtu(device);
    if mtu != 0 && size(packet, parsed)? + outer > mtu {
        state.mtu.set(mtu.saturating_sub(outer));
        return Err(Stop::TooBig);
    }
    let bytes = packet.size();
    let enclosed = enclose::<F, P, T>(packet, tables, backend.node, [plan.destination, plan.source]);
    if hook == Hook::UplinkXdp {
        // A frame without room is left to tc, which accounts it.
        enclosed.map_err(|_| Stop::WrongHook)?;
        tables.account(backend.service, bytes);
    }
    enclosed?;
    tables.count(Event::Encapsulated.into());
    Ok(plan.way.into())
}

/// Puts a packet into one to a backend's node, between these MACs; its own has one hop less. Nothing is written where
/// there is none left or no room.
#[inline(always)]
pub fn enclose<F: Family, P: Packet, T: Common>(
    packet: &mut P,
    tables: &T,
    node: F::Addr,
    macs: [Mac; 2],
) -> Result<(), Stop> {
    let mut ip = packet.load::<F::Header>(NETWORK).ok_or(Stop::Truncated)?;
    let difference = ip.take_hop().ok_or(Stop::TtlExceeded)?;
    if !packet.wrap::<F>(&ip.around(F::host(tables.settings()), node)) {
        return Err(Stop::RewriteFailed);
    }
    if F::ETHERTYPE == V6::ETHERTYPE {
        packet.update_sum(difference);
    }
    let written = packet.store(NETWORK + size_of::<F::Header>(), &ip) && packet.store(0, &macs);
    written.then_some(()).ok_or(Stop::RewriteFailed)
}

/// Bytes of the packet from its network header on, or of the largest part that it is to be segmented into.
#[inline(always)]
fn size<F: Family, P: Packet>(packet: &mut P, parsed: &Parsed<F>) -> Result<u32, Stop> {
    let fragment = packet.segment();
    if fragment == 0 {
        return Ok(packet.size() - NETWORK as u32);
    }
    let mut header = parsed.protocol().header_len();
    if parsed.protocol() == Protocol::Tcp {
        const DATA_OFFSET: usize = 12;
        header = (readable::<u8, P>(packet, parsed.transport() + DATA_OFFSET)? >> 4) as u32 * 4;
    }
    Ok((parsed.transport() - NETWORK) as u32 + header + fragment)
}

/// Whether the packet is a message of ICMP.
#[inline(always)]
fn is_message<F: Family, P: Packet>(packet: &P) -> bool {
    packet.load::<F::Header>(NETWORK).is_some_and(|ip| ip.protocol() == F::Header::ICMP)
}

/// Takes a packet out of the one that another node has sent it in: it begins anew then. Others are untouched: the host
/// may have a tunnel of its own. Ours are to an address that frontends have.
#[inline(always)]
pub fn decap<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    _: Hook,
    _: Next,
) -> Result<Next, Stop> {
    Ok(if unwrap(packet, tables) { Step::Established } else { Step::Icmp }.into())
}

#[inline(always)]
fn unwrap<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T) -> bool {
    let Ok([outer, inner]) = readable::<[F::Header; 2], P>(packet, NETWORK) else { return false };
    let here = F::host(tables.settings());
    if here == F::Addr::ZERO || outer.destination() != here || outer.protocol() != F::Header::INSIDE {
        return false;
    }
    let len = packet.size() - NETWORK as u32;
    if outer.check(len).is_err() || inner.layers(outer.payload(len)).is_err() {
        return false;
    }
    let to = inner.destination();
    let ours = tables.prefilter(prefilter_hash(to, 0)) && select::address::<F, T>(tables, to).is_some();
    if !ours || !packet.unwrap::<F>() {
        return false;
    }
    tables.count(Event::Decapsulated.into());
    true
}
