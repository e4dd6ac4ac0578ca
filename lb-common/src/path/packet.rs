//! What the path asks of a packet: its bytes, and what a device still has to do to it.

use bytemuck::Pod;

use crate::{family::Family, wire::Protocol};

/// Checked views on a packet's bytes, from its Ethernet header on.
pub trait Packet {
    /// Bytes of the whole packet, also of the part that can't be read yet.
    fn size(&self) -> u32;
    /// Interface index of the device the program runs on.
    fn ifindex(&self) -> u32;
    /// Whether it has a VLAN tag, which is none of its bytes.
    fn tagged(&self) -> bool;
    /// Whether it has come in and is addressed to the MAC of another device.
    fn is_for_another(&self) -> bool;
    /// Makes the first `len` bytes readable.
    fn pull(&mut self, len: u32);
    /// A copy of what lies at `offset`, if it is readable.
    fn load<T: Pod>(&self, offset: usize) -> Option<T>;
    /// Writes at `offset`; whether it could.
    fn store<T: Pod>(&mut self, offset: usize, value: &T) -> bool;
    /// Applies a difference to the transport checksum at `offset`; whether it could.
    fn update_checksum(&mut self, offset: usize, difference: u32, kind: SumKind) -> bool;
    /// Makes the packet so long, by zeros at its end or by cutting it off; whether it could. What a device
    /// would have to do to it (segmentation) no longer is. A slow way, for answers.
    fn resize(&mut self, len: u32) -> bool;
    /// Makes room for `len` bytes, which are to be written, between the link header and the network header;
    /// whether it could.
    /// What a device still has to finish moves along.
    fn make_room(&mut self, len: u32) -> bool;
    /// Whether the device with that interface index takes it, or all the parts that it is to be segmented into.
    fn fits(&self, ifindex: u32) -> bool;
    /// What the device with that interface index takes, in bytes from the network header on; 0: there is none.
    fn mtu(&self, ifindex: u32) -> u32;
    /// How many bytes of what it carries each part has into which a device is to segment it; 0: it is none of those.
    fn segment(&self) -> u32;
    /// Puts it into another packet, whose network header this is: room is made before its own, and what a device
    /// still has to do to it is told of both; whether it could.
    fn wrap<F: Family>(&mut self, outer: &F::Header) -> bool;
    /// Takes it out of the packet that it is in, of the same family; whether it could.
    fn unwrap<F: Family>(&mut self) -> bool;
    /// Writes what the network header's layer and those above consist of from now on: as [`Self::store`],
    /// but nothing that a checksum of the packet makes up for.
    fn replace<T: Pod>(&mut self, offset: usize, value: &T) -> bool;
    /// Whether a device still has to finish the transport checksum at `offset` (CHECKSUM_PARTIAL).
    fn unfinished(&mut self, offset: usize) -> bool;
    /// Tells what knows the sum of the whole packet (CHECKSUM_COMPLETE) that bytes which no checksum of
    /// the packet covers changed by `difference`.
    fn update_sum(&mut self, difference: u32);
}

/// A packet whose bytes are written where they lie, which costs least.
pub trait InPlace: Packet {
    /// What lies at `offset`, if it is there.
    fn at<T: Pod>(&mut self, offset: usize) -> Option<&mut T>;
}

/// What a change of a transport checksum is about.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct SumKind {
    /// TCP or UDP; UDP over IPv4 may have no checksum (RFC 768), which stays so.
    pub protocol: Protocol,
    /// The addresses of the pseudo header changed, and not the transport header.
    pub pseudo_header: bool,
    /// IPv6: the address change is not made up for by a header checksum.
    pub ipv6: bool,
}
