//! Rewrite: new addresses and ports, with every checksum that covers them.

use super::{Packet, SumKind, parse::Frame, parse::Parsed};
use crate::{
    abi::{Counter, FlowKey},
    family::{Address, Family, V6},
    wire::{NetworkHeader, checksum},
};

/// Writes the frame (link header and hop count as the caller set them) with the addresses and ports of `to`.
#[inline(always)]
pub fn rewrite<F: Family, P: Packet>(
    packet: &mut P,
    parsed: &mut Parsed<F>,
    to: &FlowKey<F>,
) -> Result<(), Counter> {
    let from = &parsed.key;
    let protocol = parsed.protocol;
    let offset = Frame::<F>::TRANSPORT + protocol.checksum_offset();
    let addresses = checksum::difference(from.src.sum() + from.dst.sum(), to.src.sum() + to.dst.sum());
    let ipv6 = F::ETHERTYPE == V6::ETHERTYPE;
    let mut changed =
        packet.update_checksum(offset, addresses, SumKind { protocol, pseudo_header: true, ipv6 });
    if (from.src_port, from.dst_port) != (to.src_port, to.dst_port) {
        let ports = checksum::difference(
            from.src_port as u64 + from.dst_port as u64,
            to.src_port as u64 + to.dst_port as u64,
        );
        changed &= packet.update_checksum(offset, ports, SumKind { protocol, pseudo_header: false, ipv6 });
    }
    parsed.frame.ip.set_addresses(to.src, to.dst, addresses);
    parsed.frame.ports.source = to.src_port;
    parsed.frame.ports.destination = to.dst_port;
    changed &= packet.store(0, &parsed.frame);
    if changed { Ok(()) } else { Err(Counter::RewriteFailed) }
}
