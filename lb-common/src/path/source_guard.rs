//! Whether a packet comes from where its source is known to be.

use super::{hook::Hook, packet::Packet, tables::Tables};
use crate::{
    abi::{FlowKey, FlowRow, NextHopKind},
    family::Family,
};

/// Whether a client's packet comes in by another port of the bridge than its flow is known to.
#[inline(always)]
pub fn is_elsewhere<F: Family, P: Packet>(packet: &P, hook: Hook, row: &FlowRow<F>) -> bool {
    hook == Hook::PortIngress && row.ifindex != packet.ifindex()
}

/// Whether a packet of this flow is sent in the name of an address that is known at another port.
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
            .is_some_and(|home| home.ifindex != packet.ifindex())
}

/// Whether a reply comes in by another port than that of the flow's backend.
#[inline(always)]
pub fn answers_for_another<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    known: &FlowRow<F>,
) -> bool {
    let Some((word, _)) = tables.backend(known.backend.low) else { return false };
    let Some(next_hop) = tables.next_hop(word.next_hop()) else { return false };
    word.0.generation == known.backend.generation
        && matches!(next_hop.kind(), NextHopKind::Peer | NextHopKind::Bridge)
        && next_hop.ifindex != packet.ifindex()
}
