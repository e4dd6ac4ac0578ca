//! Leave: whether XDP can send a packet out again by the device that it came in by. What it can't is left to tc.

use super::tables::{Common, Tables};
use super::{answer::NETWORK, egress::is_too_big, packet::Packet, state::Parsed, step::Egress};
use crate::{
    abi::{BackendRef, BackendRow, Mac, NeighKey, NextHopKind, NextHopRow, SnatRow, is_known},
    family::{Address as _, Family},
    wire::NetworkHeader as _,
};

/// Whether a packet that has hops left can be sent on from here to a backend, by this way. `own`: its link
/// destination.
#[inline(always)]
pub fn leads_on<F: Family, P: Packet, T: Common>(
    packet: &P,
    tables: &T,
    own: Mac,
    backend: &BackendRow<F>,
    next_hop: &NextHopRow,
) -> bool {
    // None of these differs, most of the time: one comparison for all.
    let [a, b, c] = next_hop.host_mac;
    let other = (a ^ own[0]) | (b ^ own[1]) | (c ^ own[2]);
    let elsewhere = (next_hop.kind ^ NextHopKind::Uplink as u32) | (next_hop.ifindex ^ packet.ifindex());
    let here = other as u32 | elsewhere == 0 && is_known(&next_hop.mac);
    if backend.node == F::Addr::ZERO {
        return here && !is_too_big(packet, tables, Egress::Device(next_hop.ifindex), 0);
    }
    /// No link of IPv6 takes less (RFC 8200 section 5); one of IPv4 that does is asked.
    const SURE: u32 = 1280;
    let len = packet.size() - NETWORK as u32 + size_of::<F::Header>() as u32;
    here && F::host(tables.settings()) != F::Addr::ZERO
        && (len <= SURE || len <= packet.mtu(next_hop.ifindex))
}

/// Whether a packet can be sent to a backend from here.
#[inline(always)]
pub fn can_send<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    parsed: &Parsed<F>,
    backend: BackendRef,
) -> bool {
    let Some((word, backend)) = tables.backend(backend.low) else { return false };
    let Some(next_hop) = tables.next_hop(word.next_hop()) else { return false };
    can_hop::<F, P>(packet) && leads_on(packet, tables, parsed.destination, backend, &next_hop)
}

/// Whether a packet that has hops left can be sent to the client that has a port of the node's from here.
#[inline(always)]
pub fn leads_back<F: Family, P: Packet>(packet: &P, held: &SnatRow<F>) -> bool {
    held.row.ifindex == packet.ifindex() && is_known(&held.row.mac)
}

/// Whether a reply can be sent to the client that has a port of the node's from here.
#[inline(always)]
pub fn can_return<F: Family, P: Packet>(packet: &P, held: &SnatRow<F>) -> bool {
    can_hop::<F, P>(packet) && leads_back(packet, held)
}

/// Whether a packet has hops left.
#[inline(always)]
fn can_hop<F: Family, P: Packet>(packet: &P) -> bool {
    packet.load::<F::Header>(NETWORK).is_some_and(|mut ip| ip.take_hop().is_some())
}

/// Whether a packet's link destination is one device's: what goes to all is not answered from it.
#[inline(always)]
pub fn is_for_one<P: Packet>(packet: &P) -> bool {
    const GROUP: u8 = 1;
    packet.load::<[u8; 2]>(0).is_some_and(|[first, _]| first & GROUP == 0)
}

/// Whether a packet's link destination is another device's, where the uplink's own MAC is known.
#[inline(always)]
pub fn is_for_another<P: Packet, T: Common>(packet: &P, tables: &T) -> bool {
    let Some(own) = tables.proxy_neigh(&NeighKey::uplink(packet.ifindex())) else { return false };
    is_for_one(packet) && packet.load::<Mac>(0) != Some(own)
}
