//! Turn: the path of the XDP program at an uplink. It sees a packet before the host has made anything of it, and
//! finishes what can leave again by the device that it came in by, or ends there: requests to backends on other
//! nodes and replies to the ports lent for them, refusals, drops, answers in a service's name.
//!
//! All else it passes on to the program on tc, neither changed nor counted. So what can stand in the way of a packet
//! is looked at before its flow is recorded, and before its first byte is written. It has the steps of
//! [`super`]; what they find is concluded differently.

use bytemuck::{Pod, Zeroable};

use super::{
    Common, Hook, InPlace, Note, Packet, Parsed, SumKind, Table, Tables, Verdict, Way,
    answer::NETWORK,
    dsr,
    flow::{self, Found},
    forward, look, neighbour, noted, outsider,
    parse::{self, Frame, Place},
    snat, verdict,
};
use crate::{
    abi::{
        BackendRef, BackendRow, Counter, FlowKey, FlowRow, Mac, ReachKind, ReachRow, SnatRow, flow_bits,
        is_known,
    },
    family::{Address as _, Family, V6},
    wire::{Ethernet, NetworkHeader as _, Ports, Protocol, TcpFlags, checksum},
};

const HOOK: Hook = Hook::UplinkXdp;

/// Sends a packet of family `F` that is nothing new to its flow's row: most of them. Others come back with
/// [`Verdict::Hard`].
#[inline(always)]
pub fn run<F: Family, P: InPlace, T: Tables<F>>(packet: &mut P, tables: &T) -> Verdict {
    travel(packet, tables).unwrap_or(Verdict::Hard)
}

/// Notes what is known of a packet that came back with [`Verdict::Hard`]; [`resume`] takes it then.
#[inline(always)]
pub fn read<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T) -> Verdict {
    let way = parse(packet, tables);
    if matches!(way, Err(Counter::Protocol)) {
        return Verdict::Message;
    }
    conclude(way, tables)
}

/// As [`super::resume`].
#[inline(always)]
pub fn resume<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T) -> Verdict {
    conclude(noted(tables, |note| look(packet, tables, HOOK, note)), tables)
}

/// As [`super::open`].
#[inline(always)]
pub fn open<F: Family, T: Tables<F>>(tables: &T) -> Verdict {
    let chosen = noted(tables, |note| super::open::choose(tables, note));
    conclude(chosen.map(|chosen| if chosen { Verdict::Record } else { Verdict::Open }), tables)
}

/// As [`super::record`], if the packet can be sent to its backend from here.
#[inline(always)]
pub fn record<F: Family, P: Packet, T: Tables<F>>(packet: &P, tables: &T) -> Verdict {
    let recorded = noted(tables, |note| {
        if !can_send(packet, tables, &note.parsed, note.backend.get()) {
            return Err(Counter::WrongHook);
        }
        super::open::record(packet, tables, HOOK, note)
    });
    conclude(recorded, tables)
}

/// As [`super::lend`].
#[inline(always)]
pub fn lend<F: Family, P: Packet, T: Tables<F>>(packet: &P, tables: &T) -> Verdict {
    let lent = noted(tables, |note| snat::lend(packet, tables, note));
    conclude(lent.map(|()| Verdict::Finish), tables)
}

/// As [`super::heard`], if the packet can be sent to its client from here.
#[inline(always)]
pub fn heard<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T) -> Verdict {
    let heard = noted(tables, |note: &Note<F>| {
        let held = tables.snat(&note.parsed.key).ok_or(Counter::NotOurs)?;
        if !can_hop::<F, P>(packet) || !leads_back(packet, &held.get()) {
            return Err(Counter::WrongHook);
        }
        snat::heard(packet, tables, &note.parsed)
    });
    conclude(heard, tables)
}

/// As [`super::deliver`].
#[inline(always)]
pub fn deliver<F: Family, P: InPlace, T: Tables<F>>(packet: &mut P, tables: &T) -> Verdict {
    let delivered = noted(tables, |note| {
        let held = tables.snat(&note.parsed.key).ok_or(Counter::TableFull)?.get();
        give_back(packet, tables, &note.parsed.key, &held)
    });
    conclude(delivered, tables)
}

/// As [`super::finish`].
#[inline(always)]
pub fn finish<F: Family, P: InPlace, T: Tables<F>>(packet: &mut P, tables: &T) -> Verdict {
    let finished = noted(tables, |note| {
        // What has just been recorded is gone again: the table is that full.
        let found = flow::find(tables, &note.parsed.key).ok_or(Counter::TableFull)?;
        go(packet, tables, &note.parsed, found)
    });
    conclude(finished, tables)
}

/// As [`super::message`]. Errors about packets of flows are left to tc.
#[inline(always)]
pub fn message<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T) -> Verdict {
    match conclude(super::message::sort(packet, tables, HOOK), tables) {
        Verdict::Error => Verdict::Pass,
        other => other,
    }
}

/// As [`super::answer_arp`].
#[inline(always)]
pub fn answer_arp<P: Packet, T: Common>(packet: &mut P, tables: &T) -> Verdict {
    let outcome = neighbour::arp(packet, tables);
    answered(packet, tables, outcome)
}

/// As [`super::answer_solicitation`].
#[inline(always)]
pub fn answer_solicitation<P: Packet, T: Common>(packet: &mut P, tables: &T) -> Verdict {
    let outcome = neighbour::solicitation(packet, tables);
    answered(packet, tables, outcome)
}

/// All of these functions, one after the other; as [`super::decide`].
pub fn decide<F: Family, P: InPlace, T: Tables<F>>(packet: &mut P, tables: &T) -> Verdict {
    let mut verdict = run(packet, tables);
    loop {
        verdict = match verdict {
            Verdict::Hard => read(packet, tables),
            Verdict::Resume => resume(packet, tables),
            Verdict::Open => open(tables),
            Verdict::Record => record(packet, tables),
            Verdict::Lend => lend(packet, tables),
            Verdict::Heard => heard(packet, tables),
            Verdict::Deliver => deliver(packet, tables),
            Verdict::Finish => finish(packet, tables),
            Verdict::Message => message(packet, tables),
            last => return last,
        }
    }
}

/// Only what ends here is counted: tc counts what it is left.
#[inline(always)]
fn conclude<T: Common>(way: Result<Verdict, Counter>, tables: &T) -> Verdict {
    way.unwrap_or_else(|stop| match verdict(stop) {
        // Whoever says so is a router, which the host's side is.
        Verdict::Reject(Counter::TtlExceeded | Counter::TooBig) => Verdict::Pass,
        end @ (Verdict::Drop(_) | Verdict::Reject(_)) => {
            tables.count(stop);
            end
        }
        _ => Verdict::Pass,
    })
}

#[inline(always)]
fn answered<P: Packet, T: Common>(packet: &P, tables: &T, outcome: Result<(), Counter>) -> Verdict {
    if outcome.is_ok() {
        tables.count(Counter::Answered);
    }
    conclude(outcome.map(|()| Verdict::Forward(Way::Egress(packet.ifindex()))), tables)
}

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

/// Sends a packet as its flow's row says, if that is all there is to do. What is not as most packets are comes back
/// untouched, with `None`.
#[inline(always)]
fn travel<F: Family, P: InPlace, T: Tables<F>>(packet: &mut P, tables: &T) -> Option<Verdict> {
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
    let mut key = frame.key(tables.settings().zone as u16);
    key.join_halves();
    if let Some(stop) = outsider(tables, HOOK, &key) {
        return if stop == Counter::NotOurs { Some(Verdict::Pass) } else { None };
    }
    let now = tables.now();
    if is_lent(tables, &key) {
        const SETTLED: u32 = flow_bits::PROVEN | flow_bits::ANSWERED;
        let held = tables.snat(&key)?.get();
        if !is_for_one(packet) || !is_noted(flags, &held.row, now, SETTLED, flow_bits::FIN_BACKEND) {
            return None;
        }
        return give_back(packet, tables, &key, &held).ok();
    }
    let known = tables.flow(Table::Proven, &key)?.get();
    // A row that was used in this tick has not expired.
    let guides = !known.is_reply()
        && !flags.opens()
        && is_noted(flags, &known, now, flow_bits::PROVEN, flow_bits::FIN_CLIENT);
    let (word, backend) = tables.backend(known.backend.low)?;
    if !guides || word.0.generation != known.backend.generation || !word.state().is_active() {
        return None;
    }
    let reach = tables.reach(word.reach())?;
    let own = frame.ethernet.destination;
    if !leads_on(packet, tables, own, backend, &reach) {
        return None;
    }
    pass_on(packet, tables, &key, own, &known, backend, reach.mac).ok()
}

#[inline(always)]
fn parse<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T) -> Result<Verdict, Counter> {
    let frame = parse::frame::<F, P>(packet)?;
    let key = frame.key(tables.settings().zone as u16);
    if let Some(stop) = outsider(tables, HOOK, &key) {
        return Err(stop);
    }
    if !is_for_one(packet) {
        return Err(Counter::WrongHook);
    }
    let payload = frame.ip.payload(packet.size() - NETWORK as u32);
    let parsed = Parsed::new(packet, &frame.ethernet, key, Place::plain::<F>(payload))?;
    tables.note(&parsed, tables.flow(Table::Proven, &key).is_some());
    Ok(if is_lent(tables, &key) && tables.snat(&key).is_some() { Verdict::Heard } else { Verdict::Resume })
}

/// Whether a packet's link destination is one device's: what goes to all is not answered from it.
#[inline(always)]
pub fn is_for_one<P: Packet>(packet: &P) -> bool {
    const GROUP: u8 = 1;
    packet.load::<[u8; 2]>(0).is_some_and(|[first, _]| first & GROUP == 0)
}

/// Whether a packet is to a port of the node's that may be lent.
#[inline(always)]
fn is_lent<F: Family, T: Tables<F>>(tables: &T, key: &FlowKey<F>) -> bool {
    let settings = tables.settings();
    let port = (u16::from_be(key.dst_port) as u32).wrapping_sub(settings.snat_first);
    port < settings.snat_ports && key.dst == F::host(settings)
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

/// Whether a packet that has hops left can be sent on from here to a backend, by this way. `own`: its link
/// destination.
#[inline(always)]
fn leads_on<F: Family, P: Packet, T: Common>(
    packet: &P,
    tables: &T,
    own: Mac,
    backend: &BackendRow<F>,
    reach: &ReachRow,
) -> bool {
    // None of these differs, most of the time: one comparison for all.
    let [a, b, c] = reach.host_mac;
    let other = (a ^ own[0]) | (b ^ own[1]) | (c ^ own[2]);
    let elsewhere = (reach.kind ^ ReachKind::Uplink as u32) | (reach.ifindex ^ packet.ifindex());
    let here = other as u32 | elsewhere == 0 && is_known(&reach.mac);
    if !dsr::is_needed(HOOK, backend) {
        return here && !forward::is_too_big(packet, tables, Way::Egress(reach.ifindex), 0);
    }
    /// No link of IPv6 takes less (RFC 8200 section 5); one of IPv4 that does is asked.
    const SURE: u32 = 1280;
    let len = packet.size() - NETWORK as u32 + size_of::<F::Header>() as u32;
    here && F::host(tables.settings()) != F::Addr::ZERO && (len <= SURE || len <= packet.mtu(reach.ifindex))
}

/// Whether a packet can be sent to a backend from here.
#[inline(always)]
pub fn can_send<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    parsed: &Parsed<F>,
    backend: BackendRef,
) -> bool {
    let Some((word, backend)) = tables.backend(backend.low) else { return false };
    let Some(reach) = tables.reach(word.reach()) else { return false };
    can_hop::<F, P>(packet) && leads_on(packet, tables, parsed.destination, backend, &reach)
}

/// Whether a packet that has hops left can be sent to the client that has a port of the node's from here.
#[inline(always)]
fn leads_back<F: Family, P: Packet>(packet: &P, held: &SnatRow<F>) -> bool {
    held.row.ifindex == packet.ifindex() && is_known(&held.row.mac)
}

/// Whether a packet has hops left.
#[inline(always)]
fn can_hop<F: Family, P: Packet>(packet: &P) -> bool {
    packet.load::<F::Header>(NETWORK).is_some_and(|mut ip| ip.take_hop().is_some())
}

/// Sends a client's packet to its backend.
#[inline(always)]
fn go<F: Family, P: InPlace, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    parsed: &Parsed<F>,
    found: Found<'_, F>,
) -> Result<Verdict, Counter> {
    let known = &found.1;
    let (word, backend) = tables.backend(known.backend.low).ok_or(Counter::Unsettled)?;
    let reach = tables.reach(word.reach()).ok_or(Counter::Unreachable)?;
    if !can_hop::<F, P>(packet) || !leads_on(packet, tables, parsed.destination, backend, &reach) {
        return Err(Counter::WrongHook);
    }
    if known.is_tunnel() {
        dsr::keep(tables, parsed, found);
    } else {
        flow::request(packet, tables, HOOK, parsed, found);
    }
    pass_on(packet, tables, &parsed.key, parsed.destination, known, backend, reach.mac)
}

/// Sends a client's packet from here, whose MAC is `own`, to the next hop, as its flow wants it.
#[inline(always)]
fn pass_on<F: Family, P: InPlace, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    key: &FlowKey<F>,
    own: Mac,
    known: &FlowRow<F>,
    backend: &BackendRow<F>,
    next: Mac,
) -> Result<Verdict, Counter> {
    let bytes = packet.size();
    if known.is_tunnel() {
        enclose::<F, P, T>(packet, tables, own, backend.node, next)?;
        tables.count(Counter::Tunneled);
    } else {
        send(packet, key, &translated(tables, key, known), next)?;
        tables.count(Counter::Request);
    }
    tables.account(backend.service, bytes);
    Ok(Verdict::Forward(Way::Egress(packet.ifindex())))
}

/// Puts a packet into one to a backend's node and addresses that to the next hop, from here; its own has one hop less.
/// Nothing is written where there is none left or no room.
#[inline(always)]
fn enclose<F: Family, P: Packet, T: Common>(
    packet: &mut P,
    tables: &T,
    own: Mac,
    node: F::Addr,
    next: Mac,
) -> Result<(), Counter> {
    let mut ip = packet.load::<F::Header>(NETWORK).ok_or(Counter::Truncated)?;
    ip.take_hop().ok_or(Counter::TtlExceeded)?;
    if !packet.wrap::<F>(&ip.around(F::host(tables.settings()), node)) {
        return Err(Counter::WrongHook);
    }
    let ethernet = Ethernet { destination: next, source: own, ethertype: F::ETHERTYPE };
    let written = packet.store(NETWORK + size_of::<F::Header>(), &ip) && packet.store(0, &ethernet);
    written.then_some(()).ok_or(Counter::RewriteFailed)
}

/// Sends a backend's packet to the client that has the port it is to.
#[inline(always)]
fn give_back<F: Family, P: InPlace, T: Common>(
    packet: &mut P,
    tables: &T,
    key: &FlowKey<F>,
    held: &SnatRow<F>,
) -> Result<Verdict, Counter> {
    if !leads_back(packet, held) {
        return Err(Counter::WrongHook);
    }
    send(packet, key, &snat::returned(key, held), held.row.mac)?;
    tables.count(Counter::Reply);
    Ok(Verdict::Forward(Way::Egress(packet.ifindex())))
}

/// The addresses and ports that a request gets.
#[inline(always)]
fn translated<F: Family, T: Tables<F>>(tables: &T, key: &FlowKey<F>, known: &FlowRow<F>) -> FlowKey<F> {
    if known.is_snat() { snat::translated(tables, key, known) } else { flow::translated(key, known) }
}

/// Gives a plain packet the addresses and ports of `to` and addresses it to the next hop, from here, one hop less.
/// Nothing is written where there is none left.
#[inline(always)]
fn send<F: Family, P: InPlace>(
    packet: &mut P,
    from: &FlowKey<F>,
    to: &FlowKey<F>,
    next: Mac,
) -> Result<(), Counter> {
    let (old, new) = (from.src.sum() + from.dst.sum(), to.src.sum() + to.dst.sum());
    let frame: &mut Frame<F> = packet.at(0).ok_or(Counter::Truncated)?;
    frame.ip.take_hop().ok_or(Counter::TtlExceeded)?;
    frame.ip.set_addresses(to.src, to.dst, checksum::difference(old, new));
    (frame.ethernet.destination, frame.ethernet.source) = (next, frame.ethernet.destination);
    frame.ports = Ports { source: to.src_port, destination: to.dst_port };
    let protocol = Protocol::from_number(from.protocol as u8).ok_or(Counter::Protocol)?;
    let mended = protocol.checksum_offset().is_none_or(|offset| {
        let ports = |key: &FlowKey<F>| key.src_port as u64 + key.dst_port as u64;
        let difference = checksum::difference(old + ports(from), new + ports(to));
        let kind = SumKind { protocol, pseudo_header: true, ipv6: F::ETHERTYPE == V6::ETHERTYPE };
        packet.update_checksum(Frame::<F>::TRANSPORT + offset, difference, kind)
    });
    mended.then_some(()).ok_or(Counter::RewriteFailed)
}
