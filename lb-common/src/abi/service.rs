//! Frontends, services, their sets of slots.

use super::{Word, pod};
use crate::family::Family;

/// What a client addresses.
#[repr(C)]
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrontendKey<F: Family> {
    /// The virtual address.
    pub addr: F::Addr,
    /// The port, network byte order.
    pub port: u16,
    /// Zone it is reached from; [`super::ZONE_UPLINK`] stands for all of them.
    pub zone: u16,
    /// IP protocol number.
    pub protocol: u32,
}

/// What a frontend leads to. Inserted and deleted, never updated.
#[repr(C)]
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct FrontendRow {
    /// Index of the service row.
    pub service: u32,
    /// Its kind and policies: `frontend_flags`.
    pub flags: u32,
}

/// Bits of [`FrontendRow::flags`].
pub mod frontend_flags {
    /// Mask of the kind.
    pub const KIND: u32 = 0x7;
    /// Cluster IP.
    pub const CLUSTER_IP: u32 = 0;
    /// Node port.
    pub const NODE_PORT: u32 = 1;
    /// Load balancer IP: source ranges apply.
    pub const LOAD_BALANCER: u32 = 2;
    /// External IP.
    pub const EXTERNAL_IP: u32 = 3;
    /// Host port.
    pub const HOST_PORT: u32 = 4;
}

/// A service row is one word: the index of its set, and how often it has changed.
pub type ServiceRow = Word;

/// The backends of one service at one moment. Immutable once published.
#[repr(C)]
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct SetRow {
    /// First slot of the table over all usable backends.
    pub first: u32,
    /// Its length; 0: no backend is usable.
    pub len: u32,
    /// First slot of the table over the backends on this node.
    pub local_first: u32,
    /// Its length.
    pub local_len: u32,
    /// The service row that owns the set.
    pub service: u32,
    /// `set_flags`.
    pub flags: u32,
    /// Session affinity by client address, in seconds; 0: none.
    pub affinity_seconds: u32,
    /// Id of the allowed source ranges; 0: every source.
    pub source_ranges: u32,
}

/// Bits of [`SetRow::flags`].
pub mod set_flags {
    /// Internal traffic policy Local.
    pub const INTERNAL_LOCAL: u32 = 1;
    /// External traffic policy Local.
    pub const EXTERNAL_LOCAL: u32 = 1 << 1;
    /// Choose at random instead of by Maglev's table.
    pub const RANDOM: u32 = 1 << 2;
    /// Direct server return: encapsulated to the backend's node.
    pub const DSR: u32 = 1 << 3;
    /// A removed backend's TCP flows are reset.
    pub const RESET_ON_REMOVAL: u32 = 1 << 4;
}

/// One slot of a Maglev table.
#[repr(C)]
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct SlotRow {
    /// Id of the backend.
    pub backend: u32,
    /// The service that owns the slot; another one means that the slot was given away: look again.
    pub service: u32,
}

/// Packets and bytes of a service, from its clients.
#[repr(C)]
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Traffic {
    /// Packets, as the hook saw them (a segment of offloaded data counts once).
    pub packets: u64,
    /// Bytes of those packets, link header included.
    pub bytes: u64,
}

macro_rules! user_pod {
    ($($row:ty),*) => {$(
        #[cfg(feature = "user")]
        // SAFETY: bytemuck's derive has checked it.
        unsafe impl aya::Pod for $row {}
    )*};
}
user_pod!(FrontendRow, SetRow, SlotRow, Traffic, Word);

pod! { FrontendKey: 12, 24; }
const _: () = assert!(size_of::<SetRow>() == 32 && size_of::<SlotRow>() == 8);
