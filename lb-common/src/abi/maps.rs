//! The list of the maps, from which the kernel programs declare them and user space sizes, pins, opens and counts them.

use super::{Counter, PREFILTER_BITS};
use crate::family::{Family, V4};

/// Hands a macro the maps that are there once: name, kind with the types of its rows, [`MapSize`], [`MapUse`].
#[macro_export]
macro_rules! shared_maps {
    ($with:ident!($($arguments:tt)*)) => {
        $with! {
            $($arguments)*
            PREFILTER: Mapped[u64], Fixed(PREFILTER_BITS / 64), Never;
            SERVICES: Mapped[ServiceRow], PerService { rows: 1, least: 0, most: u32::MAX }, Services("services");
            SETS: Mapped[SetRow], PerService { rows: 2, least: 0, most: u32::MAX }, Services("sets");
            // Maglev's table for three backends, the common size.
            SLOTS: Mapped[SlotRow], PerService { rows: 307, least: 1 << 21, most: u32::MAX }, Services("slots");
            NEXT_HOPS: Mapped[NextHopRow], PerService { rows: 8, least: 0, most: 1 << 24 }, Services("next hops");
            COUNTERS: PerCpu[u64], Fixed(Counter::COUNT), Never;
            TRAFFIC: PerCpu[Traffic], PerService { rows: 1, least: 0, most: u32::MAX }, Never;
            PROXY_NEIGH: Sparse[NeighKey, ProxyNeighRow], PerService { rows: 1, least: 0, most: u32::MAX },
                Refuses("proxy ARP, ND", "addresses in a bridge's or uplink's subnet will not be answered for");
            PORT_CURSORS: Array[u32], Fixed(PORT_CURSOR_COUNT), Never;
            SOURCE_GUARD: Sparse[NeighKey, SourceGuardRow], PerService { rows: 2, least: 0, most: u32::MAX },
                Refuses("source guard", "packets of more neighbours will not be held to their ports");
            // Ports of several bridges: in which zone each is. A bridge has a thousand at most.
            BRIDGE_PORTS: Sparse[u32, u32], Fixed(1 << 14),
                Refuses("bridge ports", "more ports of bridges will not be served");
            COOKIES: Sparse[[u32; 2], u32], Fixed(4096),
                Refuses("cookies", "sockets of more pods will be left to the programs at their ports");
        }
    };
}

/// The same of the maps that are there once for each family: field of [`FamilyMaps`], the name for IPv4 and for IPv6.
#[macro_export]
macro_rules! family_maps {
    ($with:ident!($($arguments:tt)*), $family:ty) => {
        $with! {
            $($arguments)*
            frontends FRONTENDS4 FRONTENDS6: Hash[FrontendKey<$family>, FrontendRow],
                PerService { rows: 4, least: 0, most: u32::MAX }, Services("frontends");
            backends BACKENDS4 BACKENDS6: Mapped[BackendRow<$family>],
                PerService { rows: 8, least: 0, most: 1 << 24 }, Services("backends");
            ranges RANGES4 RANGES6: Trie[RangeKey<$family>, u32],
                PerService { rows: 2, least: 1 << 16, most: u32::MAX }, Services("source ranges");
            snat SNAT4 SNAT6: Sparse[FlowKey<$family>, SnatRow<$family>], PerFlow { part: 2, least: 0 },
                Refuses("SNAT ports", "clients outside will not reach backends on other nodes");
            flows FLOWS4 FLOWS6: Lru[FlowKey<$family>, FlowRow<$family>], PerFlow { part: 1, least: 0 },
                Evicts("flows", "idle flows are being evicted");
            unassured UNASSURED4 UNASSURED6: Lru[FlowKey<$family>, UnassuredRow<$family>],
                PerFlow { part: 4, least: 1 << 14 },
                Evicts("new flows", "flows whose clients never answer push each other out");
            affinity AFFINITY4 AFFINITY6: Lru[AffinityKey<$family>, AffinityRow], PerFlow { part: 4, least: 0 },
                Evicts("affinity", "clients that were not seen for long get other backends");
            // Packets of which only a part has been seen yet.
            fragments FRAGMENTS4 FRAGMENTS6: Lru[FragmentKey<$family>, FragmentRow],
                PerFlow { part: 16, least: 1 << 14 },
                Evicts("fragments", "packets that never came whole push each other out");
            sockets SOCKETS4 SOCKETS6: Lru[SocketKey<$family>, SocketRow<$family>],
                PerFlow { part: 4, least: 1 << 14 },
                Evicts("sockets", "sockets that were idle for long are shown their backends");
        }
    };
}

/// How many counts [`crate::path::Tables::turn`] knows.
pub const PORT_CURSOR_COUNT: u32 = 256;

/// Names that maps had before, and what they are called now.
pub const RENAMED: &[(&str, &str)] = &[
    ("INTEREST", PREFILTER.name),
    ("REACH", NEXT_HOPS.name),
    ("ANSWERS", PROXY_NEIGH.name),
    ("TURNS", PORT_CURSORS.name),
    ("HOMES", SOURCE_GUARD.name),
    ("UNPROVEN4", IPV4.unassured.name),
    ("UNPROVEN6", IPV6.unassured.name),
];

/// What user space knows of a map. Each is pinned by its name.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct MapInfo {
    /// In the kernel object and as a pin.
    pub name: &'static str,
    /// What it is to the kernel.
    pub kind: MapKind,
    /// How many rows it has.
    pub size: MapSize,
    /// What fills it, and what is the matter then.
    pub filled: MapUse,
    /// Of a map of one family: whether that is IPv6.
    pub ipv6: Option<bool>,
}

/// What a map is to the kernel.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum MapKind {
    /// An array.
    Array,
    /// An array that user space writes as memory.
    Mapped,
    /// An array of each CPU's own.
    PerCpu,
    /// A hash table.
    Hash,
    /// A hash table that takes memory for the rows that there are: on most hosts none.
    Sparse,
    /// A hash table that evicts.
    Lru,
    /// A trie of prefixes.
    Trie,
}

/// How many rows a map has. All but the fixed sizes are chosen when an instance's maps are made.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum MapSize {
    /// As the programs declare it.
    Fixed(u32),
    /// By the number of services.
    PerService {
        /// For each.
        rows: u32,
        /// For none, too.
        least: u32,
        /// However many there are.
        most: u32,
    },
    /// By the number of rows in a table of flows.
    PerFlow {
        /// One for so many.
        part: u32,
        /// However few they are.
        least: u32,
    },
}

/// What fills a map, as `lb status` calls it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum MapUse {
    /// Nothing ever does.
    Never,
    /// Services: those that need more are not taken over when it is full.
    Services(&'static str),
    /// When it is full nothing is added any more, and what that means.
    Refuses(&'static str, &'static str),
    /// When it is full the row that was not used for the longest time makes room, and what that means.
    Evicts(&'static str, &'static str),
}

impl MapSize {
    /// Rows for so many services and so many rows in each table of flows; `None`: it is fixed.
    pub fn rows(self, services: u32, flows: u32) -> Option<u32> {
        match self {
            MapSize::Fixed(_) => None,
            MapSize::PerService { rows, least, most } => {
                Some(services.saturating_mul(rows).max(least).min(most))
            }
            MapSize::PerFlow { part, least } => Some((flows / part).max(least)),
        }
    }
}

macro_rules! define_shared {
    ($($name:ident: $kind:ident[$($row:ty),+], $size:ident $amount:tt, $filled:ident $(($($words:literal),+))?;)*) => {
        $(
            #[doc = concat!("See [`shared_maps`](crate::shared_maps): `", stringify!($name), "`.")]
            pub const $name: MapInfo = MapInfo {
                name: stringify!($name),
                kind: MapKind::$kind,
                size: MapSize::$size $amount,
                filled: MapUse::$filled $(($($words),+))?,
                ipv6: None,
            };
        )*

        /// All that are there once.
        pub const SHARED: &[MapInfo] = &[$($name),*];
    };
}
shared_maps!(define_shared!());

macro_rules! define_families {
    ($(
        $field:ident $v4:ident $v6:ident: $kind:ident[$($row:ty),+],
        $size:ident $amount:tt, $filled:ident ($($words:literal),+);
    )*) => {
        /// The maps of one family.
        #[derive(Copy, Clone, Debug, PartialEq, Eq)]
        pub struct FamilyMaps {
            $(
                #[doc = concat!("See [`family_maps`](crate::family_maps): `", stringify!($field), "`.")]
                pub $field: MapInfo,
            )*
        }

        const IPV4: FamilyMaps = FamilyMaps { $($field: MapInfo {
            name: stringify!($v4),
            kind: MapKind::$kind,
            size: MapSize::$size $amount,
            filled: MapUse::$filled ($($words),+),
            ipv6: Some(false),
        },)* };

        const IPV6: FamilyMaps = FamilyMaps { $($field: MapInfo {
            name: stringify!($v6),
            kind: MapKind::$kind,
            size: MapSize::$size $amount,
            filled: MapUse::$filled ($($words),+),
            ipv6: Some(true),
        },)* };

        /// All that are there once for each family, side by side.
        pub const OF_FAMILIES: &[MapInfo] = &[$(IPV4.$field, IPV6.$field),*];
    };
}
family_maps!(define_families!(), ());

/// The maps of a family.
pub fn of_family<F: Family>() -> &'static FamilyMaps {
    if F::ETHERTYPE == V4::ETHERTYPE { &IPV4 } else { &IPV6 }
}

/// All maps.
pub fn all() -> impl Iterator<Item = &'static MapInfo> {
    SHARED.iter().chain(OF_FAMILIES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_one_maps() {
        for map in all() {
            assert_eq!(all().filter(|other| other.name == map.name).count(), 1, "{}", map.name);
        }
        assert_eq!(all().count(), SHARED.len() + OF_FAMILIES.len());
    }
}
