//! Rewrite: new addresses and ports, with every checksum that covers them.

use super::packet::{Packet, SumKind};
use super::parse::{Frame, Headers};
use super::{egress::EgressPlan, state::Parsed};
use crate::{
    abi::{FlowKey, Stop},
    family::{Address, Family, V6},
    wire::{Ethernet, FragmentKind, NetworkHeader, Ports, checksum},
};

/// What is known of a packet's headers. A constant wherever it is named, so that each function has one form.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// They lie where those of a plain packet do.
    Plain,
    /// The transport header may be anywhere, or in another fragment.
    Any,
}

/// Gives the packet the addresses and ports of `to` and the link header and hop count of its way.
#[inline(always)]
pub fn rewrite<F: Family, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<F>,
    to: &FlowKey<F>,
    plan: &EgressPlan,
    form: Form,
) -> Result<(), Stop> {
    let from = &parsed.key;
    let addresses = checksum::difference(from.src.sum() + from.dst.sum(), to.src.sum() + to.dst.sum());
    let changed = match form {
        Form::Plain => plain(packet, parsed, to, plan, addresses)?,
        Form::Any => anywhere(packet, parsed, to, plan, addresses)?,
    };
    if changed { Ok(()) } else { Err(Stop::RewriteFailed) }
}

#[inline(always)]
fn plain<F: Family, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<F>,
    to: &FlowKey<F>,
    plan: &EgressPlan,
    addresses: u32,
) -> Result<bool, Stop> {
    let (ethernet, ip) = change(packet, to, plan, addresses)?;
    let frame = Frame::<F> { ethernet, ip, ports: Ports { source: to.src_port, destination: to.dst_port } };
    let mended = mend(packet, Frame::<F>::TRANSPORT, parsed, to, addresses);
    Ok(mended & packet.store(0, &frame))
}

#[inline(always)]
fn anywhere<F: Family, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<F>,
    to: &FlowKey<F>,
    plan: &EgressPlan,
    addresses: u32,
) -> Result<bool, Stop> {
    let (ethernet, ip) = change(packet, to, plan, addresses)?;
    let mut changed = packet.store(0, &Headers::<F> { ethernet, ip });
    if parsed.fragment != FragmentKind::Later {
        let ports = Ports { source: to.src_port, destination: to.dst_port };
        changed &= mend(packet, parsed.transport(), parsed, to, addresses);
        changed &= packet.store(parsed.transport(), &ports);
    } else if F::ETHERTYPE == V6::ETHERTYPE {
        packet.update_sum(addresses);
    }
    Ok(changed)
}

/// The link and network headers as they are to be.
#[inline(always)]
fn change<F: Family, P: Packet>(
    packet: &mut P,
    to: &FlowKey<F>,
    plan: &EgressPlan,
    addresses: u32,
) -> Result<(Ethernet, F::Header), Stop> {
    // Read again rather than kept since it was parsed: that would not fit the stack.
    let Some(mut ip) = packet.load::<F::Header>(size_of::<Ethernet>()) else {
        return Err(Stop::Truncated);
    };
    if plan.hop {
        let difference = ip.take_hop().ok_or(Stop::TtlExceeded)?;
        if F::ETHERTYPE == V6::ETHERTYPE {
            packet.update_sum(difference);
        }
    }
    ip.set_addresses(to.src, to.dst, addresses);
    let EgressPlan { destination, source, .. } = *plan;
    Ok((Ethernet { destination, source, ethertype: F::ETHERTYPE }, ip))
}

/// Mends the transport checksum; whether it could.
#[inline(always)]
fn mend<F: Family, P: Packet>(
    packet: &mut P,
    transport: usize,
    parsed: &Parsed<F>,
    to: &FlowKey<F>,
    addresses: u32,
) -> bool {
    let from = &parsed.key;
    let protocol = parsed.protocol();
    let ipv6 = F::ETHERTYPE == V6::ETHERTYPE;
    let mut mended = true;
    if let Some(offset) = protocol.checksum_offset() {
        let offset = transport + offset;
        let mut update = |difference, pseudo_header| {
            packet.update_checksum(offset, difference, SumKind { protocol, pseudo_header, ipv6 })
        };
        mended &= update(addresses, true);
        if (from.src_port, from.dst_port) != (to.src_port, to.dst_port) {
            let ports = checksum::difference(
                from.src_port as u64 + from.dst_port as u64,
                to.src_port as u64 + to.dst_port as u64,
            );
            mended &= update(ports, false);
        }
    } else if ipv6 {
        packet.update_sum(addresses);
    }
    mended
}
