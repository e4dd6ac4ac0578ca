//! The maps. Their sizes here are the smallest that make sense; the agent sets them at load.

use core::cell::UnsafeCell;

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray},
    macros::btf_map,
};
use lb_common::{
    abi::{
        AffinityKey, AffinityRow, AnswerKey, AnswerRow, BackendRow, Counter, FlowKey, FlowRow, FragmentKey,
        FragmentRow, FrontendKey, FrontendRow, HomeRow, INTEREST_BITS, RangeKey, ReachRow, ServiceRow,
        SetRow, Settings, SlotRow, SnatRow, SocketKey, SocketRow, Traffic, UnprovenRow,
    },
    family::{Family, V4, V6},
    path::{Note, TURNS as COUNTS},
};

const MAPPED: usize = BPF_F_MMAPABLE as usize;
/// Memory for the rows that there are: on most hosts none.
const SPARSE: usize = BPF_F_NO_PREALLOC as usize;

/// The agent's choice of options: read-only for programs, frozen before they are loaded.
#[repr(transparent)]
pub struct Frozen(UnsafeCell<Settings>);
// SAFETY: nobody writes it once the programs are loaded.
unsafe impl Sync for Frozen {}

impl Frozen {
    #[inline(always)]
    pub fn get(&self) -> &Settings {
        // SAFETY: as above. The cell only keeps the compiler from taking the zeros for the values.
        unsafe { &*self.0.get() }
    }
}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata.settings")]
pub static SETTINGS: Frozen = Frozen(UnsafeCell::new(Settings::DEFAULT));

#[btf_map]
pub static INTEREST: Array<u64, { (INTEREST_BITS / 64) as usize }, MAPPED> = Array::new();
#[btf_map]
pub static SERVICES: Array<ServiceRow, 1024, MAPPED> = Array::new();
#[btf_map]
pub static SETS: Array<SetRow, 1024, MAPPED> = Array::new();
#[btf_map]
pub static SLOTS: Array<SlotRow, 1024, MAPPED> = Array::new();
#[btf_map]
pub static REACH: Array<ReachRow, 1024, MAPPED> = Array::new();
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { Counter::COUNT as usize }> = PerCpuArray::new();
#[btf_map]
pub static TRAFFIC: PerCpuArray<Traffic, 1024> = PerCpuArray::new();
#[btf_map]
pub static ANSWERS: HashMap<AnswerKey, AnswerRow, 1024, SPARSE> = HashMap::new();
/// Counts of [`lb_common::path::Tables::turn`].
#[btf_map]
pub static TURNS: Array<u32, { COUNTS as usize }> = Array::new();
#[btf_map]
pub static HOMES: HashMap<AnswerKey, HomeRow, 1024, SPARSE> = HashMap::new();

#[btf_map]
pub static FRONTENDS4: HashMap<FrontendKey<V4>, FrontendRow, 1024> = HashMap::new();
#[btf_map]
pub static BACKENDS4: Array<BackendRow<V4>, 1024, MAPPED> = Array::new();
#[btf_map]
pub static FLOWS4: LruHashMap<FlowKey<V4>, FlowRow<V4>, 1024> = LruHashMap::new();
#[btf_map]
pub static UNPROVEN4: LruHashMap<FlowKey<V4>, UnprovenRow<V4>, 1024> = LruHashMap::new();
#[btf_map]
pub static SNAT4: HashMap<FlowKey<V4>, SnatRow<V4>, 1024, SPARSE> = HashMap::new();
#[btf_map]
pub static AFFINITY4: LruHashMap<AffinityKey<V4>, AffinityRow, 1024> = LruHashMap::new();
#[btf_map]
pub static RANGES4: LpmTrie<RangeKey<V4>, u32, 1024> = LpmTrie::new();
#[btf_map]
pub static FRAGMENTS4: LruHashMap<FragmentKey<V4>, FragmentRow, 1024> = LruHashMap::new();
#[btf_map]
static SCRATCH4: PerCpuArray<Scratch<V4>, 1> = PerCpuArray::new();

#[btf_map]
pub static FRONTENDS6: HashMap<FrontendKey<V6>, FrontendRow, 1024> = HashMap::new();
#[btf_map]
pub static BACKENDS6: Array<BackendRow<V6>, 1024, MAPPED> = Array::new();
#[btf_map]
pub static FLOWS6: LruHashMap<FlowKey<V6>, FlowRow<V6>, 1024> = LruHashMap::new();
#[btf_map]
pub static UNPROVEN6: LruHashMap<FlowKey<V6>, UnprovenRow<V6>, 1024> = LruHashMap::new();
#[btf_map]
pub static SNAT6: HashMap<FlowKey<V6>, SnatRow<V6>, 1024, SPARSE> = HashMap::new();
#[btf_map]
pub static AFFINITY6: LruHashMap<AffinityKey<V6>, AffinityRow, 1024> = LruHashMap::new();
#[btf_map]
pub static RANGES6: LpmTrie<RangeKey<V6>, u32, 1024> = LpmTrie::new();
#[btf_map]
pub static FRAGMENTS6: LruHashMap<FragmentKey<V6>, FragmentRow, 1024> = LruHashMap::new();
#[btf_map]
static SCRATCH6: PerCpuArray<Scratch<V6>, 1> = PerCpuArray::new();

/// What does not fit the stack: what is known of a packet, and a flow's key and row on their way into a table.
#[repr(C)]
pub struct Scratch<F: Family> {
    pub note: Note<F>,
    pub key: FlowKey<F>,
    pub row: UnprovenRow<F>,
}

/// The maps of one family; the sizes in the types are those above.
pub trait FamilyMaps: Family {
    fn frontends() -> &'static HashMap<FrontendKey<Self>, FrontendRow, 1024>;
    fn backends() -> &'static Array<BackendRow<Self>, 1024, MAPPED>;
    fn flows() -> &'static LruHashMap<FlowKey<Self>, FlowRow<Self>, 1024>;
    fn unproven() -> &'static LruHashMap<FlowKey<Self>, UnprovenRow<Self>, 1024>;
    fn snat() -> &'static HashMap<FlowKey<Self>, SnatRow<Self>, 1024, SPARSE>;
    fn affinity() -> &'static LruHashMap<AffinityKey<Self>, AffinityRow, 1024>;
    fn ranges() -> &'static LpmTrie<RangeKey<Self>, u32, 1024>;
    fn fragments() -> &'static LruHashMap<FragmentKey<Self>, FragmentRow, 1024>;
    fn scratch() -> &'static PerCpuArray<Scratch<Self>, 1>;
}

macro_rules! family {
    ($family:ident: $frontends:ident, $backends:ident, $flows:ident, $unproven:ident, $snat:ident, $affinity:ident, $ranges:ident, $fragments:ident, $scratch:ident) => {
        impl FamilyMaps for $family {
            #[inline(always)]
            fn frontends() -> &'static HashMap<FrontendKey<Self>, FrontendRow, 1024> {
                &$frontends
            }
            #[inline(always)]
            fn backends() -> &'static Array<BackendRow<Self>, 1024, MAPPED> {
                &$backends
            }
            #[inline(always)]
            fn flows() -> &'static LruHashMap<FlowKey<Self>, FlowRow<Self>, 1024> {
                &$flows
            }
            #[inline(always)]
            fn unproven() -> &'static LruHashMap<FlowKey<Self>, UnprovenRow<Self>, 1024> {
                &$unproven
            }
            #[inline(always)]
            fn snat() -> &'static HashMap<FlowKey<Self>, SnatRow<Self>, 1024, SPARSE> {
                &$snat
            }
            #[inline(always)]
            fn affinity() -> &'static LruHashMap<AffinityKey<Self>, AffinityRow, 1024> {
                &$affinity
            }
            #[inline(always)]
            fn ranges() -> &'static LpmTrie<RangeKey<Self>, u32, 1024> {
                &$ranges
            }
            #[inline(always)]
            fn fragments() -> &'static LruHashMap<FragmentKey<Self>, FragmentRow, 1024> {
                &$fragments
            }
            #[inline(always)]
            fn scratch() -> &'static PerCpuArray<Scratch<Self>, 1> {
                &$scratch
            }
        }
    };
}
family!(V4: FRONTENDS4, BACKENDS4, FLOWS4, UNPROVEN4, SNAT4, AFFINITY4, RANGES4, FRAGMENTS4, SCRATCH4);
family!(V6: FRONTENDS6, BACKENDS6, FLOWS6, UNPROVEN6, SNAT6, AFFINITY6, RANGES6, FRAGMENTS6, SCRATCH6);

#[btf_map]
pub static SOCKETS4: LruHashMap<SocketKey<V4>, SocketRow<V4>, 1024> = LruHashMap::new();
#[btf_map]
pub static SOCKETS6: LruHashMap<SocketKey<V6>, SocketRow<V6>, 1024> = LruHashMap::new();

/// Cookies, low half first, of the network namespaces whose sockets are translated beside the host's.
#[btf_map]
pub static COOKIES: HashMap<[u32; 2], u32, 4096, SPARSE> = HashMap::new();

/// The maps of one family that only sockets need.
pub trait SocketMaps: FamilyMaps {
    fn sockets() -> &'static LruHashMap<SocketKey<Self>, SocketRow<Self>, 1024>;
}

impl SocketMaps for V4 {
    #[inline(always)]
    fn sockets() -> &'static LruHashMap<SocketKey<Self>, SocketRow<Self>, 1024> {
        &SOCKETS4
    }
}

impl SocketMaps for V6 {
    #[inline(always)]
    fn sockets() -> &'static LruHashMap<SocketKey<Self>, SocketRow<Self>, 1024> {
        &SOCKETS6
    }
}
