//! The pinned maps of one instance, typed.

mod cookies;
pub mod heartbeat;
pub mod lent;
mod owned;
mod pins;
mod ranges;
mod sockets;
mod walk;

use std::{
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::maps::{HashMap, LpmTrie, Map, MapData, MapError, MapInfo, PerCpuArray};
use lb_common::{
    abi::{
        AnswerKey, AnswerRow, BackendRow, Counter, FlowKey, FlowRow, FrontendKey, FrontendRow, HomeRow,
        INTEREST_BITS, RangeKey, ReachRow, SetRow, SlotRow, Traffic, UnprovenRow, Word,
    },
    family::{Family, Pair, V4, V6},
};

use crate::system::io_kind;
pub use cookies::Cookies;
pub use lb_sys::Mapped;
pub use owned::Untrusted;
pub use pins::{Lock, Pins};
pub use sockets::Sockets;
pub use walk::{count, walk};

/// How many rows the maps hold. Fixed when an instance's maps are made; `lb uninstall` frees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Service rows: one per service port and family.
    pub services: u32,
    /// Rows of each table of proven flows; a flow takes two. A quarter as many are for unproven ones.
    pub flows: u32,
}

impl Sizes {
    /// Slots per service: Maglev's table for three backends, the common size.
    const SLOTS: u32 = 307;
    /// Backends per service.
    const BACKENDS: u32 = 8;
    /// Frontends per service, rows of addresses among them.
    const FRONTENDS: u32 = 4;

    /// Name and rows of each map whose size is not fixed.
    pub fn entries(&self) -> [(&'static str, u32); 25] {
        let backends = self.services.saturating_mul(Self::BACKENDS).min(1 << 24);
        [
            ("SERVICES", self.services),
            ("SETS", self.services.saturating_mul(2)),
            ("SLOTS", self.services.saturating_mul(Self::SLOTS).max(1 << 21)),
            ("REACH", backends),
            ("TRAFFIC", self.services),
            ("ANSWERS", self.services),
            ("HOMES", self.services.saturating_mul(2)),
            ("FRONTENDS4", self.services.saturating_mul(Self::FRONTENDS)),
            ("FRONTENDS6", self.services.saturating_mul(Self::FRONTENDS)),
            ("BACKENDS4", backends),
            ("BACKENDS6", backends),
            ("FLOWS4", self.flows),
            ("FLOWS6", self.flows),
            ("UNPROVEN4", (self.flows / 4).max(1 << 14)),
            ("UNPROVEN6", (self.flows / 4).max(1 << 14)),
            ("SNAT4", self.flows / 2),
            ("SNAT6", self.flows / 2),
            ("AFFINITY4", self.flows / 4),
            ("AFFINITY6", self.flows / 4),
            ("RANGES4", self.services.saturating_mul(2).max(1 << 16)),
            ("RANGES6", self.services.saturating_mul(2).max(1 << 16)),
            // Packets of which only a part has been seen yet.
            ("FRAGMENTS4", (self.flows / 16).max(1 << 14)),
            ("FRAGMENTS6", (self.flows / 16).max(1 << 14)),
            ("SOCKETS4", (self.flows / 4).max(1 << 14)),
            ("SOCKETS6", (self.flows / 4).max(1 << 14)),
        ]
    }
}

/// The names of all maps that are pinned.
pub const PINNED: [&str; 29] = [
    "INTEREST",
    "SERVICES",
    "SETS",
    "SLOTS",
    "REACH",
    "COUNTERS",
    "TRAFFIC",
    "ANSWERS",
    "TURNS",
    "HOMES",
    "FRONTENDS4",
    "BACKENDS4",
    "FLOWS4",
    "FRONTENDS6",
    "BACKENDS6",
    "FLOWS6",
    "UNPROVEN4",
    "UNPROVEN6",
    "SNAT4",
    "SNAT6",
    "AFFINITY4",
    "AFFINITY6",
    "RANGES4",
    "RANGES6",
    "FRAGMENTS4",
    "FRAGMENTS6",
    "SOCKETS4",
    "SOCKETS6",
    "COOKIES",
];

/// Why an instance's maps can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such instance.
    #[error("no instance is installed at {0}: start one with `lb run`, or name another with --instance")]
    Missing(PathBuf),
    /// Not allowed.
    #[error("opening {0}: not permitted; run as root (or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON)")]
    Forbidden(PathBuf),
    /// Made by a version with other rows.
    #[error(
        "{path}: rows of {found} bytes where this version has {expected}: made by another version of lb; \
         remove it with `lb uninstall` of that version, or with this one's, then start again"
    )]
    OtherVersion {
        /// The map.
        path: PathBuf,
        /// Bytes of its rows.
        found: u32,
        /// Bytes of ours.
        expected: u32,
    },
    /// Anything else the kernel says.
    #[error("opening the map {path}: {source}")]
    Map {
        /// The map.
        path: PathBuf,
        /// What was said.
        source: MapError,
    },
    /// Counting its rows failed.
    #[error("counting the rows of the map {path}: {source}")]
    Count {
        /// The map.
        path: PathBuf,
        /// What was said.
        source: std::io::Error,
    },
    /// Mapping an array failed.
    #[error("mapping {path} into memory: {source}")]
    Mmap {
        /// The map.
        path: PathBuf,
        /// What was said.
        source: std::io::Error,
    },
}

/// The maps that exist once per family.
pub struct Side<F: Family> {
    /// Frontends.
    pub frontends: HashMap<MapData, FrontendKey<F>, FrontendRow>,
    /// Backends.
    pub backends: Mapped<BackendRow<F>>,
    /// Flows.
    pub flows: HashMap<MapData, FlowKey<F>, FlowRow<F>>,
    /// Flows whose clients have not proved themselves.
    pub unproven: HashMap<MapData, FlowKey<F>, UnprovenRow<F>>,
    /// Rows of the frontends' table.
    pub max_frontends: u32,
    /// Source ranges.
    pub ranges: LpmTrie<MapData, RangeKey<F>, u32>,
    /// Rows of their trie.
    pub max_ranges: u32,
}

impl<'a> Pair for &'a mut Maps {
    type Of<F: Family> = &'a mut Side<F>;

    fn v4(self) -> &'a mut Side<V4> {
        &mut self.v4
    }

    fn v6(self) -> &'a mut Side<V6> {
        &mut self.v6
    }
}

/// All maps of one instance.
pub struct Maps {
    /// Bitmap of interesting addresses.
    pub interest: Mapped<u64>,
    /// Service words.
    pub services: Mapped<Word>,
    /// Sets.
    pub sets: Mapped<SetRow>,
    /// Slots.
    pub slots: Mapped<SlotRow>,
    /// Ways to backends.
    pub reach: Mapped<ReachRow>,
    /// Outcomes.
    pub counters: PerCpuArray<MapData, u64>,
    /// Traffic by service.
    pub traffic: PerCpuArray<MapData, Traffic>,
    /// Addresses that bridges answer for.
    pub answers: HashMap<MapData, AnswerKey, AnswerRow>,
    /// Ports that neighbours are at home at.
    pub homes: HashMap<MapData, AnswerKey, HomeRow>,
    /// IPv4's.
    pub v4: Side<V4>,
    /// IPv6's.
    pub v6: Side<V6>,
}

impl Maps {
    /// Opens the maps pinned below `dir`.
    pub fn open(dir: &Path) -> Result<Maps, OpenError> {
        let maps = Maps {
            interest: mapped(dir, "INTEREST")?,
            services: mapped(dir, "SERVICES")?,
            sets: mapped(dir, "SETS")?,
            slots: mapped(dir, "SLOTS")?,
            reach: mapped(dir, "REACH")?,
            counters: per_cpu(dir, "COUNTERS")?,
            traffic: per_cpu(dir, "TRAFFIC")?,
            answers: hash(dir, "ANSWERS")?,
            homes: hash(dir, "HOMES")?,
            v4: side(dir, ["FRONTENDS4", "BACKENDS4", "FLOWS4", "RANGES4", "UNPROVEN4"])?,
            v6: side(dir, ["FRONTENDS6", "BACKENDS6", "FLOWS6", "RANGES6", "UNPROVEN6"])?,
        };
        let (bits, counters) = (maps.interest.len() * 64, maps.counters.len());
        if bits != INTEREST_BITS || counters != Counter::COUNT {
            let path = dir.join(if bits == INTEREST_BITS { "COUNTERS" } else { "INTEREST" });
            return Err(OpenError::OtherVersion { path, found: counters * 8, expected: Counter::COUNT * 8 });
        }
        Ok(maps)
    }
}

/// The kernel's number for a map that all programs of the instance use and those of others do not; 0 if it can't be
/// asked for.
pub fn number(dir: &Path) -> u32 {
    MapInfo::from_pin(dir.join("COUNTERS")).map_or(0, |info| info.id())
}

fn open(dir: &Path, name: &str) -> Result<(MapData, MapInfo), OpenError> {
    let path = dir.join(name);
    let error = |source: MapError| match io_kind(&source) {
        Some(std::io::ErrorKind::NotFound) => OpenError::Missing(dir.to_owned()),
        Some(std::io::ErrorKind::PermissionDenied) => OpenError::Forbidden(path.clone()),
        _ => OpenError::Map { path: path.clone(), source },
    };
    let data = MapData::from_pin(&path).map_err(error)?;
    let info = data.info().map_err(|source| OpenError::Map { path, source })?;
    Ok((data, info))
}

fn data(dir: &Path, name: &str, row: usize) -> Result<(MapData, u32), OpenError> {
    let (data, info) = open(dir, name)?;
    if info.value_size() != row as u32 {
        let path = dir.join(name);
        return Err(OpenError::OtherVersion { path, found: info.value_size(), expected: row as u32 });
    }
    Ok((data, info.max_entries()))
}

fn mapped<T: bytemuck::Pod>(dir: &Path, name: &str) -> Result<Mapped<T>, OpenError> {
    let (data, len) = data(dir, name, size_of::<T>())?;
    Mapped::new(data.fd().as_fd(), len).map_err(|source| OpenError::Mmap { path: dir.join(name), source })
}

fn per_cpu<T: aya::Pod>(dir: &Path, name: &str) -> Result<PerCpuArray<MapData, T>, OpenError> {
    let (data, _) = data(dir, name, size_of::<T>())?;
    PerCpuArray::try_from(Map::PerCpuArray(data))
        .map_err(|source| OpenError::Map { path: dir.join(name), source })
}

fn hash<K: aya::Pod, V: aya::Pod>(dir: &Path, name: &str) -> Result<HashMap<MapData, K, V>, OpenError> {
    let (data, _) = data(dir, name, size_of::<V>())?;
    HashMap::try_from(Map::HashMap(data)).map_err(|source| OpenError::Map { path: dir.join(name), source })
}

fn side<F: Family>(dir: &Path, names: [&str; 5]) -> Result<Side<F>, OpenError> {
    let [frontends, backends, flows, ranges, unproven] = names;
    let (frontend_data, max_frontends) = data(dir, frontends, size_of::<FrontendRow>())?;
    let (flow_data, _) = data(dir, flows, size_of::<FlowRow<F>>())?;
    let (unproven_data, _) = data(dir, unproven, size_of::<UnprovenRow<F>>())?;
    let (range_data, max_ranges) = data(dir, ranges, size_of::<u32>())?;
    let error = |name: &str| {
        let path = dir.join(name);
        move |source| OpenError::Map { path, source }
    };
    Ok(Side {
        frontends: HashMap::try_from(Map::HashMap(frontend_data)).map_err(error(frontends))?,
        backends: mapped(dir, backends)?,
        flows: HashMap::try_from(Map::LruHashMap(flow_data)).map_err(error(flows))?,
        unproven: HashMap::try_from(Map::LruHashMap(unproven_data)).map_err(error(unproven))?,
        max_frontends,
        ranges: LpmTrie::try_from(Map::LpmTrie(range_data)).map_err(error(ranges))?,
        max_ranges,
    })
}
