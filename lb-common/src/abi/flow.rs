//! The flow table: one row per direction, keyed by what is seen on the wire.

use core::cell::Cell;

use super::{BackendRef, Mac, pod};
use crate::{family::Family, wire::Protocol};

/// A packet's addresses and ports as seen on the wire, in one zone.
#[repr(C)]
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey<F: Family> {
    /// Source address.
    pub src: F::Addr,
    /// Destination address.
    pub dst: F::Addr,
    /// Source port, network byte order.
    pub src_port: u16,
    /// Destination port, network byte order.
    pub dst_port: u16,
    /// The zone (bridge) it is seen in.
    pub zone: u16,
    /// IP protocol number.
    pub protocol: u16,
}

impl<F: Family> FlowKey<F> {
    /// Writes the last four fields, which are halves of words, in whole words: so the hash of a table need not wait
    /// until what is read at once, but was written in two, is put together.
    #[inline(always)]
    pub fn join_halves(&mut self) {
        let [ports, rest] = [[self.src_port, self.dst_port], [self.zone, self.protocol]];
        // SAFETY: fields of a live key, two and two side by side and aligned to 4; volatile, as LLVM would part them
        // again.
        unsafe {
            (&raw mut self.src_port).cast::<u32>().write_volatile(bytemuck::cast(ports));
            (&raw mut self.zone).cast::<u32>().write_volatile(bytemuck::cast(rest));
        }
    }
}

/// One direction of a flow.
///
/// A *request* row is keyed client -> frontend and holds the backend's address; its reverse row, the *reply*
/// row, is keyed backend -> client and holds the frontend's. Each can rebuild the other.
#[repr(C)]
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct FlowRow<F: Family> {
    /// The backend.
    pub backend: BackendRef,
    /// When it was last used, in ticks.
    pub seen: u32,
    /// `flow_bits`; the reverse row's zone in the upper half.
    pub bits: u32,
    /// The address the packet gets: the backend's (request), the frontend's (reply).
    pub addr: F::Addr,
    /// The port the packet gets, network byte order.
    pub port: u16,
    /// The client's MAC, outside that of the last hop to here. Zero, in both rows: another node has passed on what the
    /// client sent, so nobody knows it.
    pub mac: Mac,
    /// The interface the client is behind.
    pub ifindex: u32,
}

impl<F: Family> Default for FlowRow<F> {
    fn default() -> Self {
        bytemuck::Zeroable::zeroed()
    }
}

/// A row of a flow whose client has not proved itself: that it hears what it is answered.
#[repr(C)]
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct UnassuredRow<F: Family> {
    /// As it will be among the assured ones.
    pub row: FlowRow<F>,
    /// TCP, request rows: a sequence number that the backend has sent; who acknowledges one near it has
    /// heard it. The host's byte order.
    pub proof: u32,
}

/// Bits of [`FlowRow::bits`].
pub mod flow_bits {
    /// The row of the reply direction.
    pub const REPLY: u32 = 1;
    /// The backend has answered.
    pub const ANSWERED: u32 = 1 << 1;
    /// The client has sent FIN.
    pub const FIN_CLIENT: u32 = 1 << 2;
    /// The backend has sent FIN.
    pub const FIN_BACKEND: u32 = 1 << 3;
    /// Either side has sent RST.
    pub const RESET: u32 = 1 << 4;
    /// Client and backend are one address: the client's address is the frontend's on the backend's side.
    pub const HAIRPIN: u32 = 1 << 5;
    /// The client has proved itself: the row is in the flow table and not among the unassured ones.
    pub const ASSURED: u32 = 1 << 6;
    /// No flow of ours: a client calls the backend itself, and the replies are not to be translated.
    pub const DIRECT: u32 = 1 << 7;
    /// Shift of which source port the flow has on the backend's side, see `FlowRow::port_mask`.
    pub const PORT_SHIFT: u32 = 11;
    /// Mask of that, after the shift.
    pub const PORT_MASK: u32 = 0x1f;
    /// Shift of the way back to the client, a `NextHopKind`.
    pub const RETURN_SHIFT: u32 = 8;
    /// Mask of the way back, after the shift.
    pub const RETURN_MASK: u32 = 0x7;
    /// Of a request row, which has no way back: on the backend's side the client is the node.
    pub const SNAT: u32 = 1 << RETURN_SHIFT;
    /// Of a request row, too: it goes to the backend's node inside another packet. It has no reverse row, as replies
    /// never
    /// come here.
    pub const TUNNEL: u32 = 2 << RETURN_SHIFT;
    /// Shift of the reverse row's zone.
    pub const ZONE_SHIFT: u32 = 16;
    /// How far the flow has come.
    pub const PROGRESS: u32 = ANSWERED | FIN_CLIENT | FIN_BACKEND | RESET;
    /// What belongs to the flow and not to one of its rows.
    pub const SHARED: u32 = PROGRESS | HAIRPIN | ASSURED | PORT_MASK << PORT_SHIFT;
}

/// Where a flow is in its life; what `lb get flows` shows.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum FlowState {
    /// No answer yet.
    Unanswered,
    /// Answered.
    Established,
    /// TCP: reset, or finished from both sides.
    Closing,
}

impl<F: Family> FlowRow<F> {
    /// Whether it is the row of the reply direction.
    #[inline(always)]
    pub fn is_reply(&self) -> bool {
        self.bits & flow_bits::REPLY != 0
    }

    /// Whether it only marks the tuple of a direct call.
    #[inline(always)]
    pub fn is_direct(&self) -> bool {
        self.bits & flow_bits::DIRECT != 0
    }

    /// Whether it is a request row without a reverse row: packets go to the backend's node inside others.
    #[inline(always)]
    pub fn is_tunnel(&self) -> bool {
        self.bits & (flow_bits::REPLY | flow_bits::RETURN_MASK << flow_bits::RETURN_SHIFT)
            == flow_bits::TUNNEL
    }

    /// Whether a request row is of a client that calls its backend by that one's own address. `key`: the row's.
    #[inline(always)]
    pub fn is_call(&self, key: &FlowKey<F>) -> bool {
        self.addr == key.dst && self.port == key.dst_port
    }

    /// Whether the client has proved itself.
    #[inline(always)]
    pub fn is_assured(&self) -> bool {
        self.bits & flow_bits::ASSURED != 0
    }

    /// Whether client and backend are one address.
    #[inline(always)]
    pub fn is_hairpin(&self) -> bool {
        self.bits & flow_bits::HAIRPIN != 0
    }

    /// What the client's port is changed by on the backend's side (exclusive or, network byte order): zero
    /// unless its tuple there is another flow's. Ports above 1023 stay above.
    #[inline(always)]
    pub fn port_mask(&self) -> u16 {
        // 1 to 31 give as many masks of ten bits.
        ((self.bits >> flow_bits::PORT_SHIFT & flow_bits::PORT_MASK) as u16 * 33).to_be()
    }

    /// The zone of the reverse row's key.
    #[inline(always)]
    pub fn reverse_zone(&self) -> u16 {
        (self.bits >> flow_bits::ZONE_SHIFT) as u16
    }

    /// Whether two rows differ in time and progress only.
    #[inline(always)]
    pub fn leads_where(&self, other: &Self) -> bool {
        self.backend == other.backend
            && self.addr == other.addr
            && self.port == other.port
            && self.mac == other.mac
            && self.ifindex == other.ifindex
            && (self.bits ^ other.bits) & !(flow_bits::PROGRESS | flow_bits::ASSURED) == 0
    }

    /// Where the flow is in its life.
    #[inline(always)]
    pub fn state(&self) -> FlowState {
        const FINISHED: u32 = flow_bits::FIN_CLIENT | flow_bits::FIN_BACKEND;
        if self.bits & flow_bits::RESET != 0 || self.bits & FINISHED == FINISHED {
            FlowState::Closing
        } else if self.bits & flow_bits::ANSWERED != 0 {
            FlowState::Established
        } else {
            FlowState::Unanswered
        }
    }

    /// Whether nobody has used the flow for its lifetime.
    #[inline(always)]
    pub fn expired(&self, protocol: Protocol, now: u32, lifetimes: &Lifetimes) -> bool {
        let lifetime = match (protocol, self.state()) {
            (Protocol::Tcp, FlowState::Unanswered) => lifetimes.tcp_unanswered,
            // Answered, but the client has yet to show that it heard it: a server's SYN-RECEIVED.
            (Protocol::Tcp, FlowState::Established) if !self.is_assured() => lifetimes.tcp_unanswered,
            (Protocol::Tcp, FlowState::Established) => lifetimes.tcp_established,
            (Protocol::Tcp, FlowState::Closing) => lifetimes.tcp_closing,
            (Protocol::Udp, FlowState::Unanswered) => lifetimes.udp_unanswered,
            (Protocol::Udp, _) => lifetimes.udp_answered,
            (Protocol::Sctp, _) => lifetimes.sctp,
        };
        now.wrapping_sub(self.seen) > lifetime
    }

    /// Writes the time of use, in place.
    #[inline(always)]
    pub fn touch(row: &Cell<Self>, now: u32) {
        // SAFETY: `row` is a live row; the field is aligned and written whole.
        unsafe { (&raw mut (*row.as_ptr()).seen).write_volatile(now) }
    }

    /// Writes the bits, in place. Two writers may each miss the other's bit: it is set again by the
    /// next packet that carries it, and a missed one costs a longer lifetime only.
    #[inline(always)]
    pub fn set_bits(row: &Cell<Self>, bits: u32) {
        // SAFETY: as in `touch`.
        unsafe { (&raw mut (*row.as_ptr()).bits).write_volatile(bits) }
    }

    /// Writes where the client's packets come from by now, in place: replies go there. A reader may see half of it,
    /// which costs a packet.
    #[inline(always)]
    pub fn lead_to(row: &Cell<Self>, [a, b, c]: Mac, ifindex: u32) {
        // SAFETY: as in `touch`.
        unsafe {
            let row = row.as_ptr();
            (&raw mut (*row).mac[0]).write_volatile(a);
            (&raw mut (*row).mac[1]).write_volatile(b);
            (&raw mut (*row).mac[2]).write_volatile(c);
            (&raw mut (*row).ifindex).write_volatile(ifindex);
        }
    }
}

/// How long a flow is kept without a packet, in ticks (about a second, see [`super::Settings`]).
/// The defaults are those of the kernel's connection tracking.
#[repr(C)]
#[derive(Copy, Clone, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Lifetimes {
    /// TCP, answered: 5 days.
    pub tcp_established: u32,
    /// TCP, finished or reset: 120 s.
    pub tcp_closing: u32,
    /// TCP, no answer: 60 s.
    pub tcp_unanswered: u32,
    /// UDP with replies: 180 s.
    pub udp_answered: u32,
    /// UDP without: 30 s.
    pub udp_unanswered: u32,
    /// SCTP: 10 min.
    pub sctp: u32,
}

impl Lifetimes {
    /// The defaults, in seconds.
    pub const SECONDS: Lifetimes = Lifetimes {
        tcp_established: 5 * 24 * 3600,
        tcp_closing: 120,
        tcp_unanswered: 60,
        udp_answered: 180,
        udp_unanswered: 30,
        sctp: 600,
    };

    /// Those that are in seconds in ticks, see [`ticks`].
    pub fn in_ticks(&self, hz: u32, shift: u32) -> Lifetimes {
        let ticks = |seconds| ticks(seconds, hz, shift);
        Lifetimes {
            tcp_established: ticks(self.tcp_established),
            tcp_closing: ticks(self.tcp_closing),
            tcp_unanswered: ticks(self.tcp_unanswered),
            udp_answered: ticks(self.udp_answered),
            udp_unanswered: ticks(self.udp_unanswered),
            sctp: ticks(self.sctp),
        }
    }
}

impl Default for Lifetimes {
    /// In seconds.
    fn default() -> Self {
        Self::SECONDS
    }
}

impl Lifetimes {
    /// Each longer by so much.
    pub fn longer_by(&self, more: u32) -> Lifetimes {
        Lifetimes {
            tcp_established: self.tcp_established + more,
            tcp_closing: self.tcp_closing + more,
            tcp_unanswered: self.tcp_unanswered + more,
            udp_answered: self.udp_answered + more,
            udp_unanswered: self.udp_unanswered + more,
            sctp: self.sctp + more,
        }
    }
}

/// Seconds in ticks of 2^`shift` jiffies, of which `hz` make a second; rounded up.
pub fn ticks(seconds: u32, hz: u32, shift: u32) -> u32 {
    (((seconds as u64 * hz as u64) >> shift) + 1) as u32
}

pod! { FlowKey: 16, 40; FlowRow: 32, 44; UnassuredRow: 36, 48; }
