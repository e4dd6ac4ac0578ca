//! What TCP (RFC 9293) and UDP (RFC 768) have in common for a load balancer: ports, a checksum over a
//! pseudo header, and TCP's flags.

/// The first eight bytes of a TCP or UDP header.
#[repr(C)]
#[derive(Copy, Clone, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Ports {
    /// Source port, network byte order.
    pub source: u16,
    /// Destination port, network byte order.
    pub destination: u16,
}

/// A transport protocol that is balanced.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Protocol {
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
}

impl Protocol {
    /// From the number in the IP header.
    #[inline(always)]
    pub fn from_number(number: u8) -> Option<Protocol> {
        match number {
            6 => Some(Protocol::Tcp),
            17 => Some(Protocol::Udp),
            _ => None,
        }
    }

    /// Length of the shortest header.
    #[inline(always)]
    pub fn header_len(self) -> u32 {
        match self {
            Protocol::Tcp => 20,
            Protocol::Udp => 8,
        }
    }

    /// Offset of the checksum in the header.
    #[inline(always)]
    pub fn checksum_offset(self) -> usize {
        match self {
            Protocol::Tcp => 16,
            Protocol::Udp => 6,
        }
    }
}

/// Offset of the byte of flags in the TCP header.
pub const TCP_FLAGS: usize = 13;

/// TCP's flags; none for UDP.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    const FIN: u8 = 0x01;
    const SYN: u8 = 0x02;
    const RST: u8 = 0x04;
    const ACK: u8 = 0x10;

    /// The first segment of a connection: SYN without ACK or RST.
    #[inline(always)]
    pub fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK | Self::RST) == Self::SYN
    }

    /// FIN.
    #[inline(always)]
    pub fn finishes(self) -> bool {
        self.0 & Self::FIN != 0
    }

    /// RST.
    #[inline(always)]
    pub fn resets(self) -> bool {
        self.0 & Self::RST != 0
    }
}
