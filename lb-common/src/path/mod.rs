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
mod dsr;
mod error;
mod flow;
mod forward;
mod hard;
mod message;
mod neighbour;
mod open;
mod parse;
mod reject;
mod rewrite;
mod select;
mod snat;
mod socket;
mod tables;
pub mod turn;

pub use dsr::unwrap;
pub use error::error;
pub use forward::Way;
pub use message::message;
pub use neighbour::{answer_arp, answer_solicitation};
pub use parse::{Note, Parsed};
pub use reject::reject;
pub use select::{TRIES, client_hash, scope, slot_hash};
pub use socket::{Access, Caller, Peer, Socket, Sockets, connect, send, shown};
pub use tables::{
    Common, InPlace, Insert, InsertError, Packet, SumKind, TURNS, Table, Tables, interest_hash,
};

use crate::{
    abi::{Counter, FlowKey, FlowRow, ReachKind},
    family::Family,
    wire::{Ethernet, NetworkHeader as _, Part, Protocol},
};
use open::Resumed;
use parse::{Place, readable};
use rewrite::Form;

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
    /// What comes from outside, before the host has made anything of it: see [`turn`].
    UplinkXdp,
}

impl Hook {
    /// All of them.
    pub const ALL: [Hook; 7] = [
        Hook::PortIngress,
        Hook::PortEgress,
        Hook::BridgeIngress,
        Hook::BridgeEgress,
        Hook::UplinkIngress,
        Hook::UplinkEgress,
        Hook::UplinkXdp,
    ];

    /// Those whose programs are tc's.
    pub const TC: [Hook; 6] = [
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
            Hook::UplinkXdp => "uplink_xdp",
        }
    }

    /// Whether it is an uplink's.
    #[inline(always)]
    pub fn is_uplink(self) -> bool {
        matches!(self, Hook::UplinkIngress | Hook::UplinkEgress | Hook::UplinkXdp)
    }

    /// Whether packets come from outside here.
    #[inline(always)]
    pub fn from_outside(self) -> bool {
        matches!(self, Hook::UplinkIngress | Hook::UplinkXdp)
    }

    /// Whether neighbours may ask here who has an address of a service.
    #[inline(always)]
    pub fn is_asked(self) -> bool {
        matches!(self, Hook::PortIngress | Hook::UplinkIngress | Hook::UplinkXdp)
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
    /// Not a plain, whole packet: [`hard`] parses it. So it does those with a VLAN tag, from the start.
    Hard,
    /// Of no proven flow: [`resume`] looks further.
    Resume,
    /// Of no flow that could guide it: [`open`] chooses a backend.
    Open,
    /// Of a flow that is to be: [`record`] makes its rows.
    Record,
    /// A call of a backend by its own address: [`direct`] sees to it.
    Direct,
    /// Of a flow that is to be, with a port of the node's: [`lend`] makes its rows.
    Lend,
    /// To a port of the node's that is lent: [`heard`] notes it.
    Heard,
    /// So, and noted: [`deliver`] sends it back.
    Deliver,
    /// To its backend's node: [`tunnel`] sends it.
    Tunnel,
    /// Decided, not carried out: [`finish`] does.
    Finish,
    /// Answered by [`reject`], and why.
    Reject(Counter),
    /// A packet of a protocol that is not balanced, perhaps a message of ICMP: [`message`] decides and counts.
    Message,
    /// An error of ICMP, perhaps about a packet of a flow: [`error`] decides and counts.
    Error,
    /// A neighbour solicitation: [`answer_solicitation`] decides and counts.
    Solicitation,
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
    if matches!(way, Err(Counter::Protocol)) {
        return Verdict::Message;
    }
    conclude(way, tables)
}

/// Parses a packet that came back with [`Verdict::Hard`]: [`resume`] takes it then, or [`finish`] if it belongs to
/// one that was seen before.
#[inline(always)]
pub fn hard<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T, hook: Hook) -> Verdict {
    conclude(hard::parse(packet, tables, hook), tables)
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
    conclude(noted(tables, |note| open::record(packet, tables, hook, note)), tables)
}

/// Lends a port of the node's to a packet that came back with [`Verdict::Lend`], and makes its rows:
/// [`finish`] takes it then.
#[inline(always)]
pub fn lend<F: Family, P: Packet, T: Tables<F>>(packet: &P, tables: &T) -> Verdict {
    let lent = noted(tables, |note| snat::lend(packet, tables, note));
    conclude(lent.map(|()| Verdict::Finish), tables)
}

/// Notes what came back with [`Verdict::Heard`] in its flow; [`deliver`] takes it then.
#[inline(always)]
pub fn heard<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T) -> Verdict {
    conclude(noted(tables, |note| snat::heard(packet, tables, &note.parsed)), tables)
}

/// Sends what came back with [`Verdict::Deliver`] to its client.
#[inline(always)]
pub fn deliver<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T, hook: Hook) -> Verdict {
    conclude(noted(tables, |note| snat::deliver(packet, tables, hook, &note.parsed)), tables)
}

/// Sends what came back with [`Verdict::Tunnel`] to its backend's node.
#[inline(always)]
pub fn tunnel<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T, hook: Hook) -> Verdict {
    match conclude(noted(tables, |note| dsr::send(packet, tables, hook, note)), tables) {
        // As in [`error`], which some of them have come from.
        Verdict::Reject(why) if dsr::is_message::<F, P>(packet) => Verdict::Drop(why),
        other => other,
    }
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
    let way = noted(tables, |note| {
        let parsed = &note.parsed;
        let later = parsed.part == Part::Later;
        // What has just been recorded is gone again: the table is that full.
        let gone = if later { Counter::FragmentLost } else { Counter::TableFull };
        let found = flow::find(tables, &parsed.key);
        if later && hook == Hook::UplinkIngress && found.is_none() && tables.snat(&parsed.key).is_some() {
            return Ok(Verdict::Deliver);
        }
        let found = found.ok_or(gone)?;
        let backend = found.1.backend;
        // The flow has moved since its packet began.
        if later && backend != note.backend.get() {
            return Err(gone);
        }
        if dsr::is_of(hook, &found.1) {
            if parsed.part == Part::First {
                hard::keep(tables, parsed, backend);
            }
            return dsr::aim(packet, tables, parsed, found);
        }
        let verdict = go(packet, tables, hook, parsed, found, Form::Any)?;
        if parsed.part == Part::First {
            hard::keep(tables, parsed, backend);
        }
        Ok(verdict)
    });
    conclude(way, tables)
}

/// All these functions, as the kernel programs call them one after the other: for hosts, where stack is no
/// matter. None of the verdicts that ask for the next, [`Verdict::Solicitation`] aside.
pub fn decide<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T, hook: Hook) -> Verdict {
    let mut verdict = if packet.tagged() { Verdict::Hard } else { run(packet, tables, hook) };
    let unwrapped = verdict == Verdict::Message && hook == Hook::UplinkIngress && unwrap(packet, tables);
    if unwrapped {
        verdict = run(packet, tables, hook);
    }
    loop {
        verdict = match verdict {
            Verdict::Hard => hard(packet, tables, hook),
            Verdict::Resume => {
                note_unwrapped(tables, unwrapped);
                resume(packet, tables, hook)
            }
            Verdict::Open => open(tables),
            Verdict::Direct => direct(packet, tables),
            Verdict::Record => record(packet, tables, hook),
            Verdict::Lend => lend(packet, tables),
            Verdict::Heard => heard(packet, tables),
            Verdict::Deliver => deliver(packet, tables, hook),
            Verdict::Finish => finish(packet, tables, hook),
            Verdict::Tunnel => tunnel(packet, tables, hook),
            Verdict::Message => message(packet, tables, hook),
            Verdict::Error => error(packet, tables, hook),
            last => return last,
        }
    }
}

/// Notes whether [`unwrap`] has taken out a packet that is for [`resume`].
#[inline(always)]
pub fn note_unwrapped<F: Family, T: Tables<F>>(tables: &T, unwrapped: bool) {
    if let Some(note) = tables.noted() {
        note.unwrapped.set(unwrapped);
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
    let frame = match parse::frame::<F, P>(packet) {
        Ok(frame) => frame,
        // Too short: perhaps a fragment of a byte or two.
        Err(Counter::Truncated | Counter::Fragment | Counter::Options) => return Ok(Verdict::Hard),
        Err(stop) => return Err(stop),
    };
    let key = frame.key(tables.settings().zone as u16);
    if let Some(stop) = outsider(tables, hook, &key) {
        return Err(stop);
    }
    let payload = frame.ip.payload(packet.size() - size_of::<Ethernet>() as u32);
    let parsed = Parsed::new(packet, &frame.ethernet, key, Place::plain::<F>(payload))?;
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
        if guides && dsr::is_of(hook, &known) {
            tables.note(&parsed, true);
            return dsr::aim(packet, tables, &parsed, (row, known));
        }
        if guides {
            let way = go(packet, tables, hook, &parsed, (row, known), Form::Plain);
            if way.is_err() && !hook.is_egress() {
                // [`reject`] may have to know it.
                tables.note(&parsed, true);
            }
            return way;
        }
    }
    tables.note(&parsed, row.is_some());
    Ok(Verdict::Resume)
}

/// Why a packet is nobody's of ours, if it is not.
#[inline(always)]
fn outsider<F: Family, T: Tables<F>>(tables: &T, hook: Hook, key: &FlowKey<F>) -> Option<Counter> {
    if tables.interesting(interest_hash(key.dst, 0))
        || tables.interesting(interest_hash(key.src, key.src_port))
        || hook == Hook::PortIngress && tables.interesting(interest_hash(key.dst, key.dst_port))
    {
        return None;
    }
    let unowned = !hook.is_egress() && select::is_unowned::<F, T>(tables, key.dst);
    Some(if unowned { Counter::Unowned } else { Counter::NotOurs })
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
        // The node's address may be a frontend's, too.
        Resumed::Unknown
            if hook.from_outside() && key.dst == F::host(tables.settings()) && tables.snat(key).is_some() =>
        {
            Ok(Verdict::Heard)
        }
        known if known == Resumed::Misguided || tables.interesting(interest_hash(key.dst, 0)) => {
            if flow::is_forged(packet, tables, hook, key.src) {
                return Err(Counter::Forged);
            }
            note.misguided.set(known == Resumed::Misguided);
            Ok(Verdict::Open)
        }
        _ if hook == Hook::PortIngress && tables.interesting(interest_hash(key.dst, key.dst_port)) => {
            let begins = parsed.protocol() != Protocol::Tcp || parsed.flags.opens();
            if begins {
                return Ok(Verdict::Direct);
            }
            let mark =
                || flow::find(tables, &flow::twin(key, key.zone)).is_some_and(|(_, row)| row.is_direct());
            let made = !parsed.flags.resets() || mark();
            Err(if made { Counter::Direct } else { Counter::StrayReset })
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
    form: Form,
) -> Result<Verdict, Counter> {
    let (_, known) = found;
    let (onward, port);
    if known.is_reply() {
        if hook == Hook::PortIngress && answers_for_another(packet, tables, &known) {
            return Err(Counter::Forged);
        }
        (onward, port) = (forward::to_client(packet, tables, hook, parsed, &known)?, known.ifindex);
        flow::reply(tables, parsed, found);
    } else if hook.is_egress() {
        return Err(Counter::WrongHook);
    } else {
        flow::request(packet, tables, hook, parsed, found);
        let (word, backend) = tables.backend(known.backend.low).ok_or(Counter::Unsettled)?;
        let reach = tables.reach(word.reach()).ok_or(Counter::Unreachable)?;
        onward = forward::to_backend(packet, tables, hook, parsed, &reach, known.is_hairpin())?;
        port = reach.ifindex;
        tables.account(backend.service, packet.size());
    }
    if !hook.is_egress() && forward::is_too_big(packet, tables, onward.way, port) {
        return Err(Counter::TooBig);
    }
    let to = if snat::is_of(hook, &known) {
        snat::translated(tables, &parsed.key, &known)
    } else {
        flow::translated(&parsed.key, &known)
    };
    rewrite::rewrite(packet, parsed, &to, &onward, form)?;
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
        Counter::NoBackend
        | Counter::NoPort
        | Counter::BackendGone
        | Counter::TtlExceeded
        | Counter::TooBig => Verdict::Reject(stop),
        Counter::NoLocalBackend
        | Counter::SourceRange
        | Counter::Unowned
        | Counter::Unsettled
        | Counter::Unreachable
        | Counter::TableFull
        | Counter::Clash
        | Counter::Forged
        | Counter::NoSnatPort
        | Counter::StrayReset
        | Counter::FragmentLost
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
        | Counter::Request
        | Counter::Reply
        | Counter::Tunneled
        | Counter::Unwrapped
        | Counter::NewFlow
        | Counter::Proven
        | Counter::Moved
        | Counter::Direct
        | Counter::Rebuilt
        | Counter::Answered
        | Counter::Error
        | Counter::Echoed
        | Counter::SocketConnected
        | Counter::SocketSent
        | Counter::SocketMoved => Verdict::Pass,
    }
}

/// The way back to clients whose packets are seen at `hook`. A bridge knows what tag its client is to get.
#[inline(always)]
fn way_back<T: Common>(tables: &T, hook: Hook, tagged: bool) -> ReachKind {
    match hook {
        Hook::PortIngress if tagged => ReachKind::Bridge,
        Hook::PortIngress | Hook::PortEgress => ReachKind::from_bits(tables.settings().way_back),
        Hook::BridgeIngress | Hook::BridgeEgress => ReachKind::Bridge,
        Hook::UplinkIngress | Hook::UplinkEgress | Hook::UplinkXdp => ReachKind::Uplink,
    }
}
