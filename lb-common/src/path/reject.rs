//! Reject: what nobody takes is answered at once, in the name of who was called.
//!
//! TCP gets a RST (RFC 9293, section 3.10.7.1), everything else ICMP's port unreachable (RFC 792, RFC 4443).
//! The packet itself becomes the answer and leaves where it came from.

use bytemuck::{Pod, Zeroable};

use super::{
    Packet, Parsed, Tables, Way,
    answer::{Answer, NETWORK, complete, put, started, sum},
    parse::{Headers, readable},
};
use crate::{
    family::{Family, V4, V6},
    wire::{Ethernet, Icmp, NetworkHeader, Protocol, Tcp},
};

/// ICMP's message: its header, then the packet that it is about, as far as its ports.
#[repr(C)]
#[derive(Copy, Clone)]
struct Unreachable<F: Family> {
    icmp: Icmp,
    about: Quote<F>,
}

/// As much of a packet as every ICMP error holds: the network header and 8 bytes of what it carries; as if nothing
/// lay between them, so that whoever reads it finds the ports.
#[repr(C)]
#[derive(Copy, Clone)]
struct Quote<F: Family> {
    ip: F::Header,
    transport: [u16; 4],
}

/// Turns the packet that was noted into the refusal of it; `None`: it gets none (a RST), or the kernel would not
/// let us.
#[inline(always)]
pub fn reject<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T) -> Option<Way> {
    let parsed = &tables.noted()?.parsed;
    let Headers { ethernet, ip } = packet.load::<Headers<F>>(0)?;
    match parsed.protocol() {
        Protocol::Tcp => reset(packet, parsed, &ip)?,
        Protocol::Udp | Protocol::Sctp => unreachable(packet, parsed, ip)?,
    }
    let Ethernet { destination, source, ethertype } = ethernet;
    let turned = Ethernet { destination: source, source: destination, ethertype };
    packet.store(0, &turned).then_some(Way::Egress(packet.ifindex()))
}

#[inline(always)]
fn reset<F: Family, P: Packet>(packet: &mut P, parsed: &Parsed<F>, ip: &F::Header) -> Option<()> {
    let offset = parsed.transport();
    let tcp = readable::<Tcp, P>(packet, offset).ok()?;
    let network = (offset - NETWORK) as u32;
    let payload = ip.payload(packet.size() - NETWORK as u32) + size_of::<F::Header>() as u32 - network;
    let mut then = tcp.reset_for(payload)?;
    let ip = F::Header::answer(ip, Protocol::Tcp as u8, size_of::<Tcp>() as u16);
    let pseudo = ip.pseudo_sum();
    let unfinished = packet.unfinished(offset + Protocol::Tcp.checksum_offset()?);
    then.check = if unfinished { started(pseudo) } else { complete(pseudo + sum(&then)) };
    put(packet, &Answer::<F, Tcp> { ip, then })
}

#[inline(always)]
fn unreachable<F: Family, P: Packet>(packet: &mut P, parsed: &Parsed<F>, ip: F::Header) -> Option<()> {
    let protocol = parsed.protocol();
    let transport = readable::<[u16; 4], P>(packet, parsed.transport()).ok()?;
    let unfinished = match protocol.checksum_offset() {
        Some(offset) => packet.unfinished(parsed.transport() + offset),
        None => false,
    };
    let about = Quote { ip: ip.followed_by(protocol as u8), transport };
    let mut then = Unreachable::<F> { icmp: F::Header::PORT_UNREACHABLE, about };
    let length = size_of::<Unreachable<F>>() as u16;
    let ip = F::Header::answer(&ip, F::Header::ICMP, length);
    // ICMPv6's checksum covers a pseudo header, ICMP's does not.
    let pseudo = if F::ETHERTYPE == V6::ETHERTYPE { ip.pseudo_sum() } else { 0 };
    then.icmp.check = complete(pseudo + sum(&then));
    if unfinished {
        // A device will sum up the message and write the complement where UDP's checksum was: into the
        // unused part of ICMP's header. From here on that makes the message whole again: it takes away
        // what the pseudo header adds, and for ICMP it is nothing (0xffff).
        then.icmp.unused[1] = started(pseudo);
    }
    put(packet, &Answer::<F, Unreachable<F>> { ip, then })
}

macro_rules! pod {
    ($($row:ty, $size:expr;)*) => {$(
        const _: () = assert!(size_of::<$row>() == $size);
    )*};
}
pod! {
    Unreachable<V4>, 36;
    Unreachable<V6>, 56;
    Quote<V4>, 28;
    Quote<V6>, 48;
}
// SAFETY: repr(C), every field is Pod with alignment 2 at most, and the sizes asserted above are the sums
// of the fields' sizes, so there is no padding.
unsafe impl<F: Family> Zeroable for Unreachable<F> {}
// SAFETY: as above.
unsafe impl<F: Family> Pod for Unreachable<F> {}
// SAFETY: as above.
unsafe impl<F: Family> Zeroable for Quote<F> {}
// SAFETY: as above.
unsafe impl<F: Family> Pod for Quote<F> {}
