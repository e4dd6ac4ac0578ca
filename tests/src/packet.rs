//! Packets that read like packets: `tcp("10.244.1.2:40000", "10.96.0.10:80").syn()`.

mod edit;
mod message;
mod neighbour;

use std::{
    fmt,
    net::{IpAddr, SocketAddrV4},
};

use edit::Edit;
use etherparse::{IpHeaders, IpNumber, PacketBuilder, PacketBuilderStep, TcpHeader};
use lb_common::{abi::FlowKey, wire::Protocol};

pub use message::{Complaint, echo};
pub use neighbour::{is_at, who_has};

use crate::family::{Net, socket};

/// Address of the bridge, whose MAC pods send to what is not on their link.
const GATEWAY: [u8; 4] = [10, 244, 1, 1];

/// A packet, before it is bytes of one family.
#[derive(Clone, Debug)]
pub struct Wire {
    source: SocketAddrV4,
    destination: SocketAddrV4,
    link_source: [u8; 6],
    link_destination: [u8; 6],
    hop_limit: u8,
    transport: Transport,
    payload: Vec<u8>,
    edits: Vec<Edit>,
}

#[derive(Clone, Debug)]
enum Transport {
    Tcp {
        flags: u8,
    },
    Udp,
    Sctp,
    Other(u8),
    /// A message about a neighbour.
    Neighbour(neighbour::Message),
    /// A message of ICMP.
    Message(message::Message),
    /// The reset of a segment with these flags, which said so much.
    Reset {
        flags: u8,
        said: usize,
    },
}

/// Sequence number of every segment, and what it acknowledges with ACK: the other side's first.
pub const SEQUENCE: u32 = 0x1234_5678;
const ACKNOWLEDGED: u32 = SEQUENCE + 1;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// The MAC of whoever has an address in the cases' network.
pub fn mac(written: [u8; 4]) -> [u8; 6] {
    let [a, b, c, d] = written;
    [2, 0, a, b, c, d]
}

/// A TCP segment with ACK and some data.
pub fn tcp(source: &str, destination: &str) -> Wire {
    Wire::new(source, destination, Transport::Tcp { flags: ACK })
}

/// A UDP datagram.
pub fn udp(source: &str, destination: &str) -> Wire {
    Wire::new(source, destination, Transport::Udp)
}

/// A packet of a protocol that is balanced.
pub fn of(protocol: Protocol, source: &str, destination: &str) -> Wire {
    match protocol {
        Protocol::Tcp => tcp(source, destination),
        Protocol::Udp => udp(source, destination),
        Protocol::Sctp => sctp(source, destination),
    }
}

/// The first packet of a flow.
pub fn first(protocol: Protocol, source: &str, destination: &str) -> Wire {
    match protocol {
        Protocol::Tcp => tcp(source, destination).syn(),
        other => of(other, source, destination),
    }
}

/// An SCTP packet: its common header with a checksum that nobody looks at, and some bytes of chunks.
pub fn sctp(source: &str, destination: &str) -> Wire {
    Wire::new(source, destination, Transport::Sctp)
}

/// A packet of another protocol between two addresses; the ports are not sent.
pub fn other(number: u8, source: &str, destination: &str) -> Wire {
    Wire::new(source, destination, Transport::Other(number))
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Wire { source, destination, transport, hop_limit, edits, payload, .. } = self;
        write!(f, "{transport:?} {source} > {destination}, {hop_limit} hops, {} bytes", payload.len())?;
        if edits.is_empty() { Ok(()) } else { write!(f, ", {edits:?}") }
    }
}

impl Wire {
    fn new(source: &str, destination: &str, transport: Transport) -> Self {
        let (source, destination) = (socket(source), socket(destination));
        Wire {
            source,
            destination,
            link_source: mac(source.ip().octets()),
            link_destination: mac(GATEWAY),
            hop_limit: 64,
            transport,
            payload: b"what a client says".to_vec(),
            edits: Vec::new(),
        }
    }

    fn flags(self, flags: u8) -> Self {
        let payload = if flags & (SYN | RST) != 0 { Vec::new() } else { self.payload };
        Wire { transport: Transport::Tcp { flags }, payload, ..self }
    }

    fn edit(mut self, edit: Edit) -> Self {
        self.edits.push(edit);
        self
    }

    /// The first segment of a connection.
    pub fn syn(self) -> Self {
        self.flags(SYN)
    }
    /// Its answer.
    pub fn syn_ack(self) -> Self {
        self.flags(SYN | ACK)
    }
    /// The last segment of one side.
    pub fn fin(self) -> Self {
        self.flags(FIN | ACK)
    }
    /// A reset.
    pub fn rst(self) -> Self {
        self.flags(RST | ACK)
    }
    /// Without ACK.
    pub fn unacknowledged(self) -> Self {
        self.flags(0)
    }
    /// The answer that refuses it, back to where it came from.
    pub fn refused(self) -> Self {
        let Transport::Tcp { flags } = self.transport else {
            let called = self.destination.to_string();
            return self.returned(Complaint::PortUnreachable, &called);
        };
        Wire {
            source: self.destination,
            destination: self.source,
            link_source: self.link_destination,
            link_destination: self.link_source,
            hop_limit: 64,
            transport: Transport::Reset { flags, said: self.payload.len() },
            payload: Vec::new(),
            edits: Vec::new(),
        }
    }
    /// Acknowledges this byte and those before it.
    pub fn acknowledges(self, number: u32) -> Self {
        self.transport_bytes(8, &number.to_be_bytes())
    }
    /// With this payload.
    pub fn says(self, payload: &[u8]) -> Self {
        Wire { payload: payload.to_vec(), ..self }
    }
    /// From another address and port; the link source stays.
    pub fn source(self, source: &str) -> Self {
        Wire { source: socket(source), ..self }
    }
    /// To another address and port; the link destination stays.
    pub fn destination(self, destination: &str) -> Self {
        Wire { destination: socket(destination), ..self }
    }
    /// Sent by the device of this address (`address:port`; the port does not matter).
    pub fn link_from(self, at: &str) -> Self {
        Wire { link_source: mac(socket(at).ip().octets()), ..self }
    }
    /// Sent to the device of its destination.
    pub fn link_to_destination(self) -> Self {
        Wire { link_destination: mac(self.destination.ip().octets()), ..self }
    }
    /// Sent to the device of this address (`address:port`; the port does not matter).
    pub fn link_to(self, at: &str) -> Self {
        Wire { link_destination: mac(socket(at).ip().octets()), ..self }
    }
    /// With this TTL or hop limit.
    pub fn hops(self, hop_limit: u8) -> Self {
        Wire { hop_limit, ..self }
    }
    /// One hop less.
    pub fn routed(self) -> Self {
        Wire { hop_limit: self.hop_limit - 1, ..self }
    }
    /// UDP over IPv4 without a checksum.
    pub fn no_checksum(self) -> Self {
        self.edit(Edit::NoChecksum)
    }
    /// With so many bytes of IPv4 options: a multiple of 4 up to 40.
    pub fn options(self, len: usize) -> Self {
        self.edit(Edit::Options(len))
    }
    /// With IPv6 extension headers: the number of each and all of it but its first byte.
    pub fn extensions(self, chain: &[(u8, Vec<u8>)]) -> Self {
        self.edit(Edit::Extensions(chain.to_vec()))
    }
    /// The fragment with the bytes `from..to` of what follows the network header, of a packet with this
    /// identification; the last one if the packet ends there.
    pub fn piece(self, id: u16, from: usize, to: usize) -> Self {
        self.edit(Edit::Piece { id, from, to })
    }
    /// Routers may fragment it.
    pub fn may_be_fragmented(self) -> Self {
        self.edit(Edit::MayBeFragmented)
    }
    /// So many bytes from the network header on, more than that can say: what a device is to segment.
    pub fn big(self, len: usize) -> Self {
        self.edit(Edit::Big(len))
    }
    /// Inside another packet from one node to the other (`address:port`, the port does not matter).
    pub fn inside(self, source: &str, destination: &str) -> Self {
        self.edit(Edit::Inside(*socket(source).ip(), *socket(destination).ip()))
    }
    /// With a VLAN tag.
    pub fn tagged(self, id: u16) -> Self {
        self.edit(Edit::Tag(id))
    }
    /// With other bytes at an offset from the Ethernet header.
    pub fn frame_bytes(self, offset: usize, bytes: &[u8]) -> Self {
        self.edit(Edit::Frame(offset, bytes.to_vec()))
    }
    /// With other bytes at an offset from the transport header.
    pub fn transport_bytes(self, offset: usize, bytes: &[u8]) -> Self {
        self.edit(Edit::Transport(offset, bytes.to_vec()))
    }
    /// Cut off after `len` bytes; the headers don't know.
    pub fn cut(self, len: usize) -> Self {
        self.edit(Edit::Cut(len))
    }
    /// Cut off `len` bytes into the transport header; the network header says so.
    pub fn shortened(self, len: usize) -> Self {
        self.edit(Edit::Shorten(len))
    }
    /// With `len` bytes behind the end of the IP packet.
    pub fn padded(self, len: usize) -> Self {
        self.edit(Edit::Padding(len))
    }

    /// Whether its checksum covers it.
    pub fn has_checksum(&self) -> bool {
        !self.edits.iter().any(|edit| matches!(edit, Edit::NoChecksum))
    }

    /// The key of its flow's row in `zone`.
    pub fn key<F: Net>(&self, zone: u16) -> FlowKey<F> {
        FlowKey {
            src: F::addr(*self.source.ip()),
            dst: F::addr(*self.destination.ip()),
            src_port: self.source.port().to_be(),
            dst_port: self.destination.port().to_be(),
            zone,
            protocol: self.number() as u16,
        }
    }

    fn number(&self) -> u8 {
        match self.transport {
            Transport::Tcp { .. } | Transport::Reset { .. } => 6,
            Transport::Udp => 17,
            Transport::Sctp => 132,
            Transport::Other(number) => number,
            // IPv4's is another, but no row's.
            Transport::Neighbour(_) | Transport::Message(_) => 58,
        }
    }

    /// The reset of a segment (RFC 9293, section 3.10.7.1).
    fn reset(
        &self,
        flags: u8,
        said: usize,
        ip: PacketBuilderStep<IpHeaders>,
    ) -> PacketBuilderStep<TcpHeader> {
        let (from, to) = (self.source.port(), self.destination.port());
        if flags & ACK != 0 {
            return ip.tcp(from, to, ACKNOWLEDGED, 0).rst();
        }
        let one = |flag| (flags & flag != 0) as u32;
        let taken = said as u32 + one(SYN) + one(FIN);
        ip.tcp(from, to, 0, 0).rst().ack(SEQUENCE + taken)
    }

    /// Its bytes, with every checksum computed in full.
    pub fn bytes<F: Net>(&self) -> Vec<u8> {
        let ip = match (F::ip(*self.source.ip()), F::ip(*self.destination.ip())) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => PacketBuilder::ethernet2(
                self.link_source,
                self.link_destination,
            )
            .ipv4(source.octets(), destination.octets(), self.hop_limit),
            (IpAddr::V6(source), IpAddr::V6(destination)) => PacketBuilder::ethernet2(
                self.link_source,
                self.link_destination,
            )
            .ipv6(source.octets(), destination.octets(), self.hop_limit),
            _ => unreachable!("both addresses are of one family"),
        };
        let mut bytes = self.transport::<F>(ip);
        for edit in &self.edits {
            edit.apply::<F>(&mut bytes);
        }
        bytes
    }

    /// Whether something lies between its network and transport headers.
    fn has_more_headers(&self) -> bool {
        let lies_between =
            |edit: &Edit| matches!(edit, Edit::Options(_) | Edit::Extensions(_) | Edit::Piece { .. });
        self.edits.iter().any(lies_between)
    }

    /// What an ICMP error of ours says of it: the network header and `len` bytes of the transport header, without
    /// what lies between them.
    fn quote<F: Net>(&self, len: usize) -> Vec<u8> {
        let plain = Wire { edits: Vec::new(), ..self.clone() }.bytes::<F>();
        let mut quote = self.bytes::<F>()[14..F::TRANSPORT].to_vec();
        quote.extend_from_slice(&plain[F::TRANSPORT..F::TRANSPORT + len]);
        // What says that something lies there: IPv4's header length, IPv6's next header.
        let at = if F::TRANSPORT == 34 { 0 } else { 6 };
        quote[at] = plain[14 + at];
        quote
    }

    fn transport<F: Net>(&self, ip: PacketBuilderStep<IpHeaders>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let written = match self.transport {
            Transport::Neighbour(message) => return neighbour::bytes::<F>(self, message),
            Transport::Message(ref message) => message::write::<F>(self, message, ip, &mut bytes),
            Transport::Reset { flags, said } => self.reset(flags, said, ip).write(&mut bytes, &[]),
            Transport::Sctp => {
                let [a, b] = self.source.port().to_be_bytes();
                let [c, d] = self.destination.port().to_be_bytes();
                let mut message = vec![a, b, c, d, 0, 0, 0, 1, 0xc2, 0xc3, 0xc4, 0xc5];
                message.extend_from_slice(&self.payload);
                ip.write(&mut bytes, IpNumber(132), &message)
            }
            Transport::Tcp { flags } => {
                let mut step = ip.tcp(self.source.port(), self.destination.port(), SEQUENCE, 0xfaf0);
                if flags & FIN != 0 {
                    step = step.fin();
                }
                if flags & SYN != 0 {
                    step = step.syn();
                }
                if flags & RST != 0 {
                    step = step.rst();
                }
                if flags & ACK != 0 {
                    step = step.ack(ACKNOWLEDGED);
                }
                step.write(&mut bytes, &self.payload)
            }
            Transport::Udp => {
                ip.udp(self.source.port(), self.destination.port()).write(&mut bytes, &self.payload)
            }
            Transport::Other(number) => ip.write(&mut bytes, IpNumber(number), &self.payload),
        };
        written.expect("a vector takes every packet");
        bytes
    }
}
