//! Rewrite: new addresses and ports, with every checksum that covers them.

use super::{
    Packet, SumKind,
    forward::Onward,
    parse::{Frame, Parsed},
};
use crate::{
    abi::{Counter, FlowKey},
    family::{Address, Family, V6},
    wire::{NetworkHeader, checksum},
};

/// Gives the packet the addresses and ports of `to` and the link header and hop count of its way.
#[inline(always)]
pub fn rewrite<F: Family, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<F>,
    to: &FlowKey<F>,
    onward: &Onward,
) -> Result<(), Counter> {
    let from = &parsed.key;
    let protocol = parsed.protocol();
    let ipv6 = F::ETHERTYPE == V6::ETHERTYPE;
    let addresses = checksum::difference(from.src.sum() + from.dst.sum(), to.src.sum() + to.dst.sum());
    // Read again rather than kept since it was parsed: that would not fit the stack.
    let Some(mut frame) = packet.load::<Frame<F>>(0) else { return Err(Counter::Truncated) };
    if onward.hop {
        let difference = frame.ip.take_hop().ok_or(Counter::TtlExceeded)?;
        if ipv6 {
            packet.update_sum(difference);
        }
    }
    frame.ethernet.destination = onward.destination;
    frame.ip.set_addresses(to.src, to.dst, addresses);
    frame.ports.source = to.src_port;
    frame.ports.destination = to.dst_port;

    let mut changed = true;
    if let Some(offset) = protocol.checksum_offset() {
        let offset = Frame::<F>::TRANSPORT + offset;
        let mut update = |difference, pseudo_header| {
            packet.update_checksum(offset, difference, SumKind { protocol, pseudo_header, ipv6 })
        };
        changed &= update(addresses, true);
        if (from.src_port, from.dst_port) != (to.src_port, to.dst_port) {
            let ports = checksum::difference(
                from.src_port as u64 + from.dst_port as u64,
                to.src_port as u64 + to.dst_port as u64,
            );
            changed &= update(ports, false);
        }
    } else if ipv6 {
        packet.update_sum(addresses);
    }
    changed &= packet.store(0, &frame);
    if changed { Ok(()) } else { Err(Counter::RewriteFailed) }
}
