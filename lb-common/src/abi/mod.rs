//! The rows of the BPF maps.
//!
//! Every row is `repr(C)`, made of scalars aligned to 4 bytes at most, without padding; addresses and
//! layer-4 ports are in network byte order, everything else in the host's. What a packet reads is
//! either immutable once published or one aligned 64-bit [`Word`].

mod backend;
mod counter;
mod flow;
mod fragment;
pub mod maps;
mod neigh;
mod service;
mod settings;
mod snat;
mod socket;
mod source_guard;
mod word;

pub use backend::*;
pub use counter::*;
pub use flow::*;
pub use fragment::*;
pub use neigh::*;
pub use service::*;
pub use settings::*;
pub use snat::*;
pub use socket::*;
pub use source_guard::*;
pub use word::*;

/// Zone of the uplinks and of frontends: not a bridge's.
pub const ZONE_UPLINK: u16 = 0;
/// Zone of a backend that answers in whatever zone its client is: a process of the host itself.
pub const ZONE_OF_CLIENT: u16 = u16::MAX;
/// Zone of ports that are no bridge's: the host's routing has each address behind them once.
pub const ZONE_ROUTED: u16 = ZONE_OF_CLIENT - 1;

/// The zone of a bridge, from its interface index: none of those above, and every agent gives the same one.
#[inline(always)]
pub const fn bridge_zone(ifindex: u32) -> u16 {
    const ZONES: u32 = (ZONE_ROUTED - ZONE_UPLINK) as u32 - 1;
    (ifindex % ZONES) as u16 + 1
}

/// A MAC address as three words, so that copying it needs no byte loop.
pub type Mac = [u16; 3];

/// Whether a MAC is one: none is zero.
#[inline(always)]
pub fn is_known(mac: &Mac) -> bool {
    mac[0] | mac[1] | mac[2] != 0
}

/// Implements bytemuck's and, for user space, aya's `Pod` for rows of both families, given their sizes.
macro_rules! pod {
    ($($row:ident: $size4:literal, $size6:literal;)*) => {$(
        const _: () = assert!(size_of::<$row<crate::family::V4>>() == $size4);
        const _: () = assert!(size_of::<$row<crate::family::V6>>() == $size6);
        // SAFETY: repr(C), every field is Pod, and the sizes asserted above are the sums of the fields'
        // sizes, so there is no padding.
        unsafe impl<F: crate::family::Family> bytemuck::Zeroable for $row<F> {}
        // SAFETY: as above.
        unsafe impl<F: crate::family::Family> bytemuck::Pod for $row<F> {}
        #[cfg(feature = "user")]
        // SAFETY: as above.
        unsafe impl<F: crate::family::Family> aya::Pod for $row<F> {}
    )*};
}
pub(crate) use pod;
