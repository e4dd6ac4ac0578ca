//! The decision core on packets in memory.

use std::collections::BTreeMap;

use lb_common::{
    abi::Traffic,
    family::Family,
    path::{self, Hook, Packet as _, Verdict},
    wire::ethernet,
};

use crate::{Learned, Packet, Tables};

/// What packets got, their verdicts aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome<F: Family> {
    /// The bytes of the only one afterwards.
    pub packet: Vec<u8>,
    /// How far each counter moved; none that did not.
    pub counters: BTreeMap<u32, u64>,
    /// Traffic accounted to services.
    pub traffic: BTreeMap<u32, Traffic>,
    /// What is known afterwards.
    pub learned: Learned<F>,
}

/// Runs the decision core on a packet, as the program of a hook does.
pub fn decide<F: Family>(tables: &Tables<'_, F>, hook: Hook, packet: &mut Packet) -> Verdict {
    if path::is_flooded(packet, hook) {
        return Verdict::Pass;
    }
    match packet.load::<u16>(12) {
        Some(ethertype) if ethertype == F::ETHERTYPE && hook == Hook::UplinkXdp => {
            path::decide_in_place::<F, _, _>(packet, tables)
        }
        Some(ethertype) if ethertype == F::ETHERTYPE => path::decide::<F, _, _>(packet, tables, hook),
        Some(ethernet::ARP) if hook.is_asked() => path::answer_arp(packet, tables, hook).verdict(),
        _ => Verdict::Pass,
    }
}
