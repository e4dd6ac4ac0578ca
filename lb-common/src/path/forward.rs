//! Forward: how a rewritten packet travels on. Sets the link header and the hop count of the frame.

use super::{Common, Hook, Packet, parse::Parsed};
use crate::{
    abi::{Counter, FlowRow, ReachKind, ReachRow, flow_bits},
    family::Family,
    wire::NetworkHeader,
};

/// How a rewritten packet leaves the hook.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// As any packet: to the bridge, or up to the host.
    Continue,
    /// Into the namespace behind a port (interface index).
    Peer(u32),
    /// Out of a device (interface index), link header as it is.
    Egress(u32),
    /// Out of a device (interface index), link header from its neighbour table.
    Neighbour(u32),
}

/// To a backend that is reached by `reach`.
#[inline(always)]
pub fn to_backend<F: Family, P: Packet, T: Common>(
    packet: &P,
    tables: &T,
    hook: Hook,
    parsed: &mut Parsed<F>,
    reach: &ReachRow,
    hairpin: bool,
) -> Result<Way, Counter> {
    let kind = reach.kind();
    if kind == ReachKind::Host {
        return Ok(Way::Continue);
    }
    if kind == ReachKind::None {
        return Err(Counter::Unreachable);
    }
    // Between an uplink and a bridge, and out of an uplink, a packet is routed.
    if (kind == ReachKind::Uplink || hook == Hook::UplinkIngress) && !parsed.frame.ip.take_hop() {
        return Err(Counter::TtlExceeded);
    }
    let stack = tables.settings().way_back == ReachKind::Stack as u32;
    if stack && hook == Hook::PortIngress && kind != ReachKind::Uplink && !hairpin {
        parsed.frame.ethernet.destination = reach.bridge_mac;
        return Ok(Way::Continue);
    }
    match kind {
        ReachKind::Peer => {
            parsed.frame.ethernet.destination = reach.mac;
            Ok(Way::Peer(reach.ifindex))
        }
        ReachKind::Bridge => {
            parsed.frame.ethernet.destination = reach.mac;
            Ok(if hook != Hook::PortIngress || tables.settings().bridge != reach.bridge {
                parsed.frame.ethernet.source = reach.bridge_mac;
                Way::Egress(reach.bridge)
            } else if packet.ifindex() == reach.ifindex {
                // A bridge never sends back where a packet came from.
                Way::Egress(reach.ifindex)
            } else {
                Way::Continue
            })
        }
        ReachKind::Neighbour => Ok(Way::Neighbour(reach.bridge)),
        ReachKind::Uplink => Ok(Way::Neighbour(reach.ifindex)),
        ReachKind::Stack => Ok(Way::Continue),
        ReachKind::None | ReachKind::Host => Err(Counter::Unreachable),
    }
}

/// Back to the client that a reply's row remembers.
#[inline(always)]
pub fn to_client<F: Family, P: Packet>(
    packet: &P,
    hook: Hook,
    parsed: &mut Parsed<F>,
    row: &FlowRow<F>,
) -> Result<Way, Counter> {
    if hook.is_egress() {
        return Ok(Way::Continue);
    }
    let kind = ReachKind::from_bits(row.bits >> flow_bits::WAY_SHIFT & flow_bits::WAY_MASK);
    if (kind == ReachKind::Uplink || hook == Hook::UplinkIngress) && !parsed.frame.ip.take_hop() {
        return Err(Counter::TtlExceeded);
    }
    match kind {
        ReachKind::Peer => {
            parsed.frame.ethernet.destination = row.mac;
            Ok(Way::Peer(row.ifindex))
        }
        ReachKind::Bridge => {
            parsed.frame.ethernet.destination = row.mac;
            let same_bridge = row.twin_zone() == parsed.key.zone && hook == Hook::PortIngress;
            Ok(if same_bridge && packet.ifindex() != row.ifindex {
                Way::Continue
            } else {
                Way::Egress(row.ifindex)
            })
        }
        ReachKind::Uplink => Ok(Way::Neighbour(row.ifindex)),
        // Translated at the client's port, after the host's stack has seen it; a pod's own call has
        // not met the stack on its way in either.
        ReachKind::Stack if row.bits & flow_bits::HAIRPIN == 0 => Err(Counter::LeftToStack),
        ReachKind::Stack => {
            parsed.frame.ethernet.destination = row.mac;
            Ok(Way::Egress(row.ifindex))
        }
        ReachKind::None | ReachKind::Neighbour | ReachKind::Host => Err(Counter::WrongHook),
    }
}
