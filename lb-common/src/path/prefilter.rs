//! Prefilter: what is nobody's of ours leaves after a few reads of a bitmap.

use super::tables::{Tables, prefilter_hash};
use super::{hook::Hook, packet::Packet};
use crate::{
    abi::{FlowKey, Stop},
    family::Family,
};

/// Whether a packet from outside is another host's: a switch that has not learned who is where sends it to all. It is
/// neither changed nor counted. At the ports of a bridge all that goes from pod to pod is another's.
#[inline(always)]
pub fn is_flooded<P: Packet>(packet: &P, hook: Hook) -> bool {
    hook == Hook::UplinkIngress && packet.is_for_another()
}

/// Why a packet is nobody's of ours, if it is not.
#[inline(always)]
pub fn outsider<F: Family, T: Tables<F>>(tables: &T, hook: Hook, key: &FlowKey<F>) -> Option<Stop> {
    if tables.prefilter(prefilter_hash(key.dst, 0))
        || tables.prefilter(prefilter_hash(key.src, key.src_port))
        || hook == Hook::PortIngress && tables.prefilter(prefilter_hash(key.dst, key.dst_port))
    {
        return None;
    }
    let unassigned = !hook.is_egress() && is_unassigned::<F, T>(tables, key.dst);
    Some(if unassigned { Stop::UnassignedVip } else { Stop::NotOurs })
}

/// Whether an address that is no frontend's is one of the ranges of service addresses.
#[inline(always)]
pub fn is_unassigned<F: Family, T: Tables<F>>(tables: &T, addr: F::Addr) -> bool {
    // They are constants for the verifier, which takes out what is behind the last of them.
    F::cidrs(tables.settings()).iter().take_while(|cidr| cidr.is_some()).any(|cidr| cidr.holds(addr))
}
