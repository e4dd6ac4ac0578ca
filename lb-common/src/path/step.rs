//! What one step of the path leaves to whoever carries the steps out: what becomes of the packet, or which step it
//! needs next.

use crate::abi::Stop;

/// What becomes of a packet.
#[must_use]
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Untouched, left to the next program.
    Pass,
    /// Dropped, and why.
    Drop(Stop),
    /// Rewritten or answered; it goes on its way.
    Forward(Egress),
}

/// How a rewritten packet leaves the hook.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Egress {
    /// As any packet: to the bridge, or up to the host.
    Continue,
    /// Into the namespace behind a port (interface index).
    Peer(u32),
    /// Out of a device (interface index), link header as it is.
    Device(u32),
    /// Out of a device (interface index), link header from its neighbour table.
    Neighbour(u32),
}

/// The steps, in the order in which [`super::run`] takes them.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Step {
    /// Answers with the refusal of the packet.
    Reject = Next::REJECT,
    /// Sends a packet of a known flow on its way, or says which step it needs.
    Established,
    /// Takes a packet out of the one that another node has sent it in.
    Decap,
    /// Parses what is no plain, whole packet.
    SlowParse,
    /// Looks at what is of a protocol that is not balanced: perhaps ICMP.
    Icmp,
    /// Translates an ICMP error about a packet of a flow.
    IcmpError,
    /// Answers a neighbour solicitation.
    ProxyNd,
    /// Looks for the rows of a packet's flow.
    Lookup,
    /// Keeps a call of a backend by its own address apart from flows through services.
    Direct,
    /// Chooses a backend for a new flow.
    Select,
    /// Makes the rows of a new flow.
    Open,
    /// Allocates a port of the node's to a new flow, and makes its rows.
    SnatAllocate,
    /// Translates a packet as its flow's rows say.
    Translate,
    /// Keeps the rows of a flow that has a port of the node's, of which this is a reply.
    SnatTrack,
    /// Sends a reply to a port of the node's to the client that has it.
    SnatReverse,
    /// Hands a packet that is too big for its way to the host's stack, which fragments it, if it may be fragmented.
    Oversized,
    /// Puts a packet into another, to its backend's node.
    Encap,
}

/// What a step leaves, in one word, since that is what the verifier lets subprograms return: in its low half what is
/// done with the packet or a [`Step`], in its high half a device or a [`Stop`].
#[must_use]
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Next(u64);

impl Next {
    /// Untouched, left to the next program.
    pub const PASS: Next = Next(0);

    const CONTINUE: u32 = 1;
    const PEER: u32 = 2;
    const EGRESS: u32 = 3;
    const NEIGHBOUR: u32 = 4;
    const DROP: u32 = 5;
    /// The first of the steps.
    const REJECT: u32 = 6;

    #[inline(always)]
    const fn new(what: u32, with: u32) -> Next {
        Next(what as u64 | (with as u64) << 32)
    }

    /// Dropped, and why.
    #[inline(always)]
    pub fn drop(why: Stop) -> Next {
        Next::new(Next::DROP, why as u32)
    }

    /// To be answered by [`Step::Reject`], and why.
    #[inline(always)]
    pub fn reject(why: Stop) -> Next {
        Next::new(Next::REJECT, why as u32)
    }

    #[inline(always)]
    fn what(self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    fn with(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Whether the packet passes or leaves: nothing is left to do. One comparison, as most packets do.
    #[inline(always)]
    pub fn is_done(self) -> bool {
        self.what() < Next::DROP
    }

    /// Why a packet is dropped or rejected, if it is: a [`Stop`].
    #[inline(always)]
    pub fn why(self) -> Option<u32> {
        (self.what() == Next::DROP || self.what() == Next::REJECT).then_some(self.with())
    }

    /// No answer to what gets none.
    #[inline(always)]
    pub fn unanswered(self) -> Next {
        if self == Step::Reject { Next::new(Next::DROP, self.with()) } else { self }
    }

    /// The packet was inside another.
    #[inline(always)]
    pub fn decapped(self) -> Next {
        Next::new(self.what(), 1)
    }

    /// Whether it was, as far as [`Step::Lookup`] asks.
    #[inline(always)]
    pub fn is_decapped(self) -> bool {
        self.with() != 0
    }

    /// What becomes of the packet; one that still needs a step passes.
    #[inline(always)]
    pub fn verdict(self) -> Verdict {
        match self.what() {
            Next::CONTINUE => Verdict::Forward(Egress::Continue),
            Next::PEER => Verdict::Forward(Egress::Peer(self.with())),
            Next::EGRESS => Verdict::Forward(Egress::Device(self.with())),
            Next::NEIGHBOUR => Verdict::Forward(Egress::Neighbour(self.with())),
            // A number that only a stop has been made.
            Next::DROP => Stop::of(self.with()).map_or(Verdict::Pass, Verdict::Drop),
            _ => Verdict::Pass,
        }
    }
}

impl From<Step> for Next {
    #[inline(always)]
    fn from(step: Step) -> Next {
        Next::new(step as u32, 0)
    }
}

impl From<Egress> for Next {
    #[inline(always)]
    fn from(way: Egress) -> Next {
        match way {
            Egress::Continue => Next::new(Next::CONTINUE, 0),
            Egress::Peer(device) => Next::new(Next::PEER, device),
            Egress::Device(device) => Next::new(Next::EGRESS, device),
            Egress::Neighbour(device) => Next::new(Next::NEIGHBOUR, device),
        }
    }
}

impl PartialEq<Step> for Next {
    #[inline(always)]
    fn eq(&self, step: &Step) -> bool {
        self.what() == *step as u32
    }
}
