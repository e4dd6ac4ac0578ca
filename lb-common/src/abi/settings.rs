//! What is fixed when a program is loaded: a read-only global, so that what is off is not there.

use super::Lifetimes;

/// Options of one loaded object. One object is loaded per bridge and forward mode (and one for the
/// uplinks); all of them share the maps.
#[repr(C)]
#[derive(Copy, Clone, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Settings {
    /// The zone the programs work in.
    pub zone: u32,
    /// How the clients behind these ports are reached: a `ReachKind` (peer, bridge, stack, uplink).
    pub way_back: u32,
    /// The bridge, as interface index; 0 on uplinks.
    pub bridge: u32,
    /// Seed of the choice of slots, the same on every node that is to choose alike.
    pub hash_seed: u32,
    /// One tick is 2^shift jiffies.
    pub tick_shift: u32,
    /// 1: the kernel has `BPF_F_IPV6` for `bpf_l4_csum_replace` (6.16).
    pub has_csum_ipv6: u32,
    /// 1: `bpf_redirect_peer` leaves the packet addressed to the pod (6.15); 0: its type is set first.
    pub peer_scrubs: u32,
    /// Lifetimes of flows, in ticks.
    pub lifetimes: Lifetimes,
}

#[cfg(feature = "user")]
// SAFETY: bytemuck's derive has checked it.
unsafe impl aya::Pod for Settings {}

/// Bits of the map of interesting addresses; a power of two.
pub const INTEREST_BITS: u32 = 1 << 20;
