//! IPv4 (RFC 791).

use super::{Fragment, Icmp, Layers, NetworkHeader, checksum};
use crate::{
    abi::Stop,
    family::{Addr4, Address as _},
};

/// A flag beside the offset of a fragment.
const DO_NOT_FRAGMENT: u16 = 0x4000u16.to_be();

/// The header without options.
#[repr(C)]
#[derive(Copy, Clone, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Ipv4 {
    version_and_length: u8,
    tos: u8,
    total_length: u16,
    id: u16,
    flags_and_offset: u16,
    ttl: u8,
    protocol: u8,
    check: u16,
    source: [u16; 2],
    destination: [u16; 2],
}

impl Ipv4 {
    /// A header of our own, of a packet that is `total` bytes long from it on and must not be fragmented.
    #[inline(always)]
    fn new(source: Addr4, destination: Addr4, protocol: u8, total: u16, tos: u8) -> Self {
        let mut new = Ipv4 {
            version_and_length: 0x45,
            tos,
            total_length: total.to_be(),
            id: 0,
            flags_and_offset: DO_NOT_FRAGMENT,
            ttl: 64,
            protocol,
            check: 0,
            source: bytemuck::cast(source),
            destination: bytemuck::cast(destination),
        };
        let words: [u16; 10] = bytemuck::cast(new);
        let sum = words.iter().map(|word| *word as u64).sum();
        new.check = !checksum::fold16(checksum::fold32(sum));
        new
    }
}

impl NetworkHeader for Ipv4 {
    type Addr = Addr4;
    const ICMP: u8 = 1;
    const INSIDE: u8 = 4;
    const PORT_UNREACHABLE: Icmp = Icmp::new(3, 3);
    const TIME_EXCEEDED: Icmp = Icmp::new(11, 0);
    const ECHO_REQUEST: u8 = 8;
    const ECHO_REPLY: u8 = 0;

    /// "Fragmentation needed" with the MTU (RFC 1191 section 4).
    #[inline(always)]
    fn too_big(mtu: u32) -> Icmp {
        Icmp { rest: [0, (mtu as u16).to_be()], ..Icmp::new(3, 4) }
    }

    /// Destination unreachable, time exceeded, parameter problem.
    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, 3 | 11 | 12)
    }

    #[inline(always)]
    fn begins_transport(&self) -> bool {
        const OFFSET: u16 = 0x1fffu16.to_be();
        self.version_and_length == 0x45 && self.flags_and_offset & OFFSET == 0
    }
    const EXTENSIBLE: bool = false;
    const FRAGMENTS_BY_PROTOCOL: bool = true;

    #[inline(always)]
    fn answer(&self, protocol: u8, payload: u16) -> Self {
        let total = size_of::<Self>() as u16 + payload;
        Ipv4::new(self.destination(), self.source(), protocol, total, 0)
    }

    #[inline(always)]
    fn around(&self, source: Addr4, destination: Addr4) -> Self {
        const SERVICE: u8 = 0xfc;
        // 0 belongs to a large offloaded packet.
        let total = match u16::from_be(self.total_length).checked_add(size_of::<Self>() as u16) {
            Some(total) if self.total_length != 0 => total,
            _ => 0,
        };
        Ipv4::new(source, destination, Self::INSIDE, total, self.tos & SERVICE)
    }

    #[inline(always)]
    fn pseudo_sum(&self) -> u64 {
        let addresses = self.source().sum() + self.destination().sum();
        let length = u16::from_be(self.total_length) - size_of::<Self>() as u16;
        addresses + (self.protocol as u16).to_be() as u64 + length.to_be() as u64
    }

    #[inline(always)]
    fn check(&self, len: u32) -> Result<(), Stop> {
        const MORE_FRAGMENTS_OR_OFFSET: u16 = 0x3fffu16.to_be();
        if self.version_and_length != 0x45 {
            let version = self.version_and_length >> 4;
            let words = self.version_and_length & 0xf;
            return Err(if version == 4 && words > 5 { Stop::Options } else { Stop::Malformed });
        }
        let total = u16::from_be(self.total_length) as u32;
        if total < size_of::<Self>() as u32 {
            return Err(Stop::Malformed);
        }
        if total > len {
            return Err(Stop::Truncated);
        }
        if self.flags_and_offset & MORE_FRAGMENTS_OR_OFFSET != 0 {
            return Err(Stop::Fragment);
        }
        Ok(())
    }

    #[inline(always)]
    fn in_parts(self, len: u32) -> Self {
        if self.total_length == 0 && len > u16::MAX as u32 {
            Ipv4 { total_length: u16::MAX, ..self }
        } else {
            self
        }
    }

    #[inline(always)]
    fn may_be_fragmented(&self) -> bool {
        self.flags_and_offset & DO_NOT_FRAGMENT == 0
    }

    #[inline(always)]
    fn followed_by(self, _protocol: u8) -> Self {
        Ipv4 { version_and_length: 0x45, ..self }
    }

    /// The options are for those who handle the packet next: they stay, unread.
    #[inline(always)]
    fn layers(&self, len: u32) -> Result<Layers, Stop> {
        const MORE_FRAGMENTS: u16 = 0x2000;
        const OFFSET: u16 = 0x1fff;
        let header = (self.version_and_length & 0xf) as u32 * 4;
        let total = u16::from_be(self.total_length) as u32;
        let plain = size_of::<Self>() as u32;
        if self.version_and_length >> 4 != 4 || header < plain || total < header {
            return Err(Stop::Malformed);
        }
        if total > len {
            return Err(Stop::Truncated);
        }
        let flags_and_offset = u16::from_be(self.flags_and_offset);
        let fragment = Fragment {
            id: self.id as u32,
            offset: (flags_and_offset & OFFSET) << 3,
            more: flags_and_offset & MORE_FRAGMENTS != 0,
            length: total - header,
        };
        Ok(Layers { protocol: self.protocol, offset: header, payload: total - header, fragment })
    }

    #[inline(always)]
    fn payload(&self, len: u32) -> u32 {
        // 0 belongs to a large offloaded packet.
        let total = if self.total_length == 0 { len } else { u16::from_be(self.total_length) as u32 };
        total.saturating_sub(size_of::<Self>() as u32)
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        self.protocol
    }

    #[inline(always)]
    fn source(&self) -> Addr4 {
        Addr4(bytemuck::cast(self.source))
    }

    #[inline(always)]
    fn destination(&self) -> Addr4 {
        Addr4(bytemuck::cast(self.destination))
    }

    #[inline(always)]
    fn set_addresses(&mut self, source: Addr4, destination: Addr4, difference: u32) {
        self.source = bytemuck::cast(source);
        self.destination = bytemuck::cast(destination);
        self.check = checksum::update(self.check, difference);
    }

    #[inline(always)]
    fn take_hop(&mut self) -> Option<u32> {
        if self.ttl <= 1 {
            return None;
        }
        self.ttl -= 1;
        // The TTL is the high byte of its word on the wire.
        self.check = checksum::update(self.check, checksum::difference(0x0100u16.to_be() as u64, 0));
        Some(0)
    }
}
