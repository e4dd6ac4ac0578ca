//! The maps as the path sees them.

use core::{arch::asm, cell::Cell};

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    btf_maps::lpm_trie::Key,
    helpers::generated::{bpf_get_prandom_u32, bpf_jiffies64},
};
use lb_common::{
    abi::{
        AffinityKey, AffinityRow, BackendRow, BackendWord, Counter, FlowKey, FlowRow, FragmentKey,
        FragmentRow, FrontendKey, FrontendRow, Mac, NeighKey, NextHopKind, NextHopRow, PREFILTER_BITS,
        RangeKey, ServiceRow, SetRow, Settings, SlotRow, SnatRow, SocketKey, SocketRow, SourceGuardRow, Word,
    },
    path::{Common, Insert, InsertError, PacketState, Parsed, Sockets, Table, Tables},
};

use crate::maps::{
    BRIDGE_PORTS, COUNTERS, FamilyMaps, NEXT_HOPS, PORT_CURSORS, PREFILTER, PROXY_NEIGH, SERVICES, SETS,
    SETTINGS, SLOTS, SOURCE_GUARD, TRAFFIC,
};

/// All of them.
pub struct Maps;

const EEXIST: i32 = 17;

impl Common for Maps {
    #[inline(always)]
    fn settings(&self) -> &Settings {
        SETTINGS.get()
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        // SAFETY: no preconditions.
        (unsafe { bpf_jiffies64() } >> self.settings().tick_shift) as u32
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: no preconditions.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn prefilter(&self, hash: u32) -> bool {
        let bit = hash & (PREFILTER_BITS - 1);
        PREFILTER.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 != 0)
    }

    #[inline(always)]
    fn service(&self, id: u32) -> Option<ServiceRow> {
        // SAFETY: a row of an array of words, 8-aligned.
        SERVICES.get_ptr(id).map(|row| unsafe { Word::load(row) })
    }

    #[inline(always)]
    fn set(&self, index: u32) -> Option<SetRow> {
        SETS.get(index).copied()
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<SlotRow> {
        SLOTS.get(index).copied()
    }

    #[inline(always)]
    fn next_hop(&self, index: u32) -> Option<NextHopRow> {
        NEXT_HOPS.get(index).copied()
    }

    #[inline(always)]
    fn proxy_neigh(&self, key: &NeighKey) -> Option<Mac> {
        // SAFETY: copied at once; a row that is recycled meanwhile holds another bridge's MAC at worst, and
        // who got a wrong answer asks again.
        unsafe { PROXY_NEIGH.get(key) }.map(|row| row.mac)
    }

    #[inline(always)]
    fn source_guard(&self, key: &NeighKey) -> Option<SourceGuardRow> {
        // SAFETY: copied at once; what a row that is recycled meanwhile costs is said at `SourceGuardRow`.
        unsafe { SOURCE_GUARD.get(key) }.copied()
    }

    #[inline(always)]
    fn bridge_port(&self, ifindex: u32) -> Option<u16> {
        // SAFETY: copied at once; a row that is recycled meanwhile is another port's, and so is the zone of a packet
        // that comes as its port leaves.
        unsafe { BRIDGE_PORTS.get(&ifindex) }.map(|zone| *zone as u16)
    }

    #[inline(always)]
    fn count(&self, counter: Counter) {
        if let Some(count) = COUNTERS.get_ptr_mut(counter as u32) {
            if self.settings().return_path == NextHopKind::Host as u32 {
                // The programs of sockets run where packets' programs may interrupt them.
                return add_one(count);
            }
            // SAFETY: this CPU's own row, in a program that is not interrupted by itself.
            unsafe { *count += 1 };
        }
    }

    #[inline(always)]
    fn account(&self, service: u32, bytes: u32) {
        if let Some(traffic) = TRAFFIC.get_ptr_mut(service) {
            // SAFETY: as in `count`.
            let traffic = unsafe { &mut *traffic };
            traffic.packets += 1;
            traffic.bytes += bytes as u64;
        }
    }
}

impl<F: FamilyMaps> Tables<F> for Maps {
    #[inline(always)]
    fn begin(&self, parsed: &Parsed<F>, assured: bool) {
        if let Some(scratch) = F::scratch().get_ptr_mut(0) {
            // SAFETY: this CPU's own row, in a program that is not interrupted by itself.
            unsafe { &mut (*scratch).state }.begin(parsed, assured);
        }
    }

    #[inline(always)]
    fn set_zone(&self, zone: u16, assured: bool) {
        if let Some(scratch) = F::scratch().get_ptr_mut(0) {
            // SAFETY: as above; whoever has borrowed it asks for it anew.
            let state = unsafe { &mut (*scratch).state };
            state.parsed.key.zone = zone;
            state.assured.set(assured);
        }
    }

    #[inline(always)]
    fn state(&self) -> Option<&PacketState<F>> {
        // SAFETY: as in `note`, where all of it was written; nobody else writes it.
        F::scratch().get_ptr(0).map(|scratch| unsafe { &(*scratch).state })
    }

    #[inline(always)]
    fn flow(&self, table: Table, key: &FlowKey<F>) -> Option<&Cell<FlowRow<F>>> {
        let row = match table {
            Table::Assured => F::flows().get_ptr_mut(key)?,
            Table::Unassured => F::unassured().get_ptr_mut(key)?.cast(),
        };
        // SAFETY: rows of a preallocated table stay mapped while the program runs; what is in them may
        // be another flow's, which `Tables::flow` says. An unassured row begins with a flow's.
        Some(unsafe { &*row.cast::<Cell<FlowRow<F>>>() })
    }

    #[inline(always)]
    fn proof(&self, key: &FlowKey<F>) -> Option<&Cell<u32>> {
        let row = F::unassured().get_ptr_mut(key)?;
        // SAFETY: as in `flow`; the field is aligned.
        Some(unsafe { &*(&raw mut (*row).proof).cast::<Cell<u32>>() })
    }

    #[inline(always)]
    fn insert_flow(
        &self,
        table: Table,
        key: FlowKey<F>,
        row: FlowRow<F>,
        how: Insert,
    ) -> Result<(), InsertError> {
        let flags = match how {
            Insert::New => BPF_NOEXIST,
            Insert::Replace => BPF_ANY,
        } as u64;
        // Not from the stack, which is too small for the keys and rows of a new IPv6 flow.
        let scratch = F::scratch().get_ptr_mut(0).ok_or(InsertError::Full)?;
        // SAFETY: this CPU's own row, in a program that is not interrupted by itself; not `note` in it.
        let (place, value) = unsafe { (&mut (*scratch).key, &mut (*scratch).row) };
        *place = key;
        value.row = row;
        value.proof = 0;
        let inserted = match table {
            Table::Assured => F::flows().insert(place, &value.row, flags),
            Table::Unassured => F::unassured().insert(place, value, flags),
        };
        inserted.map_err(|error| match -error {
            EEXIST => InsertError::Exists,
            _ => InsertError::Full,
        })
    }

    #[inline(always)]
    fn remove_flow(&self, table: Table, key: &FlowKey<F>) {
        // Gone already is as good.
        let _ = match table {
            Table::Assured => F::flows().remove(key),
            Table::Unassured => F::unassured().remove(key),
        };
    }

    #[inline(always)]
    fn snat(&self, key: &FlowKey<F>) -> Option<&Cell<SnatRow<F>>> {
        // SAFETY: rows stay where they are for a grace period after they are removed.
        F::snat().get_ptr_mut(key).map(|row| unsafe { &*row.cast::<Cell<SnatRow<F>>>() })
    }

    #[inline(always)]
    fn insert_snat(&self, key: &FlowKey<F>, row: &SnatRow<F>) -> Result<(), InsertError> {
        F::snat().insert(key, row, BPF_NOEXIST as u64).map_err(|error| match -error {
            EEXIST => InsertError::Exists,
            _ => InsertError::Full,
        })
    }

    #[inline(always)]
    fn advance_cursor(&self, count: u32, steps: u32) -> u32 {
        // SAFETY: a row of an array is live and 4-aligned.
        PORT_CURSORS.get_ptr_mut(count).map_or(0, |row| unsafe { fetch_add(row, steps) })
    }

    #[inline(always)]
    fn remove_snat(&self, key: &FlowKey<F>) {
        // Gone already is as good.
        let _ = F::snat().remove(key);
    }

    #[inline(always)]
    fn claim(&self, row: &Cell<SnatRow<F>>, seen: u32) -> bool {
        // SAFETY: a field of a live row, aligned to 4.
        compare_exchange(unsafe { &raw mut (*row.as_ptr()).row.seen }, seen, self.now())
    }

    #[inline(always)]
    fn fragments(&self, key: &FragmentKey<F>) -> Option<&Cell<FragmentRow>> {
        let row = F::fragments().get_ptr_mut(key)?;
        // SAFETY: as in `flow`. A row that is recycled meanwhile names another packet's flow: one fragment may
        // go to the backend of a packet that came at the same moment, and the receiver's checksum tells.
        Some(unsafe { &*row.cast::<Cell<FragmentRow>>() })
    }

    #[inline(always)]
    fn keep_fragments(&self, key: FragmentKey<F>, row: FragmentRow) {
        let _ = F::fragments().insert(&key, &row, BPF_ANY as u64);
    }

    #[inline(always)]
    fn forget_fragments(&self, key: &FragmentKey<F>) {
        // Gone already is as good.
        let _ = F::fragments().remove(key);
    }

    #[inline(always)]
    fn frontend(&self, key: &FrontendKey<F>) -> Option<FrontendRow> {
        // SAFETY: rows of this table are never updated; a recycled one leads to a service whose slots
        // say that they are not its.
        unsafe { F::frontends().get(key) }.copied()
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey<F>) -> Option<AffinityRow> {
        // SAFETY: copied at once; a row that is recycled meanwhile names a backend that is not the
        // service's, or another client's, which is as good a choice.
        unsafe { F::affinity().get(key) }.copied()
    }

    #[inline(always)]
    fn keep_affinity(&self, key: AffinityKey<F>, row: AffinityRow) {
        let _ = F::affinity().insert(&key, &row, BPF_ANY as u64);
    }

    #[inline(always)]
    fn in_range(&self, set: u32, addr: F::Addr) -> bool {
        let whole = size_of::<RangeKey<F>>() as u32 * 8;
        F::ranges().get(&Key::new(whole, RangeKey { set, addr })).is_some()
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<(BackendWord, &BackendRow<F>)> {
        let row = F::backends().get_ptr(id)?;
        // SAFETY: a live row of an array, 8-aligned, that starts with its word.
        Some((BackendWord(unsafe { Word::load(row.cast()) }), unsafe { &*row }))
    }
}

impl<F: FamilyMaps> Sockets<F> for Maps {
    #[inline(always)]
    fn socket(&self, key: &SocketKey<F>) -> Option<SocketRow<F>> {
        // SAFETY: copied at once. A row that is recycled meanwhile may be another socket's: senders check
        // whose backend it names, and a wrong name shown once is what that can come to elsewhere.
        unsafe { F::sockets().get(key) }.copied()
    }

    #[inline(always)]
    fn keep_socket(&self, key: SocketKey<F>, row: SocketRow<F>) -> bool {
        F::sockets().insert(&key, &row, BPF_ANY as u64).is_ok()
    }
}

/// Adds one to a row of [`COUNTERS`] in one step. `core` has no such operation for this target.
#[inline(always)]
fn add_one(count: *mut u64) {
    // SAFETY: rows of an array are live and 8-aligned.
    unsafe {
        asm!("lock *(u64 *)({count} + 0) += {one}", count = in(reg) count, one = in(reg) 1_u64, options(nostack));
    }
}

/// Adds to a word in one step; what it was.
///
/// # Safety
/// The word is live and aligned.
#[inline(always)]
unsafe fn fetch_add(word: *mut u32, more: u32) -> u32 {
    let found: u32;
    // SAFETY: as above.
    unsafe {
        asm!(
            "{value} = atomic_fetch_add((u32 *)({word} + 0), {value})",
            word = in(reg) word,
            value = inout(wreg) more => found,
            options(nostack),
        );
    }
    found
}

/// Makes a word `new` if it is `old`, in one step; whether it was. `core` has no such operation for this
/// target.
#[inline(always)]
fn compare_exchange(word: *mut u32, old: u32, new: u32) -> bool {
    let found: u32;
    // SAFETY: the word is live and aligned.
    unsafe {
        asm!(
            "w0 = cmpxchg32_32({word} + 0, w0, {new})",
            word = in(reg) word,
            new = in(wreg) new,
            inout("w0") old => found,
            options(nostack),
        );
    }
    found == old
}
