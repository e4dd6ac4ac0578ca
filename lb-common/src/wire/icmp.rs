//! The header of ICMP (RFC 792) and ICMPv6 (RFC 4443) errors, which is of one shape; that of Neighbor
//! Discovery's messages (RFC 4861) is, too.

/// The first eight bytes of an error; the packet it is about follows. Or of a message about a neighbour.
#[repr(C)]
#[derive(Copy, Clone, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Icmp {
    /// Type and code, in this order on the wire.
    pub kind: [u8; 2],
    /// Checksum; ICMPv6's covers a pseudo header, too.
    pub check: u16,
    /// What the type gives it for: nothing, an MTU, flags of an advertisement.
    pub rest: [u16; 2],
}

impl Icmp {
    /// A message of a type and code.
    pub const fn new(kind: u8, code: u8) -> Icmp {
        Icmp { kind: [kind, code], check: 0, rest: [0; 2] }
    }
}
