//! What is fixed when a program is loaded: a read-only global, so that what is off is not there.

use super::{Lifetimes, pod};
use crate::family::{Addr4, Addr6, Address as _, Family, V4, V6};

/// Options of one loaded object. One object is loaded per way back to clients (and one for the uplinks); all of them
/// share the maps.
#[repr(C)]
#[derive(Copy, Clone, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Settings {
    /// The zone that programs of the bridge and its ports work in; 0 where there are several bridges, whose zone is
    /// found by the device that a packet is at.
    pub zone: u32,
    /// How the clients behind these ports are reached: a `NextHopKind` (peer, bridge, stack, uplink).
    pub return_path: u32,
    /// Seed of the choice of slots, the same on every node that is to choose alike.
    pub hash_seed: u32,
    /// One tick is 2^shift jiffies.
    pub tick_shift: u32,
    /// 1: the kernel has `BPF_F_IPV6` for `bpf_l4_csum_replace` (6.16).
    pub has_csum_ipv6: u32,
    /// 1: `bpf_redirect_peer` leaves the packet addressed to the pod (6.15); 0: its type is set first.
    pub peer_scrubs: u32,
    /// 1: what comes in here comes from outside; 0: from pods, VMs or the host, which are not held to
    /// the external traffic policy.
    pub outside: u32,
    /// Lifetimes of flows, in ticks.
    pub lifetimes: Lifetimes,
    /// `serviceCIDRs` of IPv4: what no service owns there is dropped.
    pub cidrs4: Cidrs<V4>,
    /// And of IPv6.
    pub cidrs6: Cidrs<V6>,
    /// Cookie of the host's network namespace, low half first: whose sockets are translated.
    pub netns_cookie: [u32; 2],
    /// The node's address, zero where it has none: who a socket of the host is to source ranges and
    /// affinity before it has an address of its own, and who reports errors as a router.
    pub host4: Addr4,
    /// And of IPv6.
    pub host6: Addr6,
    /// 1: sockets of the network namespaces in `COOKIES` are translated, too.
    pub pod_sockets: u32,
    /// The smallest MTU, in bytes of network header and payload, of the devices that packets may leave by;
    /// 0 where all of them have the same: then nothing that came in is too big.
    pub mtu_floor: u32,
    /// First port of the node's that flows of clients outside to backends on other nodes may have.
    pub snat_first: u32,
    /// How many there are from it on; 0: such flows keep their source, and the reply takes its own way.
    pub snat_ports: u32,
    /// 1: there are several uplinks. What goes to a client outside is sent back to where its packets come from; with
    /// one the kernel finds the way.
    pub several_uplinks: u32,
}

impl Settings {
    /// What holds where nobody says anything: every option off, ticks of 256 jiffies, lifetimes as if a tick were
    /// a second.
    pub const DEFAULT: Settings = Settings {
        zone: 0,
        return_path: 0,
        hash_seed: 0,
        tick_shift: 8,
        has_csum_ipv6: 0,
        peer_scrubs: 0,
        outside: 0,
        lifetimes: Lifetimes::SECONDS,
        cidrs4: [Cidr::NONE; MAX_CIDRS],
        cidrs6: [Cidr::NONE; MAX_CIDRS],
        netns_cookie: [0; 2],
        host4: Addr4::ZERO,
        host6: Addr6::ZERO,
        pod_sockets: 0,
        mtu_floor: 0,
        snat_first: 0,
        snat_ports: 0,
        several_uplinks: 0,
    };
}

/// How many ranges of service addresses of one family the programs know.
pub const MAX_CIDRS: usize = 4;

/// Ranges of addresses, as many as there are; behind them is [`Cidr::NONE`].
pub type Cidrs<F> = [Cidr<F>; MAX_CIDRS];

/// A range of addresses.
#[repr(C)]
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Cidr<F: Family> {
    /// Its first address.
    pub net: F::Addr,
    /// Its mask.
    pub mask: F::Addr,
}

impl<F: Family> Cidr<F> {
    /// No address: none is its mask's complement and zero at once.
    pub const NONE: Self = Cidr { net: F::Addr::ONES, mask: F::Addr::ZERO };

    /// Whether it is a range at all.
    #[inline(always)]
    pub fn is_some(&self) -> bool {
        !self.mask.is_empty_mask()
    }

    /// Whether it holds an address.
    #[inline(always)]
    pub fn holds(&self, addr: F::Addr) -> bool {
        addr.masked(self.mask) == self.net
    }
}

pod! { Cidr: 8, 32; }

#[cfg(feature = "user")]
// SAFETY: bytemuck's derive has checked it.
unsafe impl aya::Pod for Settings {}

/// Bits of the prefilter; a power of two.
pub const PREFILTER_BITS: u32 = 1 << 20;
