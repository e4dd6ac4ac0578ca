//! Whether a packet comes from where its source is known to be.

use super::{flow_table, hook::Hook, packet::Packet, state::PacketState, tables::Table, tables::Tables};
use crate::{
    abi::{FlowKey, FlowRow, NextHopKind, SourceGuardRow, other_port},
    family::Family,
};

/// Whether a client's packet comes in by another port of the bridge than its flow is known to.
#[inline(always)]
pub fn is_elsewhere<F: Family, P: Packet>(packet: &P, hook: Hook, row: &FlowRow<F>) -> bool {
    hook == Hook::PortIngress && row.ifindex != packet.ifindex()
}

/// Whether a packet of this flow is sent in the name of an address that is known at another pod's port.
#[inline(always)]
pub fn is_spoofed<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    hook: Hook,
    key: &FlowKey<F>,
) -> bool {
    hook == Hook::PortIngress
        && tables
            .source_guard(&F::neigh_key(key.src, key.zone.into()))
            .is_some_and(|home| is_another_pod::<F, P, T>(packet, tables, key.src, home.ifindex))
}

/// Whether a reply comes in by another port than those of the pod of its flow's backend.
#[inline(always)]
pub fn answers_for_another<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    source: F::Addr,
    known: &FlowRow<F>,
) -> bool {
    let Some((word, _)) = tables.backend(known.backend.low) else { return false };
    let Some(next_hop) = tables.next_hop(word.next_hop()) else { return false };
    word.0.generation == known.backend.generation
        && matches!(next_hop.kind(), NextHopKind::Peer | NextHopKind::Bridge)
        && is_another_pod::<F, P, T>(packet, tables, source, next_hop.ifindex)
}

/// Whether a packet from `source`, which is known at `port`, comes in by a port of another pod.
#[inline(always)]
pub fn is_another_pod<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    source: F::Addr,
    port: u32,
) -> bool {
    port != packet.ifindex()
        && home::<F, P, T>(packet, tables, source).is_none_or(|home| home.ifindex != port)
}

/// Where the pod that a packet comes from has its source, if that is at another port.
#[inline(always)]
fn home<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    source: F::Addr,
) -> Option<SourceGuardRow> {
    tables.source_guard(&F::neigh_key(source, other_port(packet.ifindex())))
}

/// The zone on another bridge that the pod has a packet's source in, where there are several.
#[inline(always)]
pub fn other_zone<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    hook: Hook,
    key: &FlowKey<F>,
) -> Option<u16> {
    if hook != Hook::PortIngress || tables.settings().zone != 0 {
        return None;
    }
    home::<F, P, T>(packet, tables, key.src).map(|home| home.zone).filter(|zone| *zone != key.zone)
}

/// A pod on two bridges may answer by one from its address on the other: such a reply, which has no rows in the zone that
/// it comes from, is taken for one of the other.
#[inline(always)]
pub fn find_zone<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    hook: Hook,
    state: &PacketState<F>,
) {
    let key = &state.parsed.key;
    let Some(zone) = other_zone(packet, tables, hook, key) else { return };
    if flow_table::find(tables, key).is_some() {
        return;
    }
    let there = FlowKey { zone, ..*key };
    if let Some((_, row)) = flow_table::find(tables, &there)
        && row.is_reply()
        && !row.is_direct()
    {
        tables.set_zone(zone, row.table() == Table::Assured);
    }
}
