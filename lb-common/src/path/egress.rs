//! Egress: how a rewritten packet travels on.

use super::{hook::Hook, packet::Packet, state::Parsed, step::Egress, tables::Common};
use crate::{
    abi::{FlowRow, Mac, NeighKey, NextHopKind, NextHopRow, Stop, bridge_zone, flow_bits, is_known},
    family::Family,
    wire::Ethernet,
};

/// A way and what it asks of the packet's headers.
#[derive(Copy, Clone)]
pub struct EgressPlan {
    /// Where to.
    pub way: Egress,
    /// The link destination it gets.
    pub destination: Mac,
    /// The link source it gets.
    pub source: Mac,
    /// It is routed: one hop less.
    pub hop: bool,
}

impl EgressPlan {
    #[inline(always)]
    fn new<F: Family>(way: Egress, parsed: &Parsed<F>, hop: bool) -> Self {
        EgressPlan { way, destination: parsed.destination, source: parsed.source, hop }
    }

    /// Out by the device that the packet came in by, to the next hop: XDP's, which has looked whether that leads there.
    #[inline(always)]
    fn back<F: Family, P: Packet>(packet: &P, parsed: &Parsed<F>, next: Mac) -> Self {
        let way = Egress::Device(packet.ifindex());
        EgressPlan { way, destination: next, source: parsed.destination, hop: true }
    }

    #[inline(always)]
    fn to(self, destination: Mac) -> Self {
        EgressPlan { destination, ..self }
    }
}

/// To a backend that is reached by `next_hop`.
#[inline(always)]
pub fn to_backend<F: Family, P: Packet, T: Common>(
    packet: &P,
    tables: &T,
    hook: Hook,
    parsed: &Parsed<F>,
    next_hop: &NextHopRow,
    hairpin: bool,
) -> Result<EgressPlan, Stop> {
    if hook == Hook::UplinkXdp {
        return Ok(EgressPlan::back(packet, parsed, next_hop.mac));
    }
    let kind = next_hop.kind();
    // Between an uplink and a bridge, and out of an uplink, a packet is routed.
    let hop = kind == NextHopKind::Uplink || hook == Hook::UplinkIngress;
    let plan = |way| Ok(EgressPlan::new(way, parsed, hop));
    let is_stack = tables.settings().return_path == NextHopKind::Stack as u32;
    let through_stack = is_stack && hook == Hook::PortIngress && !hairpin;
    let same_bridge = bridge_zone(next_hop.bridge) == parsed.key.zone;
    if parsed.tagged && !(kind == NextHopKind::Host || same_bridge) {
        // Nobody would know what tag the answers have to get.
        return Err(Stop::Unreachable);
    }
    match kind {
        NextHopKind::Host => Ok(EgressPlan::new(Egress::Continue, parsed, false)),
        NextHopKind::Uplink => plan(Egress::Neighbour(next_hop.ifindex)),
        NextHopKind::Peer | NextHopKind::Bridge | NextHopKind::Neighbour | NextHopKind::Gone
            if through_stack =>
        {
            Ok(EgressPlan::new(Egress::Continue, parsed, hop).to(next_hop.host_mac))
        }
        NextHopKind::Peer if !parsed.tagged => {
            Ok(EgressPlan::new(Egress::Peer(next_hop.ifindex), parsed, hop).to(next_hop.mac))
        }
        // A tagged packet is the bridge's to deliver.
        NextHopKind::Peer | NextHopKind::Bridge => {
            let way = if hook != Hook::PortIngress || !same_bridge {
                Egress::Device(next_hop.bridge)
            } else if packet.ifindex() == next_hop.ifindex {
                // A bridge never sends back where a packet came from.
                Egress::Device(next_hop.ifindex)
            } else {
                Egress::Continue
            };
            Ok(EgressPlan::new(way, parsed, hop).to(next_hop.mac))
        }
        NextHopKind::Neighbour | NextHopKind::Gone => plan(Egress::Neighbour(next_hop.bridge)),
        NextHopKind::None | NextHopKind::Stack => Err(Stop::Unreachable),
    }
}

/// Back to the client that a reply's row remembers.
#[inline(always)]
pub fn to_client<F: Family, P: Packet, T: Common>(
    packet: &P,
    tables: &T,
    hook: Hook,
    parsed: &Parsed<F>,
    row: &FlowRow<F>,
) -> Result<EgressPlan, Stop> {
    if hook == Hook::UplinkXdp {
        return Ok(EgressPlan::back(packet, parsed, row.mac));
    }
    if hook.is_egress() {
        return Ok(EgressPlan::new(Egress::Continue, parsed, false));
    }
    let kind = NextHopKind::from_bits(row.bits >> flow_bits::RETURN_SHIFT & flow_bits::RETURN_MASK);
    let hop = kind == NextHopKind::Uplink || hook == Hook::UplinkIngress;
    let plan = |way| EgressPlan::new(way, parsed, hop);
    match kind {
        NextHopKind::Peer if !parsed.tagged => Ok(plan(Egress::Peer(row.ifindex)).to(row.mac)),
        NextHopKind::Peer | NextHopKind::Bridge => {
            let same_bridge = row.reverse_zone() == parsed.key.zone && hook == Hook::PortIngress;
            let turns = !same_bridge || packet.ifindex() == row.ifindex;
            Ok(plan(if turns { Egress::Device(row.ifindex) } else { Egress::Continue }).to(row.mac))
        }
        NextHopKind::Uplink => Ok(to_outside(tables, row, plan(Egress::Neighbour(row.ifindex)))),
        // Translated at the client's port, after the host's stack has seen it; a pod's own call has
        // not met the stack on its way in either.
        NextHopKind::Stack if !row.is_hairpin() => Err(Stop::LeftToStack),
        NextHopKind::Stack => Ok(plan(Egress::Device(row.ifindex)).to(row.mac)),
        NextHopKind::None | NextHopKind::Neighbour | NextHopKind::Gone | NextHopKind::Host => {
            Err(Stop::WrongHook)
        }
    }
}

/// Back to a client outside. `Way::Neighbour` takes the next hop of the host's best route to it, for IPv6 also where
/// that is behind another uplink. So where there are several a packet goes to the MAC that the client's come from.
#[inline(always)]
fn to_outside<F: Family, T: Common>(tables: &T, row: &FlowRow<F>, routed: EgressPlan) -> EgressPlan {
    if tables.settings().several_uplinks == 0 || !is_known(&row.mac) {
        return routed;
    }
    match tables.proxy_neigh(&NeighKey::uplink(row.ifindex)) {
        Some(source) => {
            EgressPlan { way: Egress::Device(row.ifindex), destination: row.mac, source, ..routed }
        }
        None => routed,
    }
}

/// Whether a packet is larger than the device takes that it leaves by: that of its way, or the port (interface
/// index, 0: none) where it goes on as any packet. A pod takes everything.
#[inline(always)]
pub fn is_too_big<P: Packet, T: Common>(packet: &P, tables: &T, way: Egress, port: u32) -> bool {
    let floor = tables.settings().mtu_floor;
    if floor == 0 || packet.size() <= floor + size_of::<Ethernet>() as u32 {
        return false;
    }
    let device = match way {
        Egress::Device(device) | Egress::Neighbour(device) => device,
        Egress::Continue => port,
        Egress::Peer(_) => 0,
    };
    device != 0 && !packet.fits(device)
}

/// The way back to clients whose packets are seen at `hook`. A bridge knows what tag its client is to get.
#[inline(always)]
pub fn return_path<T: Common>(tables: &T, hook: Hook, tagged: bool) -> NextHopKind {
    match hook {
        Hook::PortIngress if tagged => NextHopKind::Bridge,
        Hook::PortIngress | Hook::PortEgress => NextHopKind::from_bits(tables.settings().return_path),
        Hook::BridgeIngress | Hook::BridgeEgress => NextHopKind::Bridge,
        Hook::UplinkIngress | Hook::UplinkEgress | Hook::UplinkXdp => NextHopKind::Uplink,
    }
}
