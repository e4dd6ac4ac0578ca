//! The kernel programs: one object per way back to clients, all on one set of pinned maps. Each loaded
//! program is pinned by what it was made of, so that the next agent need not have it verified again.

use std::{
    collections::{HashMap, HashSet},
    fs,
    hash::{DefaultHasher, Hash, Hasher as _},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::MapData,
    programs::{CgroupSockAddr, CgroupSockAddrAttachType, Program, SchedClassifier},
};
use aya_log::{EbpfLogger, Level};
use ipnet::IpNet;
use lb_common::{
    abi::{
        Cidr, Cidrs, Lifetimes, MAX_CIDRS, NextHopKind, Settings,
        maps::{self, MapInfo},
    },
    family::{Addr4, Addr6, Address as _, V4, V6},
    path::Hook,
};

use lb_sys::bpf;
use tokio::io::{Interest, unix::AsyncFd};

use super::{program_config::ProgramConfig, state::give_back_memory};
use crate::{
    maps::{Pins, Sizes},
    observe::clock,
    system::{io_kind, kernel_version},
};

/// The kernel programs as they were built with this binary.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-ebpf.o"));

/// What makes two loaded objects different.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// The zone of the one bridge; 0: there are several, or it is none's. See [`Settings::zone`].
    pub zone: u16,
    /// How clients behind the ports are reached; `Host` for the programs of the host's sockets.
    pub return_path: NextHopKind,
    /// They are outside: held to the external traffic policy.
    pub outside: bool,
}

impl Variant {
    /// That of uplinks.
    pub const UPLINK: Variant = Variant { zone: 0, return_path: NextHopKind::Uplink, outside: true };
}

/// The seed as the programs have it.
pub fn short_seed(hash_seed: u64) -> u32 {
    (hash_seed ^ (hash_seed >> 32)) as u32
}

/// What tells seeds apart without giving them away: who knows it still has four thousand million to choose from.
pub fn seed_hash(hash_seed: u64) -> String {
    // The last steps of splitmix64, of whose 64 bits half are shown.
    let mixed = (hash_seed ^ (hash_seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    format!("{:08x}", mixed >> 32)
}

/// See the module.
pub struct Programs {
    pins: Pins,
    sizes: Sizes,
    base: Settings,
    /// Programs say what they drop, as debug messages.
    log_drops: bool,
    /// A hash of the object.
    object: u64,
    /// Ids of the pinned maps.
    maps: Vec<u32>,
    /// Objects of which programs had to be loaded.
    objects: HashMap<Variant, Ebpf>,
    /// Names of the pins that have been asked for.
    used: HashSet<String>,
}

impl Programs {
    /// Nothing loaded yet.
    pub fn new(pins: &Pins, sizes: Sizes, hash_seed: u64, several_uplinks: bool) -> Programs {
        let hz = clock::hz();
        let tick_shift = clock::tick_shift(hz);
        let kernel = kernel_version();
        let base = Settings {
            hash_seed: short_seed(hash_seed),
            tick_shift,
            several_uplinks: several_uplinks as u32,
            has_csum_ipv6: (kernel >= (6, 16)) as u32,
            peer_scrubs: (kernel >= (6, 15)) as u32,
            lifetimes: Lifetimes::default().in_ticks(hz, tick_shift),
            ..Settings::DEFAULT
        };
        Programs {
            pins: pins.clone(),
            sizes,
            base,
            log_drops: tracing::enabled!(target: "lb_ebpf::log", tracing::Level::DEBUG),
            object: hash(OBJECT),
            maps: Vec::new(),
            objects: HashMap::new(),
            used: HashSet::new(),
        }
    }

    /// Makes the pinned maps where one is missing, before anything is attached.
    pub fn prepare(&mut self) -> Result<()> {
        let dir = self.pins.maps();
        if !maps::all().all(|map| dir.join(map.name).exists()) {
            self.loaded(Variant::UPLINK)?;
        }
        let id = |map: &MapInfo| {
            let pinned = MapData::from_pin(dir.join(map.name)).and_then(|pinned| pinned.info());
            pinned.map(|info| info.id()).with_context(|| format!("opening the map {}", map.name))
        };
        self.maps = maps::all().map(id).collect::<Result<_>>()?;
        Ok(())
    }

    /// What programs know: all are loaded anew when they are next asked for.
    pub fn set(&mut self, facts: &ProgramConfig) {
        (self.base.cidrs4, self.base.cidrs6) = cidrs(&facts.service_cidrs);
        self.base.host4 = facts.host.0.map_or(Addr4::ZERO, Addr4::from);
        self.base.host6 = facts.host.1.map_or(Addr6::ZERO, Addr6::from);
        self.base.mtu_floor = facts.mtu_floor;
        self.base.lifetimes = facts.lifetimes.in_ticks(clock::hz(), self.base.tick_shift);
        self.base.snat_first = facts.snat_ports.map_or(0, |ports| ports.first.into());
        self.base.snat_ports = facts.snat_ports.map_or(0, |ports| ports.count());
        self.objects.clear();
        self.used.clear();
    }

    /// The program of a hook in a variant, loaded when it is first asked for.
    pub fn program(&mut self, variant: Variant, hook: Hook) -> Result<SchedClassifier> {
        let pin = self.pin(variant, hook.program())?;
        SchedClassifier::from_pin(&pin).with_context(|| format!("opening {}", pin.display()))
    }

    /// The program of XDP in a variant of an uplink, loaded when it is first asked for.
    pub fn xdp_program(&mut self, variant: Variant) -> Result<OwnedFd> {
        let pin = self.pin(variant, Hook::UplinkXdp.program())?;
        bpf::pinned(&pin).with_context(|| format!("opening {}", pin.display()))
    }

    /// Says whose sockets are served, by their network namespace's cookie; with `pods`, also those of the
    /// namespaces in `COOKIES`. Before the first program of sockets is asked for.
    pub fn serve_sockets(&mut self, netns_cookie: u64, pods: bool) {
        self.base.pod_sockets = pods as u32;
        self.base.netns_cookie = [netns_cookie as u32, (netns_cookie >> 32) as u32];
    }

    /// A program of sockets by name, loaded when it is first asked for.
    pub fn socket_program(&mut self, name: &str, kind: CgroupSockAddrAttachType) -> Result<CgroupSockAddr> {
        let variant = Variant { zone: 0, return_path: NextHopKind::Host, outside: false };
        let pin = self.pin(variant, name)?;
        CgroupSockAddr::from_pin(&pin, kind).with_context(|| format!("opening {}", pin.display()))
    }

    /// Lets go of all programs that have not been asked for since they were last to be loaded anew, and of what
    /// loading took.
    pub fn tidy(&mut self) -> Result<()> {
        if !self.objects.is_empty() {
            self.objects.clear();
            give_back_memory();
        }
        let directory = self.pins.programs();
        for entry in fs::read_dir(&directory).with_context(|| format!("reading {}", directory.display()))? {
            let path = entry.with_context(|| format!("reading {}", directory.display()))?.path();
            let is_used =
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| self.used.contains(name));
            if !is_used {
                fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Where a program of a variant is pinned. It is loaded unless an agent before us has made the same one.
    fn pin(&mut self, variant: Variant, name: &str) -> Result<PathBuf> {
        let made_of = hash((self.object, bytemuck::bytes_of(&self.settings(variant)), &self.maps));
        let pinned = format!("{made_of:016x}-{}", name.replace('_', "-"));
        let path = self.pins.programs().join(&pinned);
        if self.used.contains(&pinned) {
            return Ok(path);
        }
        // What programs of an agent before us say they say to nobody.
        if self.log_drops || !path.exists() {
            self.load_program(variant, name, &path)?;
        }
        self.used.insert(pinned);
        Ok(path)
    }

    fn load_program(&mut self, variant: Variant, name: &str, path: &Path) -> Result<()> {
        let object = self.loaded(variant)?;
        let program =
            object.program_mut(name).ok_or_else(|| anyhow!("the kernel object has no program {name}"))?;
        match program {
            Program::SchedClassifier(program) => program.load(),
            Program::Xdp(program) => program.load(),
            Program::CgroupSockAddr(program) => program.load(),
            _ => return Err(anyhow!("the program {name} is of no type that is known here")),
        }
        .with_context(|| format!("loading the kernel program {name}"))?;
        let _ = fs::remove_file(path);
        program.pin(path).with_context(|| format!("pinning {}", path.display()))
    }

    fn loaded(&mut self, variant: Variant) -> Result<&mut Ebpf> {
        if !self.objects.contains_key(&variant) {
            let mut object = self.load(variant)?;
            if self.log_drops {
                follow_log(&mut object)?;
            }
            self.objects.insert(variant, object);
        }
        self.objects.get_mut(&variant).ok_or_else(|| anyhow!("an object just loaded is gone"))
    }

    fn settings(&self, variant: Variant) -> Settings {
        Settings {
            zone: variant.zone as u32,
            return_path: variant.return_path as u32,
            outside: variant.outside as u32,
            ..self.base
        }
    }

    fn load(&self, variant: Variant) -> Result<Ebpf> {
        let settings = self.settings(variant);
        let dir = self.pins.maps();
        let pins: Vec<_> = maps::all().map(|map| (map, dir.join(map.name))).collect();
        let mut loader = EbpfLoader::new();
        // Nothing here is relocated by the kernel's types: reading all of them takes 20 MB and 50 ms.
        loader.btf(None).override_global("SETTINGS", &settings, true);
        // Below any level that programs log at, so that logging is not in them.
        let level = if self.log_drops { Level::Debug as u8 } else { 0 };
        loader.override_global(aya_log::LEVEL, &level, true);
        if !self.log_drops {
            loader.map_max_entries("AYA_LOGS", rustix::param::page_size() as u32);
        }
        for (map, path) in &pins {
            loader.map_pin_path(map.name, path.as_path());
            if let Some(rows) = self.sizes.rows(map) {
                loader.map_max_entries(map.name, rows);
            }
        }
        loader.load(OBJECT).map_err(|error| {
            let denied = io_kind(&error) == Some(io::ErrorKind::PermissionDenied);
            let error = anyhow!(error);
            if denied {
                error.context("the kernel does not let us load programs: run as root (or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON)")
            } else {
                error.context("loading the kernel object")
            }
        })
    }
}

/// The same in every process of this binary.
fn hash(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// Ranges as programs have them. Those past [`MAX_CIDRS`] of a family are not known: the sources refuse them.
pub fn cidrs(ranges: &[IpNet]) -> (Cidrs<V4>, Cidrs<V6>) {
    let (mut v4, mut v6) = ([Cidr::NONE; MAX_CIDRS], [Cidr::NONE; MAX_CIDRS]);
    let (mut next4, mut next6) = (v4.iter_mut(), v6.iter_mut());
    for range in ranges {
        match range {
            IpNet::V4(range) => {
                if let Some(cidr) = next4.next() {
                    *cidr = Cidr { net: range.network().into(), mask: range.netmask().into() };
                }
            }
            IpNet::V6(range) => {
                if let Some(cidr) = next6.next() {
                    *cidr = Cidr { net: range.network().into(), mask: range.netmask().into() };
                }
            }
        }
    }
    (v4, v6)
}

/// Passes on what the programs of an object log, until the agent ends.
fn follow_log(object: &mut Ebpf) -> Result<()> {
    let logger = EbpfLogger::init(object).context("opening the programs' log")?;
    // SAFETY: the logger owns its descriptor and never changes it.
    let mut logger = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }
        .context("opening the programs' log")?;
    tokio::spawn(async move {
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_told_apart() {
        let seeds = [0, 1, 2, 1 << 63, 0x7f3a_9c01_d2e4_b586, 0x7f3a_9c01_d2e4_b587, u64::MAX];
        let hashes = seeds.map(seed_hash);
        assert!(hashes.iter().all(|hash| hash.len() == 8), "{hashes:?}");
        let different: std::collections::HashSet<&String> = hashes.iter().collect();
        assert_eq!(different.len(), seeds.len(), "{hashes:?}");
        // Written down so that it stays: nodes of different versions are compared by it.
        assert_eq!(seed_hash(0x7f3a_9c01_d2e4_b586), "4a7542e3");
    }
}
