//! Backends and how they are reached.

use super::{Mac, Word, pod};
use crate::{family::Family, wire::Protocol};

/// One backend of one service port: where requests are rewritten to.
#[repr(C)]
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct BackendRow<F: Family> {
    /// State and reach ([`BackendWord`]); the only part that changes while the row is in use.
    pub word: Word,
    /// Its address.
    pub addr: F::Addr,
    /// Its port, network byte order.
    pub port: u16,
    /// The zone its replies come from; [`super::ZONE_OF_CLIENT`] for a process of the host.
    pub zone: u16,
    /// The service row it belongs to, for counters and for the check of slots.
    pub service: u32,
    /// DSR: the address of its node, which packets from outside go to inside others; then its reach row is the way
    /// there. Zero: it is on this node, or its service does without.
    pub node: F::Addr,
}

impl<F: Family> Default for BackendRow<F> {
    fn default() -> Self {
        bytemuck::Zeroable::zeroed()
    }
}

/// The meaning of [`BackendRow::word`]: state in the low 8 bits, reach row above, generation in the
/// high half.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct BackendWord(pub Word);

/// Whether a backend takes flows.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum BackendState {
    /// Nothing; the row is free.
    Free,
    /// Takes new flows of these scopes and keeps its own.
    Active(Scopes),
    /// Keeps its flows, takes no new ones.
    Draining,
    /// Nobody answers where it is, and others of its service are reached: takes no new flows. TCP and SCTP flows
    /// wait for it, UDP flows move.
    Silent,
    /// No longer of its service: TCP flows stay while the address is reachable, UDP flows move.
    Removed,
    /// As [`BackendState::Removed`], of a service that wants its TCP flows to end: with a reset, at once.
    Reset,
}

/// Which of a service's backends a client may get: what the traffic policies come down to.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Scope {
    /// Any that is usable, wherever it is.
    Cluster = 1,
    /// Those on this node.
    Local = 2,
}

/// The scopes whose new flows an active backend takes; never none. They differ where backends of this
/// node terminate while others are ready, and where topology prefers others.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Scopes {
    /// [`Scope::Cluster`] alone: it is on another node, or this node's that count there are others.
    Cluster = 1,
    /// [`Scope::Local`] alone.
    Local = 2,
    /// Both.
    Both = 3,
}

impl Scopes {
    /// What either takes.
    pub fn union(self, other: Scopes) -> Scopes {
        if self == other { self } else { Scopes::Both }
    }
}

impl BackendState {
    /// Whether it takes new flows at all.
    #[inline(always)]
    pub fn is_active(self) -> bool {
        matches!(self, BackendState::Active(_))
    }

    /// Whether flows of a protocol stay with it.
    #[inline(always)]
    pub fn keeps(self, protocol: Protocol) -> bool {
        match self {
            BackendState::Active(_) | BackendState::Draining => true,
            BackendState::Silent | BackendState::Removed | BackendState::Reset => protocol != Protocol::Udp,
            BackendState::Free => false,
        }
    }

    /// Whether it is no longer of its service.
    #[inline(always)]
    pub fn is_removed(self) -> bool {
        matches!(self, BackendState::Removed | BackendState::Reset)
    }

    /// Whether it takes new flows of a scope.
    #[inline(always)]
    pub fn takes(self, scope: Scope) -> bool {
        matches!(self, BackendState::Active(scopes) if scopes as u32 & scope as u32 != 0)
    }
}

const DRAINING: u32 = 4;
const REMOVED: u32 = 5;
const RESET: u32 = 6;
const SILENT: u32 = 7;

impl BackendWord {
    /// A word from its parts. `next_hop` has 24 bits.
    #[inline(always)]
    pub fn new(state: BackendState, next_hop: u32, generation: u32) -> Self {
        let bits = match state {
            BackendState::Free => 0,
            BackendState::Active(scopes) => scopes as u32,
            BackendState::Draining => DRAINING,
            BackendState::Silent => SILENT,
            BackendState::Removed => REMOVED,
            BackendState::Reset => RESET,
        };
        BackendWord(Word { low: bits | next_hop << 8, generation })
    }

    /// The state.
    #[inline(always)]
    pub fn state(self) -> BackendState {
        match self.0.low & 0xff {
            1 => BackendState::Active(Scopes::Cluster),
            2 => BackendState::Active(Scopes::Local),
            3 => BackendState::Active(Scopes::Both),
            DRAINING => BackendState::Draining,
            SILENT => BackendState::Silent,
            REMOVED => BackendState::Removed,
            RESET => BackendState::Reset,
            _ => BackendState::Free,
        }
    }

    /// Whether it takes a new flow of that scope.
    #[inline(always)]
    pub fn takes(self, scope: Scope) -> bool {
        self.0.low & 0xff <= Scopes::Both as u32 && self.0.low & scope as u32 != 0
    }

    /// Index of the reach row.
    #[inline(always)]
    pub fn next_hop(self) -> u32 {
        self.0.low >> 8
    }
}

/// A backend's id together with the generation it was given out at: what slots' users and flows hold.
pub type BackendRef = Word;

/// The way to a backend. Immutable once published: learning a new port publishes a new row.
#[repr(C)]
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash, bytemuck::Pod, bytemuck::Zeroable)]
pub struct NextHopRow {
    /// The port of the bridge or the uplink, as interface index.
    pub ifindex: u32,
    /// The bridge, as interface index; 0 off the bridges.
    pub bridge: u32,
    /// The backend's MAC, off the bridges the next hop's; zero while it is unknown.
    pub mac: Mac,
    /// The host's own MAC there: the bridge's or the uplink's.
    pub host_mac: Mac,
    /// A [`NextHopKind`].
    pub kind: u32,
}

/// How a packet travels to a backend.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum NextHopKind {
    /// Nothing known yet and no bridge to ask: dropped.
    None = 0,
    /// Straight into the pod behind the port (`bpf_redirect_peer`).
    Peer = 1,
    /// By MAC, over the bridge.
    Bridge = 2,
    /// Over the bridge, whose neighbour table finds the MAC (`bpf_redirect_neigh`).
    Neighbour = 3,
    /// A process of the host itself: up the stack.
    Host = 4,
    /// Through an uplink's next hop.
    Uplink = 5,
    /// Rewritten and handed to the host's stack, so that netfilter sees it.
    Stack = 6,
    /// As [`NextHopKind::Neighbour`], but who was there has gone: its port is none of the bridge's any more, or
    /// nobody answers for the address.
    Gone = 7,
}

impl NextHopKind {
    /// The kind of a row's bits; what no version wrote is `None`.
    #[inline(always)]
    pub fn from_bits(bits: u32) -> NextHopKind {
        match bits {
            1 => NextHopKind::Peer,
            2 => NextHopKind::Bridge,
            3 => NextHopKind::Neighbour,
            4 => NextHopKind::Host,
            5 => NextHopKind::Uplink,
            6 => NextHopKind::Stack,
            7 => NextHopKind::Gone,
            _ => NextHopKind::None,
        }
    }
}

impl NextHopRow {
    /// Its kind.
    #[inline(always)]
    pub fn kind(&self) -> NextHopKind {
        NextHopKind::from_bits(self.kind)
    }
}

#[cfg(feature = "user")]
// SAFETY: bytemuck's derive has checked it.
unsafe impl aya::Pod for NextHopRow {}

pod! { BackendRow: 24, 48; }
const _: () = assert!(size_of::<NextHopRow>() == 24);
