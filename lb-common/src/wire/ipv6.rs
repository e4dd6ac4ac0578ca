//! IPv6 (RFC 8200).

use super::{Extension, Fragment, Icmp, Layers, NetworkHeader, checksum};
use crate::{
    abi::Stop,
    family::{Addr6, Address as _},
};

/// The fixed header.
#[repr(C)]
#[derive(Copy, Clone, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Ipv6 {
    version_and_class: u8,
    class_and_label: u8,
    label: u16,
    payload_length: u16,
    next_header: u8,
    hop_limit: u8,
    source: [u16; 8],
    destination: [u16; 8],
}

impl Ipv6 {
    /// A header of our own, `payload` bytes of `protocol` to follow.
    #[inline(always)]
    pub fn new(source: Addr6, destination: Addr6, protocol: u8, payload: u16, hop_limit: u8) -> Self {
        Ipv6 {
            version_and_class: 0x60,
            class_and_label: 0,
            label: 0,
            payload_length: payload.to_be(),
            next_header: protocol,
            hop_limit,
            source: bytemuck::cast(source),
            destination: bytemuck::cast(destination),
        }
    }

    /// How many hops it may take.
    #[inline(always)]
    pub fn hop_limit(&self) -> u8 {
        self.hop_limit
    }
}

impl NetworkHeader for Ipv6 {
    type Addr = Addr6;
    const ICMP: u8 = 58;
    const INSIDE: u8 = 41;
    const PORT_UNREACHABLE: Icmp = Icmp::new(1, 4);
    const TIME_EXCEEDED: Icmp = Icmp::new(3, 0);
    const ECHO_REQUEST: u8 = 128;
    const ECHO_REPLY: u8 = 129;

    #[inline(always)]
    fn too_big(mtu: u32) -> Icmp {
        Icmp { rest: bytemuck::cast(mtu.to_be()), ..Icmp::new(2, 0) }
    }

    /// Destination unreachable, packet too big, time exceeded, parameter problem.
    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, 1..=4)
    }

    /// What follows is what the header says: an extension header is no transport protocol.
    #[inline(always)]
    fn begins_transport(&self) -> bool {
        self.version_and_class >> 4 == 6
    }
    const EXTENSIBLE: bool = true;
    const FRAGMENTS_BY_PROTOCOL: bool = false;

    #[inline(always)]
    fn answer(&self, protocol: u8, payload: u16) -> Self {
        Ipv6::new(self.destination(), self.source(), protocol, payload, 64)
    }

    /// Its flow label is the inner packet's, by which routers keep a flow on one path (RFC 6438).
    #[inline(always)]
    fn around(&self, source: Addr6, destination: Addr6) -> Self {
        const CONGESTION: u8 = 0x30;
        // 0 belongs to a large offloaded packet.
        let payload = match u16::from_be(self.payload_length).checked_add(size_of::<Self>() as u16) {
            Some(payload) if self.payload_length != 0 => payload,
            _ => 0,
        };
        Ipv6 {
            version_and_class: self.version_and_class,
            class_and_label: self.class_and_label & !CONGESTION,
            label: self.label,
            ..Ipv6::new(source, destination, Self::INSIDE, payload, 64)
        }
    }

    #[inline(always)]
    fn pseudo_sum(&self) -> u64 {
        let addresses = self.source().sum() + self.destination().sum();
        addresses + (self.next_header as u16).to_be() as u64 + self.payload_length as u64
    }

    #[inline(always)]
    fn check(&self, len: u32) -> Result<(), Stop> {
        if self.version_and_class >> 4 != 6 {
            return Err(Stop::Malformed);
        }
        // A payload length of 0 belongs to a jumbogram (RFC 2675) or to a large offloaded packet.
        let payload = u16::from_be(self.payload_length) as u32;
        if payload + size_of::<Self>() as u32 > len {
            return Err(Stop::Truncated);
        }
        if self.next_header == Extension::FRAGMENT {
            return Err(Stop::Fragment);
        }
        if Extension::is(self.next_header) {
            return Err(Stop::Options);
        }
        Ok(())
    }

    /// A payload length of 0 is taken as it is.
    #[inline(always)]
    fn in_parts(self, _len: u32) -> Self {
        self
    }

    #[inline(always)]
    fn may_be_fragmented(&self) -> bool {
        false
    }

    #[inline(always)]
    fn followed_by(self, protocol: u8) -> Self {
        Ipv6 { next_header: protocol, ..self }
    }

    #[inline(always)]
    fn layers(&self, len: u32) -> Result<Layers, Stop> {
        if self.version_and_class >> 4 != 6 {
            return Err(Stop::Malformed);
        }
        let offset = size_of::<Self>() as u32;
        if u16::from_be(self.payload_length) as u32 + offset > len {
            return Err(Stop::Truncated);
        }
        let (protocol, payload) = (self.next_header, self.payload(len));
        Ok(Layers { protocol, offset, payload, fragment: Fragment::default() })
    }

    #[inline(always)]
    fn payload(&self, len: u32) -> u32 {
        let payload = u16::from_be(self.payload_length) as u32;
        let most = len.saturating_sub(size_of::<Self>() as u32);
        if payload == 0 && most > u16::MAX as u32 { most } else { payload }
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        self.next_header
    }

    #[inline(always)]
    fn source(&self) -> Addr6 {
        Addr6(bytemuck::cast(self.source))
    }

    #[inline(always)]
    fn destination(&self) -> Addr6 {
        Addr6(bytemuck::cast(self.destination))
    }

    #[inline(always)]
    fn set_addresses(&mut self, source: Addr6, destination: Addr6, _difference: u32) {
        self.source = bytemuck::cast(source);
        self.destination = bytemuck::cast(destination);
    }

    #[inline(always)]
    fn take_hop(&mut self) -> Option<u32> {
        if self.hop_limit <= 1 {
            return None;
        }
        self.hop_limit -= 1;
        // The hop limit is the low byte of its word on the wire.
        Some(checksum::difference(0x0001u16.to_be() as u64, 0))
    }
}
