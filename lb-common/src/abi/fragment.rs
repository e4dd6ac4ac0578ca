//! Packets in fragments: what the first one says of all.

use core::cell::Cell;

use super::{BackendRef, FlowKey, pod};
use crate::{family::Family, wire::NetworkHeader};

/// What the fragments of one packet have in common (RFC 791, section 3.2; RFC 8200, section 4.5), in one zone.
#[repr(C)]
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragmentKey<F: Family> {
    /// Source address, as it arrived.
    pub src: F::Addr,
    /// Destination address, as it arrived.
    pub dst: F::Addr,
    /// The packet's identification, as it lies there.
    pub id: u32,
    /// The zone (bridge) it is seen in.
    pub zone: u16,
    /// IP protocol number; 0 where it does not tell packets apart.
    pub protocol: u16,
}

impl<F: Family> FragmentKey<F> {
    /// Of the packet with this identification among those with `flow`'s addresses, zone and protocol.
    #[inline(always)]
    pub fn new(flow: &FlowKey<F>, id: u32) -> Self {
        let protocol = if F::Header::FRAGMENTS_BY_PROTOCOL { flow.protocol } else { 0 };
        FragmentKey { src: flow.src, dst: flow.dst, id, zone: flow.zone, protocol }
    }
}

/// A packet whose first fragment has been forwarded and whose last bytes have yet to be seen.
#[repr(C)]
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct FragmentRow {
    /// The backend of its flow.
    pub backend: BackendRef,
    /// Its source port, network byte order.
    pub src_port: u16,
    /// Its destination port, network byte order.
    pub dst_port: u16,
    /// When a fragment was last seen, in ticks.
    pub seen: u32,
    /// How many of its bytes have been seen.
    pub bytes: u32,
    /// How many it has; 0 before its last fragment was seen.
    pub total: u32,
    /// IP protocol number in the lower half; with [`FragmentRow::TO_STACK`].
    pub protocol: u32,
}

impl FragmentRow {
    /// The host's stack has got the first one, which was too big for its way. All others have to go there, too: it
    /// may put
    /// the packet together before it fragments it anew.
    pub const TO_STACK: u32 = 1 << 16;

    /// Whether its fragments go to the host's stack.
    #[inline(always)]
    pub fn is_to_stack(&self) -> bool {
        self.protocol & Self::TO_STACK != 0
    }

    /// For how many ticks (about a second each) after a fragment the next one is waited for. A sender that is
    /// fast gives an identification again after seconds (RFC 4963): a row that still waits then must not name
    /// the flow of the new packet. Fragments follow each other within milliseconds.
    pub const LIFETIME: u32 = 2;

    /// Whether a fragment now is of another packet.
    #[inline(always)]
    pub fn expired(&self, now: u32) -> bool {
        now.wrapping_sub(self.seen) > Self::LIFETIME
    }

    /// Notes a fragment, in place. Two CPUs may miss each other's bytes: then the row waits until it expires.
    #[inline(always)]
    pub fn update(row: &Cell<Self>, seen: u32, bytes: u32, total: u32) {
        let row = row.as_ptr();
        // SAFETY: `row` is a live row; the fields are aligned and written whole.
        unsafe {
            (&raw mut (*row).seen).write_volatile(seen);
            (&raw mut (*row).bytes).write_volatile(bytes);
            (&raw mut (*row).total).write_volatile(total);
        }
    }
}

#[cfg(feature = "user")]
// SAFETY: bytemuck's derive has checked it.
unsafe impl aya::Pod for FragmentRow {}

pod! { FragmentKey: 16, 40; }
