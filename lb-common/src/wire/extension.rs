//! IPv6 extension headers (RFC 8200, section 4).

use super::Fragment;

/// The first 8 bytes of any extension header; none is shorter.
#[repr(C)]
#[derive(Copy, Clone, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Extension {
    next: u8,
    length: u8,
    third: u8,
    fourth: u8,
    rest: [u16; 2],
}

impl Extension {
    /// Hop-by-Hop Options.
    pub const HOP_BY_HOP: u8 = 0;
    /// Routing.
    pub const ROUTING: u8 = 43;
    /// Fragment.
    pub const FRAGMENT: u8 = 44;
    /// Encapsulating Security Payload (RFC 4303): what is behind it can't be read.
    pub const ESP: u8 = 50;
    /// Authentication Header (RFC 4302).
    pub const AUTHENTICATION: u8 = 51;
    /// Destination Options.
    pub const DESTINATION: u8 = 60;

    /// Whether a next-header number is an extension header's (RFC 8200 section 4; 135 ff. from IANA's list).
    #[inline(always)]
    pub fn is(number: u8) -> bool {
        Self::can_be_passed(number) || matches!(number, Self::ESP | 135 | 139 | 140)
    }

    /// Whether it is one that need not be understood to find what follows.
    #[inline(always)]
    pub fn can_be_passed(number: u8) -> bool {
        matches!(
            number,
            Self::HOP_BY_HOP | Self::ROUTING | Self::FRAGMENT | Self::AUTHENTICATION | Self::DESTINATION
        )
    }

    /// Number of what follows.
    #[inline(always)]
    pub fn next(&self) -> u8 {
        self.next
    }

    /// Its length in bytes; `number` is what the header before calls it.
    #[inline(always)]
    pub fn length(&self, number: u8) -> u32 {
        match number {
            Self::FRAGMENT => size_of::<Self>() as u32,
            Self::AUTHENTICATION => (self.length as u32 + 2) * 4,
            _ => (self.length as u32 + 1) * 8,
        }
    }

    /// A routing header: how many addresses it has yet to name; until then the destination is not the last.
    #[inline(always)]
    pub fn segments_left(&self) -> u8 {
        self.fourth
    }

    /// A fragment header, with `length` bytes behind it.
    #[inline(always)]
    pub fn fragment(&self, length: u32) -> Fragment {
        let word = u16::from_be_bytes([self.third, self.fourth]);
        Fragment { id: bytemuck::cast(self.rest), offset: word & 0xfff8, more: word & 1 != 0, length }
    }
}
