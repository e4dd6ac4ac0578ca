//! Parse: from bytes to a flow key. What is not TCP, UDP or SCTP ends here; packets that are not whole and plain
//! are parsed by [`super::slow_parse`].

use bytemuck::{Pod, Zeroable};

use super::{packet::Packet, state::Parsed};
use crate::{
    abi::{FlowKey, Stop},
    family::{Family, V4, V6},
    wire::{Ethernet, Fragment, FragmentKind, NetworkHeader, Ports, Protocol, TcpFlags},
};

/// The headers of a plain packet that the path reads and rewrites, in one piece: read once, written once.
#[repr(C)]
#[derive(Copy, Clone)]
pub struct Frame<F: Family> {
    /// Link header.
    pub ethernet: Ethernet,
    /// Network header without options.
    pub ip: F::Header,
    /// The start of the transport header.
    pub ports: Ports,
}

const _: () = assert!(size_of::<Frame<V4>>() == 14 + 20 + 4 && size_of::<Frame<V6>>() == 14 + 40 + 4);
// SAFETY: repr(C), every field is Pod with alignment 2 at most, and the sizes asserted above are the
// sums of the fields' sizes, so there is no padding.
unsafe impl<F: Family> Zeroable for Frame<F> {}
// SAFETY: as above.
unsafe impl<F: Family> Pod for Frame<F> {}

/// The headers of any packet that the path reads and rewrites, ports aside.
#[repr(C)]
#[derive(Copy, Clone)]
pub struct Headers<F: Family> {
    /// Link header.
    pub ethernet: Ethernet,
    /// Network header without options.
    pub ip: F::Header,
}

const _: () = assert!(size_of::<Headers<V4>>() == 14 + 20 && size_of::<Headers<V6>>() == 14 + 40);
// SAFETY: as for `Frame`.
unsafe impl<F: Family> Zeroable for Headers<F> {}
// SAFETY: as for `Frame`.
unsafe impl<F: Family> Pod for Headers<F> {}

impl<F: Family> Frame<F> {
    /// Offset of the transport header.
    pub const TRANSPORT: usize = size_of::<Self>() - size_of::<Ports>();

    /// The flow the packet belongs to.
    #[inline(always)]
    pub fn key(&self, zone: u16) -> FlowKey<F> {
        FlowKey {
            src: self.ip.source(),
            dst: self.ip.destination(),
            src_port: self.ports.source,
            dst_port: self.ports.destination,
            zone,
            protocol: self.ip.protocol() as u16,
        }
    }
}

/// Where the path finds what follows a packet's network header and all that belongs to it.
#[derive(Copy, Clone)]
pub struct TransportSpan {
    /// Offset in the packet.
    pub transport: usize,
    /// Bytes from there on, without what pads the frame.
    pub payload: u32,
    /// Which part of its packet it is.
    pub fragment: Fragment,
}

impl TransportSpan {
    /// Right behind the network header, of a whole packet.
    #[inline(always)]
    pub fn plain<F: Family>(payload: u32) -> TransportSpan {
        let fragment = Fragment { length: payload, ..Fragment::default() };
        TransportSpan { transport: Frame::<F>::TRANSPORT, payload, fragment }
    }
}

impl<F: Family> Parsed<F> {
    /// Reads the transport header of a packet that may be ours. It has to be whole, in a first fragment, too
    /// (RFC 1858, RFC 7112).
    #[inline(always)]
    pub fn new<P: Packet>(
        packet: &mut P,
        ethernet: &Ethernet,
        key: FlowKey<F>,
        span: TransportSpan,
    ) -> Result<Self, Stop> {
        let TransportSpan { transport, payload, fragment } = span;
        let protocol = Protocol::from_number(key.protocol as u8).ok_or(Stop::Protocol)?;
        if payload < protocol.header_len() {
            return Err(Stop::Truncated);
        }
        let (flags, length) = match protocol {
            Protocol::Udp => {
                const LENGTH: usize = 4;
                let length = readable::<u16, P>(packet, transport + LENGTH)?;
                (TcpFlags::default(), u16::from_be(length) as u32)
            }
            Protocol::Sctp => (TcpFlags::default(), payload),
            Protocol::Tcp => {
                const DATA_OFFSET: usize = 12;
                let [words, flags] = readable::<[u8; 2], P>(packet, transport + DATA_OFFSET)?;
                (TcpFlags(flags), (words >> 4) as u32 * 4)
            }
        };
        // UDP's length is the datagram's, not the fragment's.
        if length < protocol.header_len() || length > payload && fragment.fragment() == FragmentKind::Whole {
            return Err(Stop::Malformed);
        }
        Ok(Self::with(ethernet, key, span, flags))
    }

    /// What is known of a packet with these flags of TCP's.
    #[inline(always)]
    pub fn with(ethernet: &Ethernet, key: FlowKey<F>, span: TransportSpan, flags: TcpFlags) -> Self {
        Parsed {
            key,
            destination: ethernet.destination,
            source: ethernet.source,
            transport: span.transport as u16,
            flags,
            fragment: span.fragment.fragment(),
            id: span.fragment.id,
            length: span.fragment.length as u16,
            tagged: false,
            reserved: 0,
        }
    }
}

/// The headers of a whole, plain packet of a protocol with ports.
#[inline(always)]
pub fn frame<F: Family, P: Packet>(packet: &mut P) -> Result<Frame<F>, Stop> {
    let mut frame = readable::<Frame<F>, P>(packet, 0)?;
    let len = packet.size() - size_of::<Ethernet>() as u32;
    match frame.ip.check(len) {
        Err(Stop::Malformed) => {
            frame.ip = in_parts::<F, P>(packet, frame.ip);
            frame.ip.check(len)?;
        }
        checked => checked?,
    }
    match Protocol::from_number(frame.ip.protocol()) {
        Some(_) => Ok(frame),
        None => Err(Stop::Protocol),
    }
}

/// The network header of a packet, as a part of it would be read where a device is to segment it.
#[inline(always)]
pub fn in_parts<F: Family, P: Packet>(packet: &P, ip: F::Header) -> F::Header {
    if packet.segment() == 0 { ip } else { ip.in_parts(packet.size() - size_of::<Ethernet>() as u32) }
}

/// Loads, after pulling it in where it lies outside the packet's linear part.
#[inline(always)]
pub fn readable<T: Pod, P: Packet>(packet: &mut P, offset: usize) -> Result<T, Stop> {
    if let Some(value) = packet.load(offset) {
        return Ok(value);
    }
    let end = (offset + size_of::<T>()) as u32;
    if packet.size() < end {
        return Err(Stop::Truncated);
    }
    packet.pull(end);
    packet.load(offset).ok_or(Stop::Truncated)
}
