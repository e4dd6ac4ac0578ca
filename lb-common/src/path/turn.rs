//! Turn: the path of the XDP program at an uplink. It sees a packet before the host has made anything of it, and
//! finishes what can leave again by the device that it came in by, or ends there: requests to backends on other
//! nodes and replies to the ports lent for them, refusals, drops, answers in a service's name.
//!
//! All else it passes on to the program on tc, neither changed nor counted. So what can stand in the way of a packet
//! is looked at before its flow is recorded, and before its first byte is written. It has the steps of
//! [`super`]; what they find is concluded differently.

use super::{
    Common, Hook, Note, Packet, Parsed, SumKind, Table, Tables, Verdict, Way,
    answer::NETWORK,
    flow::{self, Found},
    forward, look, neighbour, noted, outsider,
    parse::{self, Frame, Place},
    snat, verdict,
};
use crate::{
    abi::{BackendWord, Counter, FlowKey, FlowRow, Mac, ReachKind, SnatRow, flow_bits},
    family::{Address as _, Family, V6},
    wire::{Ethernet, NetworkHeader as _, Ports, checksum},
};

const HOOK: Hook = Hook::UplinkXdp;

/// Decides and carries out what a packet of family `F` gets, if its flow is proven; as [`super::run`].
#[inline(always)]
pub fn run<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T) -> Verdict {
    let way = travel(packet, tables);
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
        let (word, _) = tables.backend(note.backend.get().low).ok_or(Counter::Unsettled)?;
        if !can_send(packet, tables, &note.parsed, word) {
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
        if !can_hop::<F, P>(packet) || client_hop(packet, &held.get()).is_none() {
            return Err(Counter::WrongHook);
        }
        snat::heard(packet, tables, &note.parsed)
    });
    conclude(heard, tables)
}

/// As [`super::deliver`].
#[inline(always)]
pub fn deliver<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T) -> Verdict {
    let delivered = noted(tables, |note| {
        let held = tables.snat(&note.parsed.key).ok_or(Counter::TableFull)?.get();
        let next = client_hop(packet, &held).ok_or(Counter::WrongHook)?;
        send(packet, &note.parsed, &snat::returned(&note.parsed.key, &held), next)?;
        tables.count(Counter::Reply);
        Ok(Verdict::Forward(Way::Egress(packet.ifindex())))
    });
    conclude(delivered, tables)
}

/// As [`super::finish`].
#[inline(always)]
pub fn finish<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T) -> Verdict {
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
pub fn decide<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T) -> Verdict {
    let mut verdict = run(packet, tables);
    loop {
        verdict = match verdict {
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

#[inline(always)]
fn travel<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T) -> Result<Verdict, Counter> {
    // What is not plain and whole is tc's.
    let frame = parse::frame::<F, P>(packet)?;
    let settings = tables.settings();
    let key = frame.key(settings.zone as u16);
    if let Some(stop) = outsider(tables, HOOK, &key) {
        return Err(stop);
    }
    let payload = frame.ip.payload(packet.size() - NETWORK as u32);
    let parsed = Parsed::new(packet, &frame.ethernet, key, Place::plain::<F>(payload))?;
    let now = tables.now();
    let held = if is_lent(tables, &key) { tables.snat(&key) } else { None };
    let (to, next, served);
    if let Some(held) = held.map(|held| held.get())
        && is_noted(&parsed, &held.row, now, flow_bits::PROVEN | flow_bits::ANSWERED, flow_bits::FIN_BACKEND)
    {
        next = client_hop(packet, &held).ok_or(Counter::WrongHook)?;
        (to, served) = (snat::returned(&key, &held), None);
    } else {
        let row = tables.flow(Table::Proven, &key);
        if row.is_some_and(|row| row.get().is_reply()) {
            return Err(Counter::WrongHook);
        }
        let guide = row.map(|row| row.get()).and_then(|known| {
            let (word, backend) = flow::usable_row(tables, &parsed, &known)?;
            word.state().is_active().then_some((known, word, backend.service))
        });
        let Some((known, word, service)) = guide else {
            if !is_for_one(packet) {
                return Err(Counter::WrongHook);
            }
            tables.note(&parsed, row.is_some());
            return Ok(Verdict::Resume);
        };
        next = next_hop(packet, tables, &parsed, word).ok_or(Counter::WrongHook)?;
        if !is_noted(&parsed, &known, now, 0, flow_bits::FIN_CLIENT) {
            tables.note(&parsed, true);
            return Ok(Verdict::Finish);
        }
        (to, served) = (translated(tables, &key, &known), Some(service));
    }
    send(packet, &parsed, &to, next)?;
    if let Some(service) = served {
        tables.account(service, packet.size());
    }
    tables.count(if served.is_some() { Counter::Request } else { Counter::Reply });
    Ok(Verdict::Forward(Way::Egress(packet.ifindex())))
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
fn is_noted<F: Family>(parsed: &Parsed<F>, row: &FlowRow<F>, now: u32, bits: u32, fin: u32) -> bool {
    let finished = if parsed.flags.finishes() { fin } else { 0 };
    let reset = if parsed.flags.resets() { flow_bits::RESET } else { 0 };
    let bits = bits | finished | reset;
    row.seen == now && row.bits & bits == bits
}

/// The next hop to a backend, if a packet that has hops left can be sent there from here.
#[inline(always)]
fn next_hop<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    parsed: &Parsed<F>,
    word: BackendWord,
) -> Option<Mac> {
    let reach = tables.reach(word.reach())?;
    let here = reach.kind == ReachKind::Uplink as u32
        && reach.ifindex == packet.ifindex()
        && reach.host_mac == parsed.destination
        && !forward::is_too_big(packet, tables, Way::Egress(reach.ifindex), 0);
    if here { known(reach.mac) } else { None }
}

/// Whether a packet can be sent to a backend from here.
#[inline(always)]
pub fn can_send<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    parsed: &Parsed<F>,
    word: BackendWord,
) -> bool {
    can_hop::<F, P>(packet) && next_hop(packet, tables, parsed, word).is_some()
}

/// The next hop to the client that has a port of the node's, if a packet that has hops left can be sent there from here.
#[inline(always)]
fn client_hop<F: Family, P: Packet>(packet: &P, held: &SnatRow<F>) -> Option<Mac> {
    if held.row.ifindex == packet.ifindex() { known(held.row.mac) } else { None }
}

/// A MAC, if it is known.
#[inline(always)]
fn known(mac: Mac) -> Option<Mac> {
    (mac[0] | mac[1] | mac[2] != 0).then_some(mac)
}

/// Whether a packet has hops left.
#[inline(always)]
fn can_hop<F: Family, P: Packet>(packet: &P) -> bool {
    packet.load::<F::Header>(NETWORK).is_some_and(|mut ip| ip.take_hop().is_some())
}

/// Sends a client's packet to its backend.
#[inline(always)]
fn go<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    parsed: &Parsed<F>,
    found: Found<'_, F>,
) -> Result<Verdict, Counter> {
    let known = &found.1;
    let (word, backend) = tables.backend(known.backend.low).ok_or(Counter::Unsettled)?;
    if !can_hop::<F, P>(packet) {
        return Err(Counter::WrongHook);
    }
    let next = next_hop(packet, tables, parsed, word).ok_or(Counter::WrongHook)?;
    flow::request(packet, tables, HOOK, parsed, found);
    send(packet, parsed, &translated(tables, &parsed.key, known), next)?;
    tables.account(backend.service, packet.size());
    tables.count(Counter::Request);
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
fn send<F: Family, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<F>,
    to: &FlowKey<F>,
    next: Mac,
) -> Result<(), Counter> {
    let from = &parsed.key;
    let mut ip = packet.load::<F::Header>(NETWORK).ok_or(Counter::Truncated)?;
    ip.take_hop().ok_or(Counter::TtlExceeded)?;
    let (old, new) = (from.src.sum() + from.dst.sum(), to.src.sum() + to.dst.sum());
    ip.set_addresses(to.src, to.dst, checksum::difference(old, new));
    let frame = Frame::<F> {
        ethernet: Ethernet { destination: next, source: parsed.destination, ethertype: F::ETHERTYPE },
        ip,
        ports: Ports { source: to.src_port, destination: to.dst_port },
    };
    let protocol = parsed.protocol();
    let mended = protocol.checksum_offset().is_none_or(|offset| {
        let ports = |key: &FlowKey<F>| key.src_port as u64 + key.dst_port as u64;
        let difference = checksum::difference(old + ports(from), new + ports(to));
        let kind = SumKind { protocol, pseudo_header: true, ipv6: F::ETHERTYPE == V6::ETHERTYPE };
        packet.update_checksum(Frame::<F>::TRANSPORT + offset, difference, kind)
    });
    (mended && packet.store(0, &frame)).then_some(()).ok_or(Counter::RewriteFailed)
}
