//! The address family as a type parameter: everything that differs between IPv4 and IPv6.

use core::{fmt::Debug, hash::Hash, net::IpAddr};

use bytemuck::Pod;

use crate::{
    abi::{Cidrs, NeighKey, Settings},
    wire::{Ipv4, Ipv6, NetworkHeader, ethernet},
};

/// IPv4 or IPv6. Chosen once, by the EtherType; the code behind it is written once for both.
pub trait Family: Copy + Clone + Debug + Default + PartialEq + Eq + Hash + 'static {
    /// An address, in network byte order.
    type Addr: Address;
    /// The fixed part of the network header.
    type Header: NetworkHeader<Addr = Self::Addr>;
    /// EtherType, in network byte order.
    const ETHERTYPE: u16;
    /// Whether it is IPv6.
    const IPV6: bool;
    /// The address as the standard library has it.
    fn to_ip(addr: Self::Addr) -> IpAddr;
    /// And back; `None`: it is of the other family.
    fn from_ip(address: IpAddr) -> Option<Self::Addr>;
    /// The one of a pair that is of this family.
    fn of<P: Pair>(pair: P) -> P::Of<Self>;
    /// The ranges of service addresses of this family.
    fn cidrs(settings: &Settings) -> &Cidrs<Self>;
    /// The node's address of this family.
    fn host(settings: &Settings) -> Self::Addr;
    /// The key of an address in a zone, in maps that hold both families.
    fn neigh_key(addr: Self::Addr, zone: u32) -> NeighKey;
}

/// Two of a kind, one of each family: tables that exist twice.
pub trait Pair {
    /// The one of a family.
    type Of<F: Family>;
    /// IPv4's.
    fn v4(self) -> Self::Of<V4>;
    /// IPv6's.
    fn v6(self) -> Self::Of<V6>;
}

/// An address of one family, in network byte order, compared and hashed in whole words.
pub trait Address: Pod + Copy + Eq + Hash + Debug + Default {
    /// The address mixed into one word; equal addresses give equal words. Not a sum: parts do not commute.
    fn mix(self) -> u32;
    /// All bits zero.
    const ZERO: Self;
    /// All bits one.
    const ONES: Self;
    /// Whether it is a mask of length 0, which has no bits in its first word.
    fn is_empty_mask(self) -> bool;
    /// The bits that `mask` has, too.
    fn masked(self, mask: Self) -> Self;
    /// One's complement sum of the address as `__wsum`, unfolded, in memory byte order (RFC 1071).
    fn sum(self) -> u64;
}

/// IPv4.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct V4;

/// IPv6.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct V6;

impl Family for V4 {
    type Addr = Addr4;
    type Header = Ipv4;
    const ETHERTYPE: u16 = ethernet::IPV4;
    const IPV6: bool = false;

    fn to_ip(addr: Addr4) -> IpAddr {
        IpAddr::V4(addr.into())
    }

    fn from_ip(address: IpAddr) -> Option<Addr4> {
        match address {
            IpAddr::V4(address) => Some(address.into()),
            IpAddr::V6(_) => None,
        }
    }

    fn of<P: Pair>(pair: P) -> P::Of<Self> {
        pair.v4()
    }

    #[inline(always)]
    fn cidrs(settings: &Settings) -> &Cidrs<Self> {
        &settings.cidrs4
    }

    #[inline(always)]
    fn host(settings: &Settings) -> Addr4 {
        settings.host4
    }

    #[inline(always)]
    fn neigh_key(addr: Addr4, zone: u32) -> NeighKey {
        NeighKey::v4(addr, zone)
    }
}

impl Family for V6 {
    type Addr = Addr6;
    type Header = Ipv6;
    const ETHERTYPE: u16 = ethernet::IPV6;
    const IPV6: bool = true;

    fn to_ip(addr: Addr6) -> IpAddr {
        IpAddr::V6(addr.into())
    }

    fn from_ip(address: IpAddr) -> Option<Addr6> {
        match address {
            IpAddr::V6(address) => Some(address.into()),
            IpAddr::V4(_) => None,
        }
    }

    fn of<P: Pair>(pair: P) -> P::Of<Self> {
        pair.v6()
    }

    #[inline(always)]
    fn cidrs(settings: &Settings) -> &Cidrs<Self> {
        &settings.cidrs6
    }

    #[inline(always)]
    fn host(settings: &Settings) -> Addr6 {
        settings.host6
    }

    #[inline(always)]
    fn neigh_key(addr: Addr6, zone: u32) -> NeighKey {
        NeighKey::v6(addr, zone)
    }
}

/// An IPv4 address in network byte order.
#[repr(transparent)]
#[derive(
    Copy, Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, bytemuck::Pod, bytemuck::Zeroable,
)]
pub struct Addr4(pub u32);

/// An IPv6 address in network byte order, as four words.
#[repr(transparent)]
#[derive(
    Copy, Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, bytemuck::Pod, bytemuck::Zeroable,
)]
pub struct Addr6(pub [u32; 4]);

impl Address for Addr4 {
    const ZERO: Self = Addr4(0);
    const ONES: Self = Addr4(u32::MAX);

    #[inline(always)]
    fn is_empty_mask(self) -> bool {
        self.0 == 0
    }

    #[inline(always)]
    fn masked(self, mask: Self) -> Self {
        Addr4(self.0 & mask.0)
    }

    #[inline(always)]
    fn mix(self) -> u32 {
        scramble(self.0)
    }

    #[inline(always)]
    fn sum(self) -> u64 {
        self.0 as u64
    }
}

impl Address for Addr6 {
    const ZERO: Self = Addr6([0; 4]);
    const ONES: Self = Addr6([u32::MAX; 4]);

    #[inline(always)]
    fn is_empty_mask(self) -> bool {
        self.0[0] == 0
    }

    #[inline(always)]
    fn masked(self, mask: Self) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, mask.0);
        Addr6([a & e, b & f, c & g, d & h])
    }

    #[inline(always)]
    fn mix(self) -> u32 {
        // Odd factors: addresses that differ in one word only differ here, too. Side by side, where a chain
        // of finalizers would wait for each other.
        let [a, b, c, d] = self.0;
        let [a, b, c] =
            [a.wrapping_mul(0x9e37_79b1), b.wrapping_mul(0x85eb_ca77), c.wrapping_mul(0xc2b2_ae3d)];
        scramble(a ^ b.rotate_left(7) ^ c.rotate_left(13) ^ d)
    }

    #[inline(always)]
    fn sum(self) -> u64 {
        let [a, b, c, d] = self.0;
        a as u64 + b as u64 + c as u64 + d as u64
    }
}

impl From<core::net::Ipv4Addr> for Addr4 {
    fn from(address: core::net::Ipv4Addr) -> Self {
        Addr4(u32::from_ne_bytes(address.octets()))
    }
}

impl From<Addr4> for core::net::Ipv4Addr {
    fn from(address: Addr4) -> Self {
        address.0.to_ne_bytes().into()
    }
}

impl From<core::net::Ipv6Addr> for Addr6 {
    fn from(address: core::net::Ipv6Addr) -> Self {
        Addr6(bytemuck::cast(address.octets()))
    }
}

impl From<Addr6> for core::net::Ipv6Addr {
    fn from(address: Addr6) -> Self {
        bytemuck::cast::<_, [u8; 16]>(address.0).into()
    }
}

/// A 32-bit finalizer (the constants are those of MurmurHash3's `fmix32`): every input bit reaches
/// every output bit.
#[inline(always)]
pub fn scramble(mut h: u32) -> u32 {
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}
