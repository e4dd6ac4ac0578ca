//! ARP between Ethernet and IPv4 (RFC 826).

use crate::{abi::Mac, family::Addr4};

/// A request or a reply.
#[repr(C)]
#[derive(Copy, Clone, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Arp {
    hardware: u16,
    protocol: u16,
    lengths: [u8; 2],
    operation: u16,
    sender: Party,
    target: Party,
}

/// One of the two that a message names.
#[repr(C)]
#[derive(Copy, Clone, Debug, bytemuck::Pod, bytemuck::Zeroable)]
struct Party {
    mac: Mac,
    addr: [u16; 2],
}

const _: () = assert!(size_of::<Arp>() == 28);

const ETHERNET: u16 = 1u16.to_be();
const REQUEST: u16 = 1u16.to_be();
const REPLY: u16 = 2u16.to_be();

impl Arp {
    /// The address that is asked for. A probe (from 0.0.0.0, RFC 5227 section 2.1) asks, too; an
    /// announcement of the sender's own address (section 2.3) does not.
    #[inline(always)]
    pub fn asks_for(&self) -> Option<Addr4> {
        let asks = self.hardware == ETHERNET
            && self.protocol == super::ethernet::IPV4
            && self.lengths == [size_of::<Mac>() as u8, size_of::<Addr4>() as u8]
            && self.operation == REQUEST
            && self.sender.addr != self.target.addr;
        asks.then_some(Addr4(bytemuck::cast(self.target.addr)))
    }

    /// The MAC of who sends it.
    #[inline(always)]
    pub fn sender(&self) -> Mac {
        self.sender.mac
    }

    /// The reply to this request: `mac` has the address.
    #[inline(always)]
    pub fn reply(&self, mac: Mac) -> Arp {
        let sender = Party { mac, addr: self.target.addr };
        Arp { operation: REPLY, sender, target: self.sender, ..*self }
    }
}
