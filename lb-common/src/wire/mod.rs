//! Packet headers as they lie in the packet, one file per protocol: layout, accessors, setters that
//! keep the checksum.
//!
//! Headers start at even offsets, so their fields are made of 16-bit words (alignment 2).

mod arp;
pub mod checksum;
pub mod ethernet;
mod extension;
mod fragment;
mod icmp;
mod ipv4;
mod ipv6;
pub mod ndp;
mod tcp;
mod transport;

pub use arp::Arp;
use bytemuck::Pod;
pub use ethernet::Ethernet;
pub use extension::Extension;
pub use fragment::{Fragment, FragmentKind};
pub use icmp::Icmp;
pub use ipv4::Ipv4;
pub use ipv6::Ipv6;
pub use ndp::Solicitation;
pub use tcp::Tcp;
pub use transport::{Ports, Protocol, TCP_FLAGS, TcpFlags};

use crate::abi::Stop;

/// What follows a network header: at first its options or the first of its extension headers, if it has any,
/// then what those leave.
#[derive(Copy, Clone, Debug)]
pub struct Layers {
    /// Protocol number of what follows.
    pub protocol: u8,
    /// Bytes from the network header's start to it.
    pub offset: u32,
    /// Bytes from there to the packet's end, without what pads the frame.
    pub payload: u32,
    /// Which part of its packet it is.
    pub fragment: Fragment,
}

/// What the path needs of an IPv4 or IPv6 header.
pub trait NetworkHeader: Pod {
    /// The family's address.
    type Addr;
    /// Protocol number of the family's ICMP.
    const ICMP: u8;
    /// Protocol number of a whole packet of the family inside another (RFC 2003, RFC 2473).
    const INSIDE: u8;
    /// Its "port unreachable".
    const PORT_UNREACHABLE: Icmp;
    /// Its "time exceeded" in transit.
    const TIME_EXCEEDED: Icmp;
    /// Its type of an echo request.
    const ECHO_REQUEST: u8;
    /// Its type of an echo reply.
    const ECHO_REPLY: u8;
    /// Its "too big" for a next hop of this MTU, in bytes from the network header on.
    fn too_big(mtu: u32) -> Icmp;
    /// Whether its messages of a type are errors, which quote the packet that they are about.
    fn is_error(kind: u8) -> bool;
    /// Whether headers may lie between this one and the transport header.
    const EXTENSIBLE: bool;
    /// Whether the protocol is part of what tells a packet's fragments from another's (RFC 791, section 3.2;
    /// RFC 8200, section 4.5).
    const FRAGMENTS_BY_PROTOCOL: bool;
    /// The header of an answer to the packet with this header: addresses turned, `payload` bytes of
    /// `protocol` to follow.
    fn answer(&self, protocol: u8, payload: u16) -> Self;
    /// The header of a packet with the packet of this header inside. What is to be done with it on the way is the
    /// same, congestion aside, which is not told of (RFC 6040, section 4.3).
    fn around(&self, source: Self::Addr, destination: Self::Addr) -> Self;
    /// One's complement sum of the pseudo header over what follows, unfolded (RFC 9293 section 3.1, RFC
    /// 8200 section 8.1).
    fn pseudo_sum(&self) -> u64;
    /// Refuses headers that contradict themselves or the packet's length, fragments, options and
    /// headers between this one and the transport header. `len`: bytes from this header to the packet's end.
    fn check(&self, len: u32) -> Result<(), Stop>;
    /// The header of a packet that a device is to segment, as the first part of it would be read: where the packet is
    /// longer than the length field can say, that says 0 (BIG TCP). `len`: as before.
    fn in_parts(self, len: u32) -> Self;
    /// Whether a router may fragment the packet.
    fn may_be_fragmented(&self) -> bool;
    /// Whether a header that an error quotes is followed by a transport header: no other header in between,
    /// and no later fragment. What follows may be cut off.
    fn begins_transport(&self) -> bool;
    /// The same header without what lies between it and a transport header of this protocol. Its lengths stay.
    fn followed_by(self, protocol: u8) -> Self;
    /// What follows a header that need not be plain, or why it contradicts itself or the packet's length.
    /// `len`: as before.
    fn layers(&self, len: u32) -> Result<Layers, Stop>;
    /// Bytes that follow, of a header that passed [`Self::check`] with the same `len`. Not what pads the
    /// frame.
    fn payload(&self, len: u32) -> u32;
    /// Protocol number of what follows.
    fn protocol(&self) -> u8;
    /// Source address.
    fn source(&self) -> Self::Addr;
    /// Destination address.
    fn destination(&self) -> Self::Addr;
    /// Sets both addresses, whose sums differ by `difference`, and mends the header's checksum.
    fn set_addresses(&mut self, source: Self::Addr, destination: Self::Addr, difference: u32);
    /// One hop less; `None` and unchanged if the packet may not travel on. The difference is what the
    /// header's sum changes by: nothing where a checksum of its own makes up for it.
    fn take_hop(&mut self) -> Option<u32>;
}
