//! The way of a packet, written once and compiled into every kernel program and into the host tests.
//!
//! ```text
//! parse -> flow table -> service -> select backend -> rewrite -> forward     or, at any point,
//!               |  hit: straight to rewrite                         |        pass, drop, reject
//!               `---------------------------------------------------'
//! ```
//! Nothing here knows of aya, of maps or of sockets: packets come in as [`Packet`], everything that is
//! remembered as [`Tables`].

mod answer;
mod flow;
mod forward;
mod neighbour;
mod parse;
mod reject;
mod rewrite;
mod select;
mod socket;
mod tables;

pub use forward::Way;
pub use neighbour::{answer_arp, answer_solicitation};
pub use reject::reject;
pub use select::{client_hash, scope, slot_hash};
pub use socket::{Access, Caller, Peer, Socket, Sockets, connect, send, shown};
pub use tables::{Common, Insert, InsertError, Packet, SumKind, Tables, interest_hash};

use crate::{
    abi::{Counter, FlowRow, ReachKind},
    family::{Family, V6},
};
use parse::Parsed;

/// Where a program is attached, seen from the traffic.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// What a pod or VM sends into its port of the bridge.
    PortIngress,
    /// What the bridge sends to a pod (stack mode only).
    PortEgress,
    /// What the bridge hands to the host.
    BridgeIngress,
    /// What the host sends into the bridge.
    BridgeEgress,
    /// What comes from outside.
    UplinkIngress,
    /// What the host sends outside.
    UplinkEgress,
}

impl Hook {
    /// All of them.
    pub const ALL: [Hook; 6] = [
        Hook::PortIngress,
        Hook::PortEgress,
        Hook::BridgeIngress,
        Hook::BridgeEgress,
        Hook::UplinkIngress,
        Hook::UplinkEgress,
    ];

    /// Name of its program in the kernel object.
    pub fn program(self) -> &'static str {
        match self {
            Hook::PortIngress => "port_ingress",
            Hook::PortEgress => "port_egress",
            Hook::BridgeIngress => "bridge_ingress",
            Hook::BridgeEgress => "bridge_egress",
            Hook::UplinkIngress => "uplink_ingress",
            Hook::UplinkEgress => "uplink_egress",
        }
    }

    /// Whether packets leave the host's stack here: only replies of its own processes are ours then.
    #[inline(always)]
    pub fn is_egress(self) -> bool {
        matches!(self, Hook::PortEgress | Hook::BridgeEgress | Hook::UplinkEgress)
    }
}

/// What becomes of a packet.
#[must_use]
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Untouched, left to the next program.
    Pass,
    /// Dropped, and why.
    Drop(Counter),
    /// Not decided: [`open`] does.
    Open,
    /// Answered by [`reject`], and why.
    Reject(Counter),
    /// A packet of another protocol, perhaps a neighbour solicitation: [`answer_solicitation`] decides and
    /// counts.
    MaySolicit,
    /// Rewritten; it goes on its way.
    Forward(Way),
}

/// How often a packet has been on the path.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is new.
    First,
    /// [`open`] has recorded its flow.
    Second,
}

/// Decides and carries out what one packet of family `F` gets, and counts the outcome. Only a packet that
/// needs a new flow comes back: [`open`] records one, then it is on the path again, as of a known flow.
///
/// Two functions, because both in one exceed the stack of a kernel program; known flows are the faster for it.
#[inline(always)]
pub fn run<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    turn: Turn,
) -> Verdict {
    let way = travel(packet, tables, hook, turn);
    if F::ETHERTYPE == V6::ETHERTYPE && hook == Hook::PortIngress && matches!(way, Err(Counter::Protocol)) {
        return Verdict::MaySolicit;
    }
    conclude(way, tables)
}

/// Records the flow of a packet that came back with [`Verdict::Open`], and says the same again where that
/// was done: now [`run`] takes it.
#[inline(always)]
pub fn open<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T, hook: Hook) -> Verdict {
    conclude(begin(packet, tables, hook), tables)
}

/// [`run`], [`open`] and [`run`] again, as the kernel programs call them one after the other: for hosts,
/// where stack is no matter. Never [`Verdict::Open`].
pub fn decide<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T, hook: Hook) -> Verdict {
    let mut verdict = run(packet, tables, hook, Turn::First);
    if verdict == Verdict::Open {
        verdict = open(packet, tables, hook);
    }
    if verdict == Verdict::Open {
        verdict = run(packet, tables, hook, Turn::Second);
    }
    verdict
}

#[inline(always)]
fn conclude<T: Common>(way: Result<Verdict, Counter>, tables: &T) -> Verdict {
    way.unwrap_or_else(|stop| {
        tables.count(stop);
        verdict(stop)
    })
}

#[inline(always)]
fn travel<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    turn: Turn,
) -> Result<Verdict, Counter> {
    let frame = parse::frame::<F, P>(packet)?;
    let key = frame.key(tables.settings().zone as u16);
    if !tables.interesting(interest_hash(key.dst, 0))
        && !tables.interesting(interest_hash(key.src, key.src_port))
    {
        let unowned = !hook.is_egress() && select::is_unowned::<F, T>(tables, key.dst);
        return Err(if unowned { Counter::Unowned } else { Counter::NotOurs });
    }
    let parsed = Parsed::new(packet, &frame, key)?;
    let found = tables.flow(&key).map(|row| (row, row.get()));
    match found {
        Some((row, known)) if known.is_reply() => {
            if known.expired(parsed.protocol, tables.now(), &tables.settings().lifetimes) {
                return Err(Counter::NotOurs);
            }
            let onward = forward::to_client(packet, hook, &parsed, &known)?;
            let known = flow::reply(tables, &parsed, row, known);
            translate(packet, tables, &parsed, &known, &onward, Counter::Reply)
        }
        _ if hook.is_egress() => Err(Counter::WrongHook),
        Some((row, known)) if turn == Turn::Second || flow::usable(tables, &parsed, &known) => {
            let known = flow::request(packet, tables, hook, &parsed, row, known);
            let (word, backend) = tables.backend(known.backend.low).ok_or(Counter::Unsettled)?;
            let reach = tables.reach(word.reach()).ok_or(Counter::Unreachable)?;
            let onward = forward::to_backend(packet, tables, hook, &parsed, &reach, known.is_hairpin())?;
            tables.account(backend.service, packet.size());
            translate(packet, tables, &parsed, &known, &onward, Counter::Request)
        }
        // What has just been recorded is gone again: the table is that full.
        _ if turn == Turn::Second => Err(Counter::TableFull),
        // What is no service's leaves here: [`open`] is a long way.
        _ => select::target(tables, &key).map(|_| Verdict::Open),
    }
}

#[inline(always)]
fn begin<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
) -> Result<Verdict, Counter> {
    let frame = parse::frame::<F, P>(packet)?;
    let key = frame.key(tables.settings().zone as u16);
    let parsed = Parsed::new(packet, &frame, key)?;
    flow::open(packet, tables, hook, &parsed, tables.flow(&key))?;
    Ok(Verdict::Open)
}

/// Gives a packet what its flow's row says.
#[inline(always)]
fn translate<F: Family, P: Packet, T: Common>(
    packet: &mut P,
    tables: &T,
    parsed: &Parsed<F>,
    row: &FlowRow<F>,
    onward: &forward::Onward,
    outcome: Counter,
) -> Result<Verdict, Counter> {
    rewrite::rewrite(packet, parsed, &flow::translated(&parsed.key, row), onward)?;
    tables.count(outcome);
    Ok(Verdict::Forward(onward.way))
}

/// Every outcome that is not a translation has one verdict.
#[inline(always)]
fn verdict(stop: Counter) -> Verdict {
    match stop {
        Counter::NoBackend | Counter::NoPort => Verdict::Reject(stop),
        Counter::NoLocalBackend
        | Counter::SourceRange
        | Counter::Unowned
        | Counter::Unsettled
        | Counter::Unreachable
        | Counter::TableFull
        | Counter::Clash
        | Counter::RewriteFailed => Verdict::Drop(stop),
        Counter::NotOurs
        | Counter::Truncated
        | Counter::Malformed
        | Counter::Fragment
        | Counter::Options
        | Counter::Protocol
        | Counter::NoFrontend
        | Counter::WrongHook
        | Counter::LeftToStack
        | Counter::TtlExceeded
        | Counter::Request
        | Counter::Reply
        | Counter::NewFlow
        | Counter::Rebuilt
        | Counter::Answered
        | Counter::SocketConnected
        | Counter::SocketSent
        | Counter::SocketMoved => Verdict::Pass,
    }
}

/// The way back to clients whose packets are seen at `hook`.
#[inline(always)]
fn way_back<T: Common>(tables: &T, hook: Hook) -> ReachKind {
    match hook {
        Hook::PortIngress | Hook::PortEgress => ReachKind::from_bits(tables.settings().way_back),
        Hook::BridgeIngress | Hook::BridgeEgress => ReachKind::Bridge,
        Hook::UplinkIngress | Hook::UplinkEgress => ReachKind::Uplink,
    }
}
