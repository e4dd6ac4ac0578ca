//! Answers to those who look for a neighbour, and the MACs of uplinks.

use super::Mac;
use crate::family::{Addr4, Addr6};

/// An address that a bridge answers for, or an uplink.
///
/// Both families in one table, which is off the way of service traffic. Rows are updated in place: who
/// looks in the moment in which a row is replaced finds none, and asks again.
#[repr(C)]
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, bytemuck::Pod, bytemuck::Zeroable)]
pub struct NeighKey {
    /// The address; an IPv4 address as it is written in IPv6 (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2).
    pub addr: Addr6,
    /// The bridge's zone; 0: the uplinks'.
    pub zone: u32,
}

/// The zone of what nobody asks for: the uplinks themselves.
const NOT_ASKED: u32 = u32::MAX;

impl NeighKey {
    /// Of an IPv4 address.
    #[inline(always)]
    pub fn v4(addr: Addr4, zone: u32) -> Self {
        NeighKey { addr: Addr6([0, 0, 0xffffu32.to_be(), addr.0]), zone }
    }

    /// Of an IPv6 address.
    #[inline(always)]
    pub fn v6(addr: Addr6, zone: u32) -> Self {
        NeighKey { addr, zone }
    }

    /// Of an uplink itself, by interface index: who sends out of it by himself needs its MAC, and XDP, which sees what is
    /// for other hosts, too.
    #[inline(always)]
    pub fn uplink(ifindex: u32) -> Self {
        // In every word: LLVM would write zeros side by side by a byte loop.
        NeighKey { addr: Addr6([ifindex; 4]), zone: NOT_ASKED }
    }

    /// Whether it is an address that is answered for.
    pub fn is_asked(&self) -> bool {
        self.zone != NOT_ASKED
    }
}

/// Who is said to have the address.
#[repr(C)]
#[derive(Copy, Clone, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct ProxyNeighRow {
    /// The bridge's MAC, or the uplink's.
    pub mac: Mac,
    padding: u16,
}

impl ProxyNeighRow {
    /// A row.
    pub fn new(mac: Mac) -> Self {
        ProxyNeighRow { mac, padding: 0 }
    }
}

const _: () = assert!(size_of::<NeighKey>() == 20 && size_of::<ProxyNeighRow>() == 8);

#[cfg(feature = "user")]
// SAFETY: bytemuck's derive has checked it.
unsafe impl aya::Pod for NeighKey {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for ProxyNeighRow {}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn an_ipv4_address_as_ipv6_writes_it() {
        let address = Ipv4Addr::new(10, 244, 1, 200);
        let key = NeighKey::v4(address.into(), 7);
        assert_eq!(Ipv6Addr::from(key.addr), address.to_ipv6_mapped());
        assert_eq!(key, NeighKey::v6(address.to_ipv6_mapped().into(), 7));
    }
}
