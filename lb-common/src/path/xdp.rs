//! XDP: what is its alone. The program at an uplink sees a packet before the host has made anything of it, and
//! finishes what can leave again by the device that it came in by, or ends there: requests to backends on other
//! nodes and replies to the node's ports, refusals, drops, answers in a service's name.
//!
//! All else it passes on to the program on tc, neither changed nor counted. So what can stand in the way of a packet
//! is looked at before its flow is recorded, and before its first byte is written.

use bytemuck::{Pod, Zeroable};

use super::leave::{is_for_one, leads_back, leads_on};
use super::nat::{self, dsr, snat};
use super::packet::{InPlace, SumKind};
use super::step::{Egress, Next, Step};
use super::tables::{Table, Tables};
use super::{answer::NETWORK, hook::Hook, parse::Frame, prefilter::outsider};
use crate::{
    abi::{Event, FlowKey, FlowRow, Mac, Stop, ZONE_UPLINK, flow_bits},
    family::{Address as _, Family, V6},
    wire::{NetworkHeader as _, Ports, Protocol, TcpFlags, checksum},
};

const HOOK: Hook = Hook::UplinkXdp;

/// A packet's headers with all of TCP's, or as many bytes of UDP's packet.
#[repr(C)]
#[derive(Copy, Clone)]
struct Whole<F: Family> {
    frame: Frame<F>,
    /// What follows the ports.
    rest: [u16; 8],
}

// SAFETY: repr(C), every field is Pod with alignment 2, so there is no padding.
unsafe impl<F: Family> Zeroable for Whole<F> {}
// SAFETY: as above.
unsafe impl<F: Family> Pod for Whole<F> {}

/// Sends a packet of family `F` that is nothing new to its flow's row, which is most of them, in place. All others are
/// read again by [`Step::SlowParse`].
#[inline(always)]
pub fn established<F: Family, P: InPlace, T: Tables<F>>(packet: &mut P, tables: &T) -> Next {
    travel(packet, tables).unwrap_or(Step::SlowParse.into())
}

/// As a flow's row says, if that is all there is to do. What is not as most packets are comes back untouched.
#[inline(always)]
fn travel<F: Family, P: InPlace, T: Tables<F>>(packet: &mut P, tables: &T) -> Option<Next> {
    let Whole { frame, rest } = packet.load::<Whole<F>>(0)?;
    let len = packet.size() - NETWORK as u32;
    frame.ip.check(len).ok()?;
    let mut flags = TcpFlags::default();
    let (header, least) = match Protocol::from_number(frame.ip.protocol())? {
        Protocol::Tcp => {
            let [words, bits] = rest[4].to_ne_bytes();
            flags = TcpFlags(bits);
            ((words >> 4) as u32 * 4, Protocol::Tcp.header_len())
        }
        Protocol::Udp => (u16::from_be(rest[0]) as u32, Protocol::Udp.header_len()),
        Protocol::Sctp => return None,
    };
    if header < least || header > frame.ip.payload(len) {
        return None;
    }
    let mut key = frame.key(ZONE_UPLINK);
    key.join_halves();
    if let Some(stop) = outsider(tables, HOOK, &key) {
        return if stop == Stop::NotOurs { Some(Next::PASS) } else { None };
    }
    let now = tables.now();
    if snat::is_snat_port(tables, &key) {
        const SETTLED: u32 = flow_bits::ASSURED | flow_bits::ANSWERED;
        let held = tables.snat(&key)?.get();
        if !is_for_one(packet) || !is_noted(flags, &held.row, now, SETTLED, flow_bits::FIN_BACKEND) {
            return None;
        }
        if !leads_back(packet, &held) {
            return None;
        }
        send(packet, &key, &snat::returned(&key, &held), held.row.mac).ok()?;
        tables.count(Event::Reply.into());
        return Some(Egress::Device(packet.ifindex()).into());
    }
    let known = tables.flow(Table::Assured, &key)?.get();
    // A row that was used in this tick has not expired.
    let guides = !known.is_reply()
        && !flags.opens()
        && is_noted(flags, &known, now, flow_bits::ASSURED, flow_bits::FIN_CLIENT);
    let (word, backend) = tables.backend(known.backend.low)?;
    if !guides || word.0.generation != known.backend.generation || !word.state().is_active() {
        return None;
    }
    let next_hop = tables.next_hop(word.next_hop())?;
    let own = frame.ethernet.destination;
    if !leads_on(packet, tables, own, backend, &next_hop) {
        return None;
    }
    let bytes = packet.size();
    if known.is_tunnel() {
        dsr::enclose::<F, P, T>(packet, tables, backend.node, [next_hop.mac, own]).ok()?;
        tables.count(Event::Encapsulated.into());
    } else {
        send(packet, &key, &nat::translated(tables, HOOK, &key, &known), next_hop.mac).ok()?;
        tables.count(Event::Request.into());
    }
    tables.account(backend.service, bytes);
    Some(Egress::Device(packet.ifindex()).into())
}

/// Whether a packet is nothing new to its flow's row, which has these bits and was used in this tick. `fin`: the bit
/// of the side that sent it. All else is noted by a step of its own.
#[inline(always)]
fn is_noted<F: Family>(flags: TcpFlags, row: &FlowRow<F>, now: u32, bits: u32, fin: u32) -> bool {
    let finished = if flags.finishes() { fin } else { 0 };
    let reset = if flags.resets() { flow_bits::RESET } else { 0 };
    let bits = bits | finished | reset;
    row.seen == now && row.bits & bits == bits
}

/// Gives a plain packet the addresses and ports of `to` and addresses it to the next hop, from here, one hop less.
/// Nothing is written where there is none left.
#[inline(always)]
fn send<F: Family, P: InPlace>(
    packet: &mut P,
    from: &FlowKey<F>,
    to: &FlowKey<F>,
    next: Mac,
) -> Result<(), Stop> {
    let (old, new) = (from.src.sum() + from.dst.sum(), to.src.sum() + to.dst.sum());
    let frame: &mut Frame<F> = packet.at(0).ok_or(Stop::Truncated)?;
    frame.ip.take_hop().ok_or(Stop::TtlExceeded)?;
    frame.ip.set_addresses(to.src, to.dst, checksum::difference(old, new));
    (frame.ethernet.destination, frame.ethernet.source) = (next, frame.ethernet.destination);
    frame.ports = Ports { source: to.src_port, destination: to.dst_port };
    let protocol = Protocol::from_number(from.protocol as u8).ok_or(Stop::Protocol)?;
    let mended = protocol.checksum_offset().is_none_or(|offset| {
        let ports = |key: &FlowKey<F>| key.src_port as u64 + key.dst_port as u64;
        let difference = checksum::difference(old + ports(from), new + ports(to));
        let kind = SumKind { protocol, pseudo_header: true, ipv6: F::ETHERTYPE == V6::ETHERTYPE };
        packet.update_checksum(Frame::<F>::TRANSPORT + offset, difference, kind)
    });
    mended.then_some(()).ok_or(Stop::RewriteFailed)
}
