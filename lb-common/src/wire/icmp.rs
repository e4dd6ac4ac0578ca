//! The header of ICMP (RFC 792) and ICMPv6 (RFC 4443) errors, which is of one shape.

/// The first eight bytes of an error; the packet it is about follows.
#[repr(C)]
#[derive(Copy, Clone, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Icmp {
    /// Type and code, in this order on the wire.
    pub kind: [u8; 2],
    /// Checksum; ICMPv6's covers a pseudo header, too.
    pub check: u16,
    /// Of no meaning for "unreachable".
    pub unused: [u16; 2],
}

impl Icmp {
    /// An error of a type and code.
    pub const fn new(kind: u8, code: u8) -> Icmp {
        Icmp { kind: [kind, code], check: 0, unused: [0; 2] }
    }
}
