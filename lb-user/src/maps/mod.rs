//! The pinned maps of one instance, typed.

mod cookies;
pub mod heartbeat;
mod owned;
mod pins;
mod ranges;
pub mod snat_ports;
mod sockets;
mod walk;

use std::{
    fs,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::maps::{HashMap, LpmTrie, Map, MapData, MapError, MapInfo as PinnedInfo, PerCpuArray};
use lb_common::{
    abi::{
        BackendRow, Counter, FlowKey, FlowRow, FrontendKey, FrontendRow, NeighKey, NextHopRow,
        PREFILTER_BITS, ProxyNeighRow, RangeKey, SetRow, SlotRow, SourceGuardRow, Traffic, UnassuredRow,
        Word,
        maps::{self as abi, FamilyMaps, MapInfo},
    },
    family::{Family, Pair, V4, V6},
};

use crate::system::io_kind;
pub use cookies::Cookies;
pub use lb_sys::Mapped;
pub use owned::Untrusted;
pub use pins::{Lock, Pins};
pub use sockets::Sockets;
pub use walk::{batches, count, walk};

/// How many rows the maps hold. Fixed when an instance's maps are made; `lb uninstall` frees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Service rows: one per service port and family.
    pub services: u32,
    /// Rows of each table of assured flows; a flow takes two. A quarter as many are for unassured ones.
    pub flows: u32,
}

impl Sizes {
    /// Rows of a map, if its size is not fixed.
    pub fn rows(&self, map: &MapInfo) -> Option<u32> {
        map.size.rows(self.services, self.flows)
    }
}

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
    /// It could not be given the name that it has now.
    #[error(
        "renaming {path}, which another version of lb has made: {source}; `lb uninstall`, then start again"
    )]
    Rename {
        /// The pin.
        path: PathBuf,
        /// What was said.
        source: std::io::Error,
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
    pub unassured: HashMap<MapData, FlowKey<F>, UnassuredRow<F>>,
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
    /// Bitmap of the prefilter.
    pub prefilter: Mapped<u64>,
    /// Service words.
    pub services: Mapped<Word>,
    /// Sets.
    pub sets: Mapped<SetRow>,
    /// Slots.
    pub slots: Mapped<SlotRow>,
    /// Ways to backends.
    pub next_hops: Mapped<NextHopRow>,
    /// Outcomes.
    pub counters: PerCpuArray<MapData, u64>,
    /// Traffic by service.
    pub traffic: PerCpuArray<MapData, Traffic>,
    /// Addresses that bridges answer for.
    pub proxy_neigh: HashMap<MapData, NeighKey, ProxyNeighRow>,
    /// Ports at which neighbours are known.
    pub source_guard: HashMap<MapData, NeighKey, SourceGuardRow>,
    /// IPv4's.
    pub v4: Side<V4>,
    /// IPv6's.
    pub v6: Side<V6>,
}

impl Maps {
    /// Opens the maps pinned below `dir`.
    pub fn open(dir: &Path) -> Result<Maps, OpenError> {
        let maps = Maps {
            prefilter: mapped(dir, &abi::PREFILTER)?,
            services: mapped(dir, &abi::SERVICES)?,
            sets: mapped(dir, &abi::SETS)?,
            slots: mapped(dir, &abi::SLOTS)?,
            next_hops: mapped(dir, &abi::NEXT_HOPS)?,
            counters: per_cpu(dir, &abi::COUNTERS)?,
            traffic: per_cpu(dir, &abi::TRAFFIC)?,
            proxy_neigh: hash(dir, &abi::PROXY_NEIGH)?,
            source_guard: hash(dir, &abi::SOURCE_GUARD)?,
            v4: side(dir)?,
            v6: side(dir)?,
        };
        let (bits, counters) = (maps.prefilter.len() * 64, maps.counters.len());
        if bits != PREFILTER_BITS || counters != Counter::COUNT {
            let path =
                dir.join(if bits == PREFILTER_BITS { abi::COUNTERS.name } else { abi::PREFILTER.name });
            return Err(OpenError::OtherVersion { path, found: counters * 8, expected: Counter::COUNT * 8 });
        }
        Ok(maps)
    }

    /// How many rows there are in a map that is filled by id or by services; 0 for others.
    pub fn rows(&self, map: &MapInfo) -> u32 {
        let (v4, v6) = (abi::of_family::<V4>(), abi::of_family::<V6>());
        let rows = [
            (&abi::SERVICES, self.services.len()),
            (&abi::SETS, self.sets.len()),
            (&abi::SLOTS, self.slots.len()),
            (&abi::NEXT_HOPS, self.next_hops.len()),
            (&v4.backends, self.v4.backends.len()),
            (&v6.backends, self.v6.backends.len()),
            (&v4.frontends, self.v4.max_frontends),
            (&v6.frontends, self.v6.max_frontends),
            (&v4.ranges, self.v4.max_ranges),
            (&v6.ranges, self.v6.max_ranges),
        ];
        rows.iter().find(|(known, _)| *known == map).map_or(0, |(_, rows)| *rows)
    }
}

/// Opens the zones of the bridges' ports, pinned below `dir`.
pub fn bridge_ports(dir: &Path) -> Result<HashMap<MapData, u32, u32>, OpenError> {
    hash(dir, &abi::BRIDGE_PORTS)
}

/// Gives the pins in `dir` that a version before has made the names that they have now. Their maps, and whoever uses
/// them, see nothing of it.
///
/// # Errors
/// The pin, and what the kernel says.
pub fn rename_old(dir: &Path) -> Result<(), OpenError> {
    for (old, new) in abi::RENAMED {
        let (old, new) = (dir.join(old), dir.join(new));
        if old.exists() && !new.exists() {
            fs::rename(&old, &new).map_err(|source| OpenError::Rename { path: old, source })?;
        }
    }
    Ok(())
}

/// The kernel's number for a map that all programs of the instance use and those of others do not; 0 if it can't be
/// asked for.
pub fn number(dir: &Path) -> u32 {
    PinnedInfo::from_pin(dir.join(abi::COUNTERS.name)).map_or(0, |info| info.id())
}

fn open(dir: &Path, map: &MapInfo) -> Result<(MapData, PinnedInfo), OpenError> {
    let mut path = dir.join(map.name);
    if !path.exists()
        && let Some((old, _)) = abi::RENAMED.iter().find(|(_, new)| *new == map.name)
        && dir.join(old).exists()
    {
        // An agent of the version before runs.
        path = dir.join(old);
    }
    let error = |source: MapError| match io_kind(&source) {
        Some(std::io::ErrorKind::NotFound) => OpenError::Missing(dir.to_owned()),
        Some(std::io::ErrorKind::PermissionDenied) => OpenError::Forbidden(path.clone()),
        _ => OpenError::Map { path: path.clone(), source },
    };
    let data = MapData::from_pin(&path).map_err(error)?;
    let info = data.info().map_err(|source| OpenError::Map { path, source })?;
    Ok((data, info))
}

fn data(dir: &Path, map: &MapInfo, row: usize) -> Result<(MapData, u32), OpenError> {
    let (data, info) = open(dir, map)?;
    if info.value_size() != row as u32 {
        let path = dir.join(map.name);
        return Err(OpenError::OtherVersion { path, found: info.value_size(), expected: row as u32 });
    }
    Ok((data, info.max_entries()))
}

fn mapped<T: bytemuck::Pod>(dir: &Path, map: &MapInfo) -> Result<Mapped<T>, OpenError> {
    let (data, len) = data(dir, map, size_of::<T>())?;
    Mapped::new(data.fd().as_fd(), len).map_err(|source| OpenError::Mmap { path: dir.join(map.name), source })
}

fn per_cpu<T: aya::Pod>(dir: &Path, map: &MapInfo) -> Result<PerCpuArray<MapData, T>, OpenError> {
    let (data, _) = data(dir, map, size_of::<T>())?;
    PerCpuArray::try_from(Map::PerCpuArray(data))
        .map_err(|source| OpenError::Map { path: dir.join(map.name), source })
}

fn hash<K: aya::Pod, V: aya::Pod>(dir: &Path, map: &MapInfo) -> Result<HashMap<MapData, K, V>, OpenError> {
    let (data, _) = data(dir, map, size_of::<V>())?;
    HashMap::try_from(Map::HashMap(data))
        .map_err(|source| OpenError::Map { path: dir.join(map.name), source })
}

fn side<F: Family>(dir: &Path) -> Result<Side<F>, OpenError> {
    let FamilyMaps { frontends, backends, flows, ranges, unassured, .. } = abi::of_family::<F>();
    let (frontend_data, max_frontends) = data(dir, frontends, size_of::<FrontendRow>())?;
    let (flow_data, _) = data(dir, flows, size_of::<FlowRow<F>>())?;
    let (unassured_data, _) = data(dir, unassured, size_of::<UnassuredRow<F>>())?;
    let (range_data, max_ranges) = data(dir, ranges, size_of::<u32>())?;
    let error = |map: &MapInfo| {
        let path = dir.join(map.name);
        move |source| OpenError::Map { path, source }
    };
    Ok(Side {
        frontends: HashMap::try_from(Map::HashMap(frontend_data)).map_err(error(frontends))?,
        backends: mapped(dir, backends)?,
        flows: HashMap::try_from(Map::LruHashMap(flow_data)).map_err(error(flows))?,
        unassured: HashMap::try_from(Map::LruHashMap(unassured_data)).map_err(error(unassured))?,
        max_frontends,
        ranges: LpmTrie::try_from(Map::LpmTrie(range_data)).map_err(error(ranges))?,
        max_ranges,
    })
}
