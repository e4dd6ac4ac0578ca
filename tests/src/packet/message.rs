//! Messages of ICMP and ICMPv6: echoes, and errors about another packet.

use etherparse::{IpHeaders, PacketBuilderStep};

use super::{Transport, Wire, mac};
use crate::family::{Net, socket};

/// What an error says.
#[derive(Copy, Clone, Debug)]
pub enum Complaint {
    /// Nobody has the port.
    PortUnreachable,
    /// The next hop takes packets of so many bytes.
    TooBig(u32),
    /// No hops were left.
    TimeExceeded,
    /// There is something wrong with a header.
    Problem,
}

impl Complaint {
    /// Type, code and the four bytes after the checksum.
    fn header(self, ipv4: bool) -> (u8, u8, [u8; 4]) {
        match (self, ipv4) {
            (Complaint::PortUnreachable, true) => (3, 3, [0; 4]),
            (Complaint::PortUnreachable, false) => (1, 4, [0; 4]),
            (Complaint::TooBig(mtu), true) => (3, 4, mtu.to_be_bytes()),
            (Complaint::TooBig(mtu), false) => (2, 0, mtu.to_be_bytes()),
            (Complaint::TimeExceeded, true) => (11, 0, [0; 4]),
            (Complaint::TimeExceeded, false) => (3, 0, [0; 4]),
            (Complaint::Problem, true) => (12, 0, [1, 0, 0, 0]),
            (Complaint::Problem, false) => (4, 0, [0, 0, 0, 6]),
        }
    }
}

/// What a message is.
#[derive(Clone, Debug)]
pub enum Message {
    /// Are you there?
    Echo,
    /// I am.
    EchoReply,
    /// An error about a packet, of which so many bytes behind the network header are quoted.
    Error(Complaint, Box<Wire>, usize),
}

/// An echo request.
pub fn echo(source: &str, destination: &str) -> Wire {
    Wire::new(source, destination, Transport::Message(Message::Echo))
}

impl Wire {
    /// The reply to an echo request, back where it came from.
    pub fn echoed(self) -> Self {
        Wire {
            source: self.destination,
            destination: self.source,
            link_source: self.link_destination,
            link_destination: self.link_source,
            hop_limit: 64,
            transport: Transport::Message(Message::EchoReply),
            ..self
        }
    }

    /// What `at` (`address:port`, the port does not matter) says to the sender of this packet; it quotes all of
    /// it.
    pub fn error_from(self, complaint: Complaint, at: &str) -> Self {
        let source = socket(at);
        let (destination, link_source) = (self.source, mac(source.ip().octets()));
        let error = Transport::Message(Message::Error(complaint, Box::new(self), usize::MAX));
        Wire { destination, link_source, payload: Vec::new(), ..Wire::new(at, at, error) }
    }

    /// "Port unreachable".
    pub fn unreachable_from(self, at: &str) -> Self {
        self.error_from(Complaint::PortUnreachable, at)
    }

    /// Sent by whoever sent `other` on the link.
    pub fn link_as(self, other: &Wire) -> Self {
        Wire { link_source: other.link_source, ..self }
    }

    /// The error quotes so many bytes behind the network header.
    pub fn quoting(self, len: usize) -> Self {
        match self.transport {
            Transport::Message(Message::Error(complaint, about, _)) => {
                Wire { transport: Transport::Message(Message::Error(complaint, about, len)), ..self }
            }
            _ => panic!("no error: {self}"),
        }
    }

    /// The error that this packet becomes where it can't go on: `at` sends it back, with its headers.
    pub fn returned(self, complaint: Complaint, at: &str) -> Self {
        let (link_source, link_destination) = (self.link_destination, self.link_source);
        let headers = match self.number() {
            6 => 20,
            132 => 12,
            _ => 8,
        };
        Wire { link_source, link_destination, ..self.error_from(complaint, at).quoting(headers) }
    }
}

/// Writes a message behind its network header.
pub fn write<F: Net>(
    wire: &Wire,
    message: &Message,
    ip: PacketBuilderStep<IpHeaders>,
    bytes: &mut Vec<u8>,
) -> Result<(), etherparse::err::packet::BuildWriteError> {
    let ipv4 = F::TRANSPORT == 34;
    // Identifier and sequence number.
    const ECHO: [u8; 4] = [0x12, 0x34, 0, 7];
    let (kind, code, rest, payload) = match message {
        Message::Echo => (if ipv4 { 8 } else { 128 }, 0, ECHO, wire.payload.clone()),
        Message::EchoReply => (if ipv4 { 0 } else { 129 }, 0, ECHO, wire.payload.clone()),
        Message::Error(complaint, about, quoted) => {
            let (kind, code, rest) = complaint.header(ipv4);
            let bytes = about.bytes::<F>();
            let end = bytes.len().min(F::TRANSPORT.saturating_add(*quoted));
            let quote = if *quoted < usize::MAX && about.has_more_headers() {
                about.quote::<F>(*quoted)
            } else {
                bytes[14..end].to_vec()
            };
            (kind, code, rest, quote)
        }
    };
    if ipv4 {
        ip.icmpv4_raw(kind, code, rest).write(bytes, &payload)
    } else {
        ip.icmpv6_raw(kind, code, rest).write(bytes, &payload)
    }
}
