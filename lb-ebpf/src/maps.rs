//! The maps. Their sizes here are the smallest that make sense; the agent sets them at load.

use core::cell::UnsafeCell;

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray},
    macros::btf_map,
};
use lb_common::{
    abi::{
        AffinityKey, AffinityRow, BackendRow, Counter, FlowKey, FlowRow, FragmentKey, FragmentRow,
        FrontendKey, FrontendRow, NeighKey, NextHopRow, PREFILTER_BITS, ProxyNeighRow, RangeKey, ServiceRow,
        SetRow, Settings, SlotRow, SnatRow, SocketKey, SocketRow, SourceGuardRow, Traffic, UnassuredRow,
        maps::PORT_CURSOR_COUNT,
    },
    family::{Family, V4, V6},
    family_maps,
    path::PacketState,
    shared_maps,
};

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

/// Read and written by user space as memory.
type Mapped<V, const ROWS: usize> = Array<V, ROWS, { BPF_F_MMAPABLE as usize }>;
type PerCpu<V, const ROWS: usize> = PerCpuArray<V, ROWS>;
type Hash<K, V, const ROWS: usize> = HashMap<K, V, ROWS>;
/// Memory for the rows that there are: on most hosts none.
type Sparse<K, V, const ROWS: usize> = HashMap<K, V, ROWS, { BPF_F_NO_PREALLOC as usize }>;
type Lru<K, V, const ROWS: usize> = LruHashMap<K, V, ROWS>;
type Trie<K, V, const ROWS: usize> = LpmTrie<K, V, ROWS>;

/// Rows of a map whose size the agent sets.
const SOME: usize = 1024;

macro_rules! rows {
    (Fixed($rows:expr)) => {
        $rows as usize
    };
    ($size:ident $amount:tt) => {
        SOME
    };
}

macro_rules! declare_shared {
    ($($name:ident: $kind:ident[$($row:ty),+], $size:ident $amount:tt, $filled:ident $(($($words:literal),+))?;)*) => {$(
        #[btf_map]
        pub static $name: $kind<$($row),+, { rows!($size $amount) }> = $kind::new();
    )*};
}
shared_maps!(declare_shared!());

macro_rules! declare_trait {
    ($(
        $field:ident $v4:ident $v6:ident: $kind:ident[$($row:ty),+],
        $size:ident $amount:tt, $filled:ident ($($words:literal),+);
    )*) => {
        /// The maps of one family.
        pub trait FamilyMaps: Family {
            $(fn $field() -> &'static $kind<$($row),+, SOME>;)*
            fn scratch() -> &'static PerCpu<Scratch<Self>, 1>;
        }
    };
}
family_maps!(declare_trait!(), Self);

macro_rules! declare_family {
    ($family:ident, $scratch:ident, $($field:ident $name:ident: $kind:ident[$($row:ty),+];)*) => {
        $(
            #[btf_map]
            static $name: $kind<$($row),+, SOME> = $kind::new();
        )*
        #[btf_map]
        static $scratch: PerCpu<Scratch<$family>, 1> = PerCpu::new();

        impl FamilyMaps for $family {
            $(
                #[inline(always)]
                fn $field() -> &'static $kind<$($row),+, SOME> {
                    &$name
                }
            )*
            #[inline(always)]
            fn scratch() -> &'static PerCpu<Scratch<Self>, 1> {
                &$scratch
            }
        }
    };
}

macro_rules! declare_ipv4 {
    ($(
        $field:ident $name:ident $v6:ident: $kind:ident[$($row:ty),+],
        $size:ident $amount:tt, $filled:ident ($($words:literal),+);
    )*) => {
        declare_family! { V4, SCRATCH4, $($field $name: $kind[$($row),+];)* }
    };
}
family_maps!(declare_ipv4!(), V4);

macro_rules! declare_ipv6 {
    ($(
        $field:ident $v4:ident $name:ident: $kind:ident[$($row:ty),+],
        $size:ident $amount:tt, $filled:ident ($($words:literal),+);
    )*) => {
        declare_family! { V6, SCRATCH6, $($field $name: $kind[$($row),+];)* }
    };
}
family_maps!(declare_ipv6!(), V6);

/// What does not fit the stack: what is known of a packet, and a flow's key and row on their way into a table.
#[repr(C)]
pub struct Scratch<F: Family> {
    pub state: PacketState<F>,
    pub key: FlowKey<F>,
    pub row: UnassuredRow<F>,
}
