//! Egress: how a rewritten packet travels on.

use super::{hook::Hook, packet::Packet, state::Parsed, step::Way, tables::Common};
use crate::{
    abi::{AnswerKey, FlowRow, Mac, ReachKind, ReachRow, Stop, flow_bits, is_known},
    family::Family,
    wire::Ethernet,
};

/// A way and what it asks of the packet's headers.
#[derive(Copy, Clone)]
pub struct Onward {
    /// Where to.
    pub way: Way,
    /// The link destination it gets.
    pub destination: Mac,
    /// The link source it gets.
    pub source: Mac,
    /// It is routed: one hop less.
    pub hop: bool,
}

impl Onward {
    #[inline(always)]
    fn new<F: Family>(way: Way, parsed: &Parsed<F>, hop: bool) -> Self {
        Onward { way, destination: parsed.destination, source: parsed.source, hop }
    }

    /// Out by the device that the packet came in by, to the next hop: XDP's, which has looked whether that leads there.
    #[inline(always)]
    fn back<F: Family, P: Packet>(packet: &P, parsed: &Parsed<F>, next: Mac) -> Self {
        let way = Way::Egress(packet.ifindex());
        Onward { way, destination: next, source: parsed.destination, hop: true }
    }

    #[inline(always)]
    fn to(self, destination: Mac) -> Self {
        Onward { destination, ..self }
    }
}

/// To a backend that is reached by `reach`.
#[inline(always)]
pub fn to_backend<F: Family, P: Packet, T: Common>(
    packet: &P,
    tables: &T,
    hook: Hook,
    parsed: &Parsed<F>,
    reach: &ReachRow,
    hairpin: bool,
) -> Result<Onward, Stop> {
    if hook == Hook::UplinkXdp {
        return Ok(Onward::back(packet, parsed, reach.mac));
    }
    let settings = tables.settings();
    let kind = reach.kind();
    // Between an uplink and a bridge, and out of an uplink, a packet is routed.
    let hop = kind == ReachKind::Uplink || hook == Hook::UplinkIngress;
    let onward = |way| Ok(Onward::new(way, parsed, hop));
    let through_stack = settings.way_back == ReachKind::Stack as u32 && hook == Hook::PortIngress && !hairpin;
    if parsed.tagged && !(kind == ReachKind::Host || reach.bridge == settings.bridge) {
        // Nobody would know what tag the answers have to get.
        return Err(Stop::Unreachable);
    }
    match kind {
        ReachKind::Host => Ok(Onward::new(Way::Continue, parsed, false)),
        ReachKind::Uplink => onward(Way::Neighbour(reach.ifindex)),
        ReachKind::Peer | ReachKind::Bridge | ReachKind::Neighbour | ReachKind::Gone if through_stack => {
            Ok(Onward::new(Way::Continue, parsed, hop).to(reach.host_mac))
        }
        ReachKind::Peer if !parsed.tagged => {
            Ok(Onward::new(Way::Peer(reach.ifindex), parsed, hop).to(reach.mac))
        }
        // A tagged packet is the bridge's to deliver.
        ReachKind::Peer | ReachKind::Bridge => {
            let way = if hook != Hook::PortIngress || settings.bridge != reach.bridge {
                Way::Egress(reach.bridge)
            } else if packet.ifindex() == reach.ifindex {
                // A bridge never sends back where a packet came from.
                Way::Egress(reach.ifindex)
            } else {
                Way::Continue
            };
            Ok(Onward::new(way, parsed, hop).to(reach.mac))
        }
        ReachKind::Neighbour | ReachKind::Gone => onward(Way::Neighbour(reach.bridge)),
        ReachKind::None | ReachKind::Stack => Err(Stop::Unreachable),
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
) -> Result<Onward, Stop> {
    if hook == Hook::UplinkXdp {
        return Ok(Onward::back(packet, parsed, row.mac));
    }
    if hook.is_egress() {
        return Ok(Onward::new(Way::Continue, parsed, false));
    }
    let kind = ReachKind::from_bits(row.bits >> flow_bits::WAY_SHIFT & flow_bits::WAY_MASK);
    let hop = kind == ReachKind::Uplink || hook == Hook::UplinkIngress;
    let onward = |way| Onward::new(way, parsed, hop);
    match kind {
        ReachKind::Peer if !parsed.tagged => Ok(onward(Way::Peer(row.ifindex)).to(row.mac)),
        ReachKind::Peer | ReachKind::Bridge => {
            let same_bridge = row.twin_zone() == parsed.key.zone && hook == Hook::PortIngress;
            let turns = !same_bridge || packet.ifindex() == row.ifindex;
            Ok(onward(if turns { Way::Egress(row.ifindex) } else { Way::Continue }).to(row.mac))
        }
        ReachKind::Uplink => Ok(to_outside(tables, row, onward(Way::Neighbour(row.ifindex)))),
        // Translated at the client's port, after the host's stack has seen it; a pod's own call has
        // not met the stack on its way in either.
        ReachKind::Stack if !row.is_hairpin() => Err(Stop::LeftToStack),
        ReachKind::Stack => Ok(onward(Way::Egress(row.ifindex)).to(row.mac)),
        ReachKind::None | ReachKind::Neighbour | ReachKind::Gone | ReachKind::Host => Err(Stop::WrongHook),
    }
}

/// Back to a client outside. `Way::Neighbour` takes the next hop of the host's best route to it, for IPv6 also where
/// that is behind another uplink. So where there are several a packet goes to the MAC that the client's come from.
#[inline(always)]
fn to_outside<F: Family, T: Common>(tables: &T, row: &FlowRow<F>, routed: Onward) -> Onward {
    if tables.settings().several_uplinks == 0 || !is_known(&row.mac) {
        return routed;
    }
    match tables.answer(&AnswerKey::uplink(row.ifindex)) {
        Some(source) => Onward { way: Way::Egress(row.ifindex), destination: row.mac, source, ..routed },
        None => routed,
    }
}

/// Whether a packet is larger than the device takes that it leaves by: that of its way, or the port (interface
/// index, 0: none) where it goes on as any packet. A pod takes everything.
#[inline(always)]
pub fn is_too_big<P: Packet, T: Common>(packet: &P, tables: &T, way: Way, port: u32) -> bool {
    let floor = tables.settings().mtu_floor;
    if floor == 0 || packet.size() <= floor + size_of::<Ethernet>() as u32 {
        return false;
    }
    let device = match way {
        Way::Egress(device) | Way::Neighbour(device) => device,
        Way::Continue => port,
        Way::Peer(_) => 0,
    };
    device != 0 && !packet.fits(device)
}

/// The way back to clients whose packets are seen at `hook`. A bridge knows what tag its client is to get.
#[inline(always)]
pub fn way_back<T: Common>(tables: &T, hook: Hook, tagged: bool) -> ReachKind {
    match hook {
        Hook::PortIngress if tagged => ReachKind::Bridge,
        Hook::PortIngress | Hook::PortEgress => ReachKind::from_bits(tables.settings().way_back),
        Hook::BridgeIngress | Hook::BridgeEgress => ReachKind::Bridge,
        Hook::UplinkIngress | Hook::UplinkEgress | Hook::UplinkXdp => ReachKind::Uplink,
    }
}
