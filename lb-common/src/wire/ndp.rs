//! Neighbor Discovery (RFC 4861): who has an IPv6 address, messages of ICMPv6.

use super::Icmp;
use crate::{abi::Mac, family::Addr6};

/// Hop limit of all of Neighbor Discovery: no router has passed it on.
pub const HOP_LIMIT: u8 = 255;

/// Neighbor Solicitation without its options (section 4.3).
#[repr(C)]
#[derive(Copy, Clone, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Solicitation {
    icmp: Icmp,
    target: [u16; 8],
}

/// Neighbor Advertisement with the option that tells the MAC (section 4.4).
#[repr(C)]
#[derive(Copy, Clone, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Advertisement {
    /// ICMPv6's header; flags follow its checksum.
    pub icmp: Icmp,
    target: [u16; 8],
    option: [u8; 2],
    mac: Mac,
}

const _: () = assert!(size_of::<Solicitation>() == 24 && size_of::<Advertisement>() == 32);

impl Solicitation {
    /// Its type and code.
    pub const KIND: [u8; 2] = [135, 0];

    /// The address that is asked for.
    #[inline(always)]
    pub fn asks_for(&self) -> Option<Addr6> {
        (self.icmp.kind == Self::KIND).then_some(Addr6(bytemuck::cast(self.target)))
    }

    /// The advertisement that answers it: `mac` has the address. `solicited`: the asker has told its own
    /// address. The checksum is left zero.
    #[inline(always)]
    pub fn advertisement(&self, mac: Mac, solicited: bool) -> Advertisement {
        const SOLICITED: u16 = 0x4000u16.to_be();
        const OVERRIDE: u16 = 0x2000u16.to_be();
        // Type 2, one unit of 8 bytes (section 4.6.1).
        const TARGET_LINK_LAYER_ADDRESS: [u8; 2] = [2, 1];
        let mut icmp = Icmp::new(136, 0);
        icmp.rest[0] = OVERRIDE | if solicited { SOLICITED } else { 0 };
        Advertisement { icmp, target: self.target, option: TARGET_LINK_LAYER_ADDRESS, mac }
    }
}

/// Whether it is a group that is asked for one of its addresses (`ff02::1:ff00:0/104`, RFC 4291 section
/// 2.7.1).
#[inline(always)]
pub fn is_solicited_node(addr: Addr6) -> bool {
    let [a, b, c, d] = addr.0;
    let last = 0xff00_0000u32.to_be();
    a == 0xff02_0000u32.to_be() && b == 0 && c == 1u32.to_be() && d & last == last
}

/// All nodes of a link (RFC 4291 section 2.7.1).
pub const ALL_NODES: Addr6 = Addr6([0xff02_0000u32.to_be(), 0, 0, 1u32.to_be()]);

/// Their MAC (RFC 2464 section 7).
pub const ALL_NODES_MAC: Mac = [0x3333u16.to_be(), 0, 1u16.to_be()];

#[cfg(test)]
mod tests {
    use core::net::Ipv6Addr;

    use super::*;

    #[test]
    fn groups() {
        let group = |text: &str| Addr6::from(text.parse::<Ipv6Addr>().expect("an address"));
        assert!(is_solicited_node(group("ff02::1:ff00:200")));
        assert!(!is_solicited_node(group("ff02::1")));
        assert!(!is_solicited_node(group("ff02::1:fe00:200")));
        assert!(!is_solicited_node(group("fd00::1:ff00:200")));
        assert_eq!(ALL_NODES, group("ff02::1"));
        assert_eq!(bytemuck::cast::<_, [u8; 6]>(ALL_NODES_MAC), [0x33, 0x33, 0, 0, 0, 1]);
    }
}
