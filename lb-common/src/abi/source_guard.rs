//! The source guard: who may call in whose name.

use super::Mac;

/// At which port of a bridge a neighbour is known, by [`super::NeighKey`].
///
/// A row exists exactly for the addresses that the host's neighbour table knows on a bridge with a MAC that
/// the bridge's forwarding table knows at one of its ports. The first packet of a flow whose source address is
/// known at another port is dropped: no pod calls in another's name. An address without a row is let in, as
/// nobody can tell whose it is.
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
    /// Zero.
    pub reserved: u16,
}

const _: () = assert!(size_of::<SourceGuardRow>() == 12);

#[cfg(feature = "user")]
// SAFETY: bytemuck's derive has checked it.
unsafe impl aya::Pod for SourceGuardRow {}
