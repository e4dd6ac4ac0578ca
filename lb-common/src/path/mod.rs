//! The way of a packet, written once and compiled into every kernel program and into the host tests.
//!
//! ```text
//! parse -> flow table -> service -> select backend -> rewrite -> forward
//!               |  hit: straight to rewrite                         |
//!               `---------------------------------------------------'
//! ```
//! Nothing here knows of aya, of maps or of sockets: packets come in as [`Packet`], everything that is
//! remembered as [`Tables`].

mod flow;
mod forward;
mod parse;
mod rewrite;
mod select;
mod tables;

pub use forward::Way;
pub use select::slot_hash;
pub use tables::{Common, Insert, InsertError, Packet, SumKind, Tables, interest_hash};

use crate::{
    abi::{Counter, ReachKind},
    family::{Family, V4, V6},
    wire::ethernet,
};
use parse::Parsed;

/// Where a program is attached, seen from the traffic.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
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
    /// Whether packets leave the host's stack here: only replies of its own processes are ours then.
    #[inline(always)]
    fn is_egress(self) -> bool {
        matches!(self, Hook::PortEgress | Hook::BridgeEgress | Hook::UplinkEgress)
    }
}

/// What becomes of a packet.
#[must_use]
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Untouched, left to the next program.
    Pass,
    /// Dropped.
    Drop,
    /// Rewritten; it goes on its way.
    Forward(Way),
}

/// Decides and carries out what one packet gets, and counts the outcome.
#[inline(always)]
pub fn run<P: Packet, T: Tables<V4> + Tables<V6>>(packet: &mut P, tables: &T, hook: Hook) -> Verdict {
    match packet.ethertype() {
        ethernet::IPV4 => finish(tables, family::<V4, P, T>(packet, tables, hook)),
        ethernet::IPV6 => finish(tables, family::<V6, P, T>(packet, tables, hook)),
        _ => Verdict::Pass,
    }
}

#[inline(always)]
fn family<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
) -> Result<Way, Counter> {
    let frame = parse::frame::<F, P>(packet)?;
    let key = frame.key(tables.settings().zone as u16);
    if !tables.interesting(interest_hash(key.dst, 0))
        && !tables.interesting(interest_hash(key.src, key.src_port))
    {
        return Err(Counter::NotOurs);
    }
    let parsed = &mut Parsed::new(packet, frame, key)?;
    let found = tables.flow(&key).map(|row| (row, row.get()));
    match found {
        Some((row, known)) if known.is_reply() => flow::reply(packet, tables, hook, parsed, row, known),
        _ if hook.is_egress() => Err(Counter::WrongHook),
        Some((row, known)) if flow::usable(tables, parsed, &known) => {
            flow::request(packet, tables, hook, parsed, row, known)
        }
        Some(_) => {
            tables.count(Counter::Moved);
            flow::open(packet, tables, hook, parsed)
        }
        None => flow::open(packet, tables, hook, parsed),
    }
}

/// Every outcome has one verdict and one counter.
#[inline(always)]
fn finish<T: Common>(tables: &T, outcome: Result<Way, Counter>) -> Verdict {
    let stop = match outcome {
        Ok(way) => return Verdict::Forward(way),
        Err(stop) => stop,
    };
    tables.count(stop);
    match stop {
        Counter::NoBackend
        | Counter::Unreachable
        | Counter::TableFull
        | Counter::Clash
        | Counter::RewriteFailed => Verdict::Drop,
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
        | Counter::Moved
        | Counter::Rebuilt => Verdict::Pass,
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
