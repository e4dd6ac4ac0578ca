//! Zone: which of the host's networks a packet is in. The same addresses may be others on another bridge.

use super::{hook::Hook, packet::Packet, tables::Common};
use crate::abi::{Stop, ZONE_UPLINK, bridge_zone};

/// The zone of the device that a packet is at. A constant where there is one bridge; else all bridges have the same
/// programs, which know a bridge by its interface index, and a port by the row that the agent writes before it attaches
/// them. A port without one is nobody's.
#[inline(always)]
pub fn zone<P: Packet, T: Common>(packet: &P, tables: &T, hook: Hook) -> Result<u16, Stop> {
    if hook.is_uplink() {
        return Ok(ZONE_UPLINK);
    }
    let only = tables.settings().zone as u16;
    if only != 0 {
        return Ok(only);
    }
    if hook.is_port() {
        return tables.bridge_port(packet.ifindex()).ok_or(Stop::NotOurs);
    }
    Ok(bridge_zone(packet.ifindex()))
}
