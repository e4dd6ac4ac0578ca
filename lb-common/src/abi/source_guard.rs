//! The source guard: who may call in whose name.

use super::Mac;

/// At which port of a bridge a neighbour is known, by [`super::NeighKey`].
///
/// In a zone a row exists exactly for the addresses that the host's neighbour table knows on a bridge with a MAC that
/// the bridge's forwarding table knows at one of its ports. The first packet of a flow whose source address is
/// known at another port is dropped: no pod calls in another's name. An address without a row is let in, as
/// nobody can tell whose it is.
///
/// A pod may have several ports, and sends by any of them. What a port has in place of a zone ([`other_port`]) has a row
/// for each address that is known at another port of the same pod; it says at which one.
///
/// Rows are updated in place. Who looks in that moment sees the old row, the new one, none or, where a row is
/// recycled, one of another address: then one first packet is let in or dropped that should not be, and the
/// next one, or its repetition, is judged by the row that holds.
#[repr(C)]
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct SourceGuardRow {
    /// The port, as interface index.
    pub ifindex: u32,
    /// The neighbour's MAC.
    pub mac: Mac,
    /// The zone of that port, where the key names another port of the pod; else zero.
    pub zone: u16,
}

/// What stands in place of a zone for a port, by interface index: in rows of addresses that are known at another port of
/// its pod. No zone is that large.
#[inline(always)]
pub fn other_port(ifindex: u32) -> u32 {
    1 << 31 | ifindex
}

const _: () = assert!(size_of::<SourceGuardRow>() == 12);

#[cfg(feature = "user")]
// SAFETY: bytemuck's derive has checked it.
unsafe impl aya::Pod for SourceGuardRow {}
