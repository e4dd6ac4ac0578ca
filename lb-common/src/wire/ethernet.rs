//! Ethernet II.

use crate::abi::Mac;

/// EtherType of IPv4, network byte order.
pub const IPV4: u16 = 0x0800u16.to_be();
/// EtherType of ARP, network byte order.
pub const ARP: u16 = 0x0806u16.to_be();
/// EtherType of IPv6, network byte order.
pub const IPV6: u16 = 0x86ddu16.to_be();

/// The Ethernet header.
#[repr(C)]
#[derive(Copy, Clone, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Ethernet {
    /// Destination.
    pub destination: Mac,
    /// Source.
    pub source: Mac,
    /// EtherType, network byte order.
    pub ethertype: u16,
}
