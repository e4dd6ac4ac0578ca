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
mod open;
mod parse;
mod reject;
mod rewrite;
mod select;
mod socket;
mod tables;

pub use forward::Way;
pub use neighbour::{answer_arp, answer_solicitation};
pub use parse::{Note, Parsed};
pub use reject::reject;
pub use select::{TRIES, client_hash, scope, slot_hash};
pub use socket::{Access, Caller, Peer, Socket, Sockets, connect, send, shown};
pub use tables::{Common, Insert, InsertError, Packet, SumKind, Table, Tables, interest_hash};

use crate::wire::Protocol;
use crate::{
    abi::{Counter, FlowRow, ReachKind},
    family::{Family, V6},
};
use open::Resumed;
use parse::readable;

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
    /// Of no proven flow: [`resume`] looks further.
    Resume,
    /// Of no flow that could guide it: [`open`] chooses a backend.
    Open,
    /// Of a flow that is to be: [`record`] makes its rows.
    Record,
    /// A call of a backend by its own address: [`direct`] sees to it.
    Direct,
    /// Decided, not carried out: [`finish`] does.
    Finish,
    /// Answered by [`reject`], and why.
    Reject(Counter),
    /// A packet of another protocol, perhaps a neighbour solicitation: [`answer_solicitation`] decides and
    /// counts.
    MaySolicit,
    /// Rewritten; it goes on its way.
    Forward(Way),
}

/// Decides and carries out what one packet of family `F` gets, if its flow is proven and its backend active,
/// and counts the outcome. Others come back: to [`open`], or to the function that the verdict names.
///
/// Functions one after the other, because all in one exceed the stack of a kernel program; known flows are
/// the faster for it.
#[inline(always)]
pub fn run<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T, hook: Hook) -> Verdict {
    let way = travel(packet, tables, hook);
    if F::ETHERTYPE == V6::ETHERTYPE && hook == Hook::PortIngress && matches!(way, Err(Counter::Protocol)) {
        return Verdict::MaySolicit;
    }
    conclude(way, tables)
}

/// Looks for the rows of a packet that came back with [`Verdict::Resume`]: [`finish`] takes it if there are
/// any, else [`open`].
#[inline(always)]
pub fn resume<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T, hook: Hook) -> Verdict {
    conclude(noted(tables, |note| look(packet, tables, hook, note)), tables)
}

/// Chooses a backend for a packet that came back with [`Verdict::Open`]; [`record`] takes it then. With
/// [`Verdict::Open`] again there is another to try, at most [`TRIES`] in all.
#[inline(always)]
pub fn open<F: Family, T: Tables<F>>(tables: &T) -> Verdict {
    let chosen = noted(tables, |note| open::choose(tables, note));
    conclude(chosen.map(|chosen| if chosen { Verdict::Record } else { Verdict::Open }), tables)
}

/// Makes the rows of a packet that came back with [`Verdict::Record`]: [`finish`] takes it then. With
/// [`Verdict::Open`] it needs another backend.
#[inline(always)]
pub fn record<F: Family, P: Packet, T: Tables<F>>(packet: &P, tables: &T, hook: Hook) -> Verdict {
    let recorded = noted(tables, |note| open::record(packet, tables, hook, note));
    conclude(recorded.map(|recorded| if recorded { Verdict::Finish } else { Verdict::Open }), tables)
}

/// Keeps a packet that came back with [`Verdict::Direct`] apart from flows through services; perhaps it is to
/// be recorded as one, too.
#[inline(always)]
pub fn direct<F: Family, P: Packet, T: Tables<F>>(packet: &P, tables: &T) -> Verdict {
    let apart = noted(tables, |note| open::direct(packet, tables, note));
    conclude(apart.map(|()| Verdict::Record), tables)
}

/// Carries out what the rows of a packet say that came back with [`Verdict::Finish`].
#[inline(always)]
pub fn finish<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T, hook: Hook) -> Verdict {
    let way = noted(tables, |Note { parsed, .. }: &Note<F>| {
        // What has just been recorded is gone again: the table is that full.
        let found = flow::find(tables, &parsed.key).ok_or(Counter::TableFull)?;
        go(packet, tables, hook, parsed, found)
    });
    conclude(way, tables)
}

/// All these functions, as the kernel programs call them one after the other: for hosts, where stack is no
/// matter. None of the verdicts that ask for the next.
pub fn decide<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T, hook: Hook) -> Verdict {
    let mut verdict = run(packet, tables, hook);
    loop {
        verdict = match verdict {
            Verdict::Resume => resume(packet, tables, hook),
            Verdict::Open => open(tables),
            Verdict::Direct => direct(packet, tables),
            Verdict::Record => record(packet, tables, hook),
            Verdict::Finish => finish(packet, tables, hook),
            last => return last,
        }
    }
}

/// What is done with what was noted of a packet.
#[inline(always)]
fn noted<F: Family, T: Tables<F>, R>(
    tables: &T,
    work: impl FnOnce(&Note<F>) -> Result<R, Counter>,
) -> Result<R, Counter> {
    work(tables.noted().ok_or(Counter::Unsettled)?)
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
) -> Result<Verdict, Counter> {
    let frame = parse::frame::<F, P>(packet)?;
    let key = frame.key(tables.settings().zone as u16);
    let ours = tables.interesting(interest_hash(key.dst, 0))
        || tables.interesting(interest_hash(key.src, key.src_port))
        || hook == Hook::PortIngress && tables.interesting(interest_hash(key.dst, key.dst_port));
    if !ours {
        let unowned = !hook.is_egress() && select::is_unowned::<F, T>(tables, key.dst);
        return Err(if unowned { Counter::Unowned } else { Counter::NotOurs });
    }
    let parsed = Parsed::new(packet, &frame, key)?;
    let row = tables.flow(Table::Proven, &key);
    if let Some(row) = row {
        let known = row.get();
        let guides = if known.is_reply() {
            !known.expired(parsed.protocol(), tables.now(), &tables.settings().lifetimes)
        } else {
            !hook.is_egress()
                && flow::usable(tables, &parsed, &known).is_some_and(|word| word.state().is_active())
                && !flow::is_elsewhere(packet, hook, &known)
        };
        if guides {
            return go(packet, tables, hook, &parsed, (row, known));
        }
    }
    tables.note(&parsed, row.is_some());
    Ok(Verdict::Resume)
}

#[inline(always)]
fn look<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    note: &Note<F>,
) -> Result<Verdict, Counter> {
    let parsed = &note.parsed;
    let key = &parsed.key;
    match open::resume(packet, tables, hook, note)? {
        Resumed::Guided => Ok(Verdict::Finish),
        known if known == Resumed::Misguided || tables.interesting(interest_hash(key.dst, 0)) => {
            if flow::is_forged(packet, tables, hook, key.src) {
                return Err(Counter::Forged);
            }
            note.misguided.set(known == Resumed::Misguided);
            Ok(Verdict::Open)
        }
        _ if hook == Hook::PortIngress && tables.interesting(interest_hash(key.dst, key.dst_port)) => {
            let begins = parsed.protocol() != Protocol::Tcp || parsed.flags.opens();
            if begins { Ok(Verdict::Direct) } else { Err(Counter::Direct) }
        }
        _ => {
            let unowned = !hook.is_egress() && select::is_unowned::<F, T>(tables, key.dst);
            Err(if unowned { Counter::Unowned } else { Counter::NoFrontend })
        }
    }
}

/// The way of a packet whose flow's row is at hand.
#[inline(always)]
fn go<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    parsed: &Parsed<F>,
    found: flow::Found<'_, F>,
) -> Result<Verdict, Counter> {
    let (_, known) = found;
    let onward;
    if known.is_reply() {
        if hook == Hook::PortIngress && answers_for_another(packet, tables, &known) {
            return Err(Counter::Forged);
        }
        onward = forward::to_client(packet, hook, parsed, &known)?;
        flow::reply(tables, parsed, found);
    } else if hook.is_egress() {
        return Err(Counter::WrongHook);
    } else {
        flow::request(packet, tables, hook, parsed, found);
        let (word, backend) = tables.backend(known.backend.low).ok_or(Counter::Unsettled)?;
        let reach = tables.reach(word.reach()).ok_or(Counter::Unreachable)?;
        onward = forward::to_backend(packet, tables, hook, parsed, &reach, known.is_hairpin())?;
        tables.account(backend.service, packet.size());
    }
    rewrite::rewrite(packet, parsed, &flow::translated(&parsed.key, &known), &onward)?;
    tables.count(if known.is_reply() { Counter::Reply } else { Counter::Request });
    Ok(Verdict::Forward(onward.way))
}

/// Whether a reply comes in by another port than that of the flow's backend.
#[inline(always)]
fn answers_for_another<F: Family, P: Packet, T: Tables<F>>(
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

/// Every outcome that is not a translation has one verdict.
#[inline(always)]
fn verdict(stop: Counter) -> Verdict {
    match stop {
        Counter::NoBackend | Counter::NoPort | Counter::BackendGone => Verdict::Reject(stop),
        Counter::NoLocalBackend
        | Counter::SourceRange
        | Counter::Unowned
        | Counter::Unsettled
        | Counter::Unreachable
        | Counter::TableFull
        | Counter::Clash
        | Counter::Forged
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
        | Counter::Proven
        | Counter::Moved
        | Counter::Direct
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
