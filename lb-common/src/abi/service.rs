//! Frontends, services, their sets of slots.

use super::{BackendRef, Scope, Word, pod};
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
    /// Index of the service row; of no meaning for [`FrontendKind::Address`].
    pub service: u32,
    /// A [`FrontendKind`].
    pub kind: u32,
}

/// What a frontend is, and so which policies hold there.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FrontendKind {
    /// Cluster IP: the internal traffic policy.
    ClusterIp = 0,
    /// A port of the node's own address: the external policy, as at all below.
    NodePort = 1,
    /// Load balancer IP: source ranges apply.
    LoadBalancer = 2,
    /// External IP.
    ExternalIp = 3,
    /// Host port.
    HostPort = 4,
    /// No frontend: an address whose other ports are nobody's, so that calls there are refused. Its key
    /// has port 0 and protocol 0. The host's own addresses have no such row.
    Address = 5,
    /// As [`FrontendKind::Address`], but of another node: packets to node ports there come here inside others (DSR),
    /// and its other ports are that node's.
    Node = 6,
}

impl FrontendKind {
    /// The kind of a row's bits.
    #[inline(always)]
    pub fn from_bits(bits: u32) -> FrontendKind {
        match bits {
            1 => FrontendKind::NodePort,
            2 => FrontendKind::LoadBalancer,
            3 => FrontendKind::ExternalIp,
            4 => FrontendKind::HostPort,
            5 => FrontendKind::Address,
            6 => FrontendKind::Node,
            _ => FrontendKind::ClusterIp,
        }
    }
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
    /// Timeout of the session affinity by client address, in ticks; 0: none.
    pub affinity: u32,
    /// Id of the allowed source ranges; 0: every source.
    pub source_ranges: u32,
}

impl SetRow {
    /// First slot of a scope's table, and its length.
    pub fn slots(&self, scope: Scope) -> (u32, u32) {
        match scope {
            Scope::Cluster => (self.first, self.len),
            Scope::Local => (self.local_first, self.local_len),
        }
    }
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
user_pod!(AffinityRow, FrontendRow, SetRow, SlotRow, Traffic, Word);

/// Whose affinity it is.
#[repr(C)]
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AffinityKey<F: Family> {
    /// The client.
    pub client: F::Addr,
    /// The service row.
    pub service: u32,
}

/// Where a client's new flows go.
#[repr(C)]
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct AffinityRow {
    /// The backend.
    pub backend: BackendRef,
    /// When the client last opened a flow, in ticks.
    pub seen: u32,
    /// Zero.
    pub reserved: u32,
}

/// A source range in the trie, behind the prefix length that the kernel asks for (`struct
/// bpf_lpm_trie_key`); the prefix covers the set's 32 bits, too.
#[repr(C)]
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RangeKey<F: Family> {
    /// Id of the set, [`SetRow::source_ranges`].
    pub set: u32,
    /// The range's address.
    pub addr: F::Addr,
}

pod! { FrontendKey: 12, 24; AffinityKey: 8, 20; RangeKey: 8, 20; }
const _: () = assert!(size_of::<SetRow>() == 32 && size_of::<SlotRow>() == 8);
