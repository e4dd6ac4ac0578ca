//! What TCP (RFC 9293), UDP (RFC 768) and SCTP (RFC 9260) have in common for a load balancer: ports, most
//! of them a checksum over a pseudo header, and TCP's flags.

/// The first four bytes of a TCP, UDP or SCTP header.
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
    /// SCTP (RFC 9260). Its checksum covers neither addresses nor anything that is rewritten: ports stay.
    Sctp = 132,
}

impl Protocol {
    /// From the number in the IP header.
    #[inline(always)]
    pub fn from_number(number: u8) -> Option<Protocol> {
        match number {
            6 => Some(Protocol::Tcp),
            17 => Some(Protocol::Udp),
            132 => Some(Protocol::Sctp),
            _ => None,
        }
    }

    /// Length of the shortest header.
    #[inline(always)]
    pub fn header_len(self) -> u32 {
        match self {
            Protocol::Tcp => 20,
            Protocol::Udp => 8,
            Protocol::Sctp => 12,
        }
    }

    /// Offset in the header of the checksum over the pseudo header; SCTP has none.
    #[inline(always)]
    pub fn checksum_offset(self) -> Option<usize> {
        match self {
            Protocol::Tcp => Some(16),
            Protocol::Udp => Some(6),
            Protocol::Sctp => None,
        }
    }
}

/// Offset of the byte of flags in the TCP header.
pub const TCP_FLAGS: usize = 13;

/// TCP's flags; none for the others.
#[repr(transparent)]
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data follows.
    pub const FIN: u8 = 0x01;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 0x02;
    /// The connection is no more.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;

    /// The first segment of a connection: SYN without ACK or RST.
    #[inline(always)]
    pub fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK | Self::RST) == Self::SYN
    }

    /// SYN.
    #[inline(always)]
    pub fn synchronizes(self) -> bool {
        self.0 & Self::SYN != 0
    }

    /// ACK.
    #[inline(always)]
    pub fn acknowledges(self) -> bool {
        self.0 & Self::ACK != 0
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
