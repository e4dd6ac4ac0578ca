//! The surroundings of the decision core on the host: a packet in a vector, tables in hash maps.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::{BTreeMap, HashMap},
};

use bumpalo::Bump;
use bytemuck::Pod;
use lb_common::{
    abi::{
        AffinityKey, AffinityRow, AnswerKey, BackendRow, BackendWord, Counter, FlowKey, FlowRow, FragmentKey,
        FragmentRow, FrontendKey, FrontendRow, HomeRow, Mac, ReachRow, ServiceRow, SetRow, Settings, SlotRow,
        SnatRow, Traffic, UnprovenRow,
    },
    family::Family,
    path::{
        self, Common, Hook, InPlace, Insert, InsertError, Note, Packet, Parsed, SumKind, TURNS, Table,
        Tables, Verdict,
    },
    wire::{Ethernet, Protocol, checksum::fold16, ethernet},
};

use crate::{
    family::Net,
    kernel::ROWS,
    state::{Affinity, At, DEVICES, Flows, Fragments, Lent, State, Turns, Unproven, interest_bit, mtu},
};

/// What a packet got, its verdict aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome<F: Net> {
    /// Its bytes afterwards.
    pub packet: Vec<u8>,
    /// How far each counter moved; none that did not.
    pub counters: BTreeMap<u32, u64>,
    /// Traffic accounted to services.
    pub traffic: BTreeMap<u32, Traffic>,
    /// The flow table afterwards.
    pub flows: Flows<F>,
    /// The table of unproven flows afterwards.
    pub unproven: Unproven<F>,
    /// The ports lent afterwards.
    pub snat: Lent<F>,
    /// The counts of turns afterwards; none that is 0.
    pub turns: Turns,
    /// The table of packets in fragments afterwards.
    pub fragments: Fragments<F>,
    /// The table of affinity afterwards.
    pub affinity: Affinity<F>,
}

/// Runs the decision core on one packet.
pub fn run<F: Net>(state: &State<F>, at: At, packet: &[u8]) -> (Verdict, Outcome<F>) {
    run_on(
        state,
        at,
        Bytes {
            bytes: packet.to_vec(),
            readable: packet.len(),
            ifindex: at.ifindex,
            tagged: at.tagged,
            segment: at.segment,
        },
    )
}

/// The same on a packet of which only the link header can be read until more is asked for.
pub fn run_in_pieces<F: Net>(state: &State<F>, at: At, packet: &[u8]) -> (Verdict, Outcome<F>) {
    let readable = packet.len().min(size_of::<Ethernet>());
    run_on(
        state,
        at,
        Bytes {
            bytes: packet.to_vec(),
            readable,
            ifindex: at.ifindex,
            tagged: at.tagged,
            segment: at.segment,
        },
    )
}

/// What a packet leaves of which nobody has taken notice.
pub fn untouched<F: Net>(state: &State<F>, packet: &[u8]) -> Outcome<F> {
    let arena = Bump::new();
    Host::new(&arena, state, Settings::DEFAULT).outcome(packet.to_vec())
}

fn run_on<F: Net>(state: &State<F>, at: At, mut packet: Bytes) -> (Verdict, Outcome<F>) {
    let arena = Bump::new();
    let tables = Host::new(&arena, state, at.settings);
    let verdict = decide(&tables, at.hook, &mut packet);
    (verdict, tables.outcome(packet.bytes))
}

/// The decision core on packets that come one after the other, over tables that they change.
pub struct Running<'a, F: Net>(Host<'a, F>);

impl<'a, F: Net> Running<'a, F> {
    /// Over tables that begin so, in programs with these settings. Their rows live in `arena`.
    pub fn new(arena: &'a Bump, state: &'a State<F>, settings: Settings) -> Self {
        Running(Host::new(arena, state, settings))
    }

    /// Runs it on the next packet: what it gets, and its bytes afterwards.
    pub fn run(&mut self, hook: Hook, ifindex: u32, packet: &[u8]) -> (Verdict, Vec<u8>) {
        self.0.note = OnceCell::new();
        let mut packet =
            Bytes { bytes: packet.to_vec(), readable: packet.len(), ifindex, tagged: false, segment: 0 };
        let verdict = decide(&self.0, hook, &mut packet);
        (verdict, packet.bytes)
    }

    /// What all packets have left, themselves aside.
    pub fn outcome(self) -> Outcome<F> {
        self.0.outcome(Vec::new())
    }
}

fn decide<F: Net>(tables: &Host<'_, F>, hook: Hook, packet: &mut Bytes) -> Verdict {
    match packet.load::<u16>(12) {
        Some(ethertype) if ethertype == F::ETHERTYPE && hook == Hook::UplinkXdp => {
            path::decide_in_place::<F, _, _>(packet, tables)
        }
        Some(ethertype) if ethertype == F::ETHERTYPE => path::decide::<F, _, _>(packet, tables, hook),
        Some(ethernet::ARP) if hook.is_asked() => path::answer_arp(packet, tables, hook).verdict(),
        _ => Verdict::Pass,
    }
}

/// A packet on a device.
struct Bytes {
    bytes: Vec<u8>,
    readable: usize,
    ifindex: u32,
    tagged: bool,
    segment: u32,
}

impl InPlace for Bytes {
    fn at<T: Pod>(&mut self, offset: usize) -> Option<&mut T> {
        bytemuck::try_from_bytes_mut(self.bytes.get_mut(offset..offset + size_of::<T>())?).ok()
    }
}

impl Packet for Bytes {
    fn size(&self) -> u32 {
        self.bytes.len() as u32
    }

    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    fn tagged(&self) -> bool {
        self.tagged
    }

    fn pull(&mut self, len: u32) {
        if len as usize <= self.bytes.len() {
            self.readable = self.readable.max(len as usize);
        }
    }

    fn load<T: Pod>(&self, offset: usize) -> Option<T> {
        Some(bytemuck::pod_read_unaligned(self.bytes[..self.readable].get(offset..offset + size_of::<T>())?))
    }

    fn store<T: Pod>(&mut self, offset: usize, value: &T) -> bool {
        let Some(place) = self.bytes.get_mut(offset..offset + size_of::<T>()) else { return false };
        place.copy_from_slice(bytemuck::bytes_of(value));
        self.readable = self.readable.max(offset + size_of::<T>());
        true
    }

    fn resize(&mut self, len: u32) -> bool {
        self.bytes.resize(len as usize, 0);
        self.readable = self.bytes.len();
        true
    }

    fn make_room(&mut self, len: u32) -> bool {
        let network = size_of::<Ethernet>();
        self.bytes.splice(network..network, std::iter::repeat_n(0, len as usize));
        self.readable += len as usize;
        true
    }

    fn fits(&self, ifindex: u32) -> bool {
        self.bytes.len() <= mtu(ifindex) as usize + size_of::<Ethernet>()
    }

    fn mtu(&self, ifindex: u32) -> u32 {
        if DEVICES.contains(&ifindex) { mtu(ifindex) } else { 0 }
    }

    fn segment(&self) -> u32 {
        self.segment
    }

    fn wrap<F: Family>(&mut self, outer: &F::Header) -> bool {
        self.make_room(size_of::<F::Header>() as u32) && self.store(size_of::<Ethernet>(), outer)
    }

    fn unwrap<F: Family>(&mut self) -> bool {
        let network = size_of::<Ethernet>();
        let end = network + size_of::<F::Header>();
        if self.bytes.len() < end {
            return false;
        }
        self.bytes.drain(network..end);
        self.readable = self.readable.saturating_sub(end - network).max(network);
        true
    }

    fn replace<T: Pod>(&mut self, offset: usize, value: &T) -> bool {
        self.store(offset, value)
    }

    /// No device has a part in it.
    fn unfinished(&mut self, _offset: usize) -> bool {
        false
    }

    /// Nobody knows the sum of a packet in a vector.
    fn update_sum(&mut self, _difference: u32) {}

    /// As the kernel's `bpf_l4_csum_replace` with a difference, on a packet whose checksum is complete
    /// in its bytes: `csum_fold(csum_add(diff, ~csum_unfold(*sum)))`, and `BPF_F_MARK_MANGLED_0` for UDP.
    fn update_checksum(&mut self, offset: usize, difference: u32, kind: SumKind) -> bool {
        self.pull((offset + size_of::<u16>()) as u32);
        let Some(check) = self.load::<u16>(offset) else { return false };
        let udp = kind.protocol == Protocol::Udp;
        if udp && check == 0 {
            return true;
        }
        let (sum, carry) = difference.overflowing_add(!(check as u32));
        let check = !fold16(sum + carry as u32);
        self.store(offset, &if udp && check == 0 { 0xffff } else { check })
    }
}

/// The tables of a run. Rows stay in the arena, so that a row that was replaced or removed stays where it
/// is while the path holds it, as in the kernel.
struct Host<'a, F: Net> {
    arena: &'a Bump,
    state: &'a State<F>,
    settings: Settings,
    free: BackendRow<F>,
    note: OnceCell<Note<F>>,
    flows: RefCell<HashMap<FlowKey<F>, &'a Cell<FlowRow<F>>>>,
    unproven: RefCell<HashMap<FlowKey<F>, Unproved<'a, F>>>,
    snat: RefCell<HashMap<FlowKey<F>, &'a Cell<SnatRow<F>>>>,
    turns: RefCell<Turns>,
    fragments: RefCell<HashMap<FragmentKey<F>, &'a Cell<FragmentRow>>>,
    affinity: RefCell<Affinity<F>>,
    counters: RefCell<BTreeMap<u32, u64>>,
    traffic: RefCell<BTreeMap<u32, Traffic>>,
}

/// An unproven flow's row and the proof that its client has to give.
type Unproved<'a, F> = (&'a Cell<FlowRow<F>>, &'a Cell<u32>);

fn keep<T>(arena: &Bump, row: T) -> &Cell<T> {
    arena.alloc(Cell::new(row))
}

impl<'a, F: Net> Host<'a, F> {
    fn new(arena: &'a Bump, state: &'a State<F>, settings: Settings) -> Self {
        let flows = state.flows.iter().map(|(key, row)| (*key, keep(arena, *row))).collect();
        let unproven = state.unproven.iter();
        let unproven =
            unproven.map(|(key, row)| (*key, (keep(arena, row.row), keep(arena, row.proof)))).collect();
        let unproven = RefCell::new(unproven);
        Host {
            arena,
            state,
            settings,
            free: BackendRow::default(),
            note: OnceCell::new(),
            flows: RefCell::new(flows),
            unproven,
            snat: RefCell::new(state.snat.iter().map(|(key, row)| (*key, keep(arena, *row))).collect()),
            turns: RefCell::new(state.turns.clone()),
            fragments: RefCell::new(
                state.fragments.iter().map(|(key, row)| (*key, keep(arena, *row))).collect(),
            ),
            affinity: RefCell::new(state.affinity.clone()),
            counters: Default::default(),
            traffic: Default::default(),
        }
    }

    fn outcome(self, packet: Vec<u8>) -> Outcome<F> {
        Outcome {
            packet,
            counters: self.counters.into_inner(),
            traffic: self.traffic.into_inner(),
            flows: self.flows.into_inner().into_iter().map(|(key, row)| (key, row.get())).collect(),
            unproven: self
                .unproven
                .into_inner()
                .into_iter()
                .map(|(key, (row, proof))| (key, UnprovenRow { row: row.get(), proof: proof.get() }))
                .collect(),
            snat: self.snat.into_inner().into_iter().map(|(key, row)| (key, row.get())).collect(),
            turns: self.turns.into_inner(),
            fragments: self.fragments.into_inner().into_iter().map(|(key, row)| (key, row.get())).collect(),
            affinity: self.affinity.into_inner(),
        }
    }
}

impl<F: Net> Common for Host<'_, F> {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn now(&self) -> u32 {
        0
    }

    fn random(&self) -> u32 {
        0x9d2c_5680
    }

    fn interesting(&self, hash: u32) -> bool {
        self.state.interest.contains(&interest_bit(hash))
    }

    // An array has every row up to its size: the rows that nobody wrote are zero.
    fn service(&self, id: u32) -> Option<ServiceRow> {
        (id < ROWS).then(|| self.state.services.get(&id).copied().unwrap_or_default())
    }

    fn set(&self, index: u32) -> Option<SetRow> {
        (index < ROWS).then(|| self.state.sets.get(&index).copied().unwrap_or_default())
    }

    fn slot(&self, index: u32) -> Option<SlotRow> {
        (index < ROWS).then(|| self.state.slots.get(&index).copied().unwrap_or_default())
    }

    fn reach(&self, index: u32) -> Option<ReachRow> {
        (index < ROWS).then(|| self.state.reach.get(&index).copied().unwrap_or_default())
    }

    fn answer(&self, key: &AnswerKey) -> Option<Mac> {
        self.state.answers.get(key).map(|row| row.mac)
    }

    fn home(&self, key: &AnswerKey) -> Option<HomeRow> {
        self.state.homes.get(key).copied()
    }

    fn count(&self, counter: Counter) {
        *self.counters.borrow_mut().entry(counter as u32).or_default() += 1;
    }

    fn account(&self, service: u32, bytes: u32) {
        if service < ROWS {
            let mut traffic = self.traffic.borrow_mut();
            let traffic = traffic.entry(service).or_default();
            traffic.packets += 1;
            traffic.bytes += bytes as u64;
        }
    }
}

impl<F: Net> Tables<F> for Host<'_, F> {
    fn note(&self, parsed: &Parsed<F>, proven: bool) {
        let mut note = Note::default();
        note.begin(parsed, proven);
        let _ = self.note.set(note);
    }

    fn noted(&self) -> Option<&Note<F>> {
        self.note.get()
    }

    fn flow(&self, table: Table, key: &FlowKey<F>) -> Option<&Cell<FlowRow<F>>> {
        match table {
            Table::Proven => self.flows.borrow().get(key).copied(),
            Table::Unproven => self.unproven.borrow().get(key).map(|(row, _)| *row),
        }
    }

    fn proof(&self, key: &FlowKey<F>) -> Option<&Cell<u32>> {
        self.unproven.borrow().get(key).map(|(_, proof)| *proof)
    }

    fn insert_flow(
        &self,
        table: Table,
        key: FlowKey<F>,
        row: FlowRow<F>,
        how: Insert,
    ) -> Result<(), InsertError> {
        if how == Insert::New && self.flow(table, &key).is_some() {
            return Err(InsertError::Exists);
        }
        let row = keep(self.arena, row);
        match table {
            Table::Proven => self.flows.borrow_mut().insert(key, row).is_some(),
            Table::Unproven => self.unproven.borrow_mut().insert(key, (row, keep(self.arena, 0))).is_some(),
        };
        Ok(())
    }

    fn remove_flow(&self, table: Table, key: &FlowKey<F>) {
        match table {
            Table::Proven => self.flows.borrow_mut().remove(key).is_some(),
            Table::Unproven => self.unproven.borrow_mut().remove(key).is_some(),
        };
    }

    fn snat(&self, key: &FlowKey<F>) -> Option<&Cell<SnatRow<F>>> {
        self.snat.borrow().get(key).copied()
    }

    fn insert_snat(&self, key: &FlowKey<F>, row: &SnatRow<F>) -> Result<(), InsertError> {
        if self.snat.borrow().contains_key(key) {
            return Err(InsertError::Exists);
        }
        self.snat.borrow_mut().insert(*key, keep(self.arena, *row));
        Ok(())
    }

    fn turn(&self, count: u32, steps: u32) -> u32 {
        assert!(count < TURNS, "no such count: {count}");
        let mut turns = self.turns.borrow_mut();
        let next = turns.entry(count).or_default();
        let turn = *next;
        *next = turn.wrapping_add(steps);
        turn
    }

    fn remove_snat(&self, key: &FlowKey<F>) {
        self.snat.borrow_mut().remove(key);
    }

    fn claim(&self, row: &Cell<SnatRow<F>>, seen: u32) -> bool {
        let mut now = row.get();
        let claimed = now.row.seen == seen;
        if claimed {
            now.row.seen = self.now();
            row.set(now);
        }
        claimed
    }

    fn fragments(&self, key: &FragmentKey<F>) -> Option<&Cell<FragmentRow>> {
        self.fragments.borrow().get(key).copied()
    }

    fn keep_fragments(&self, key: FragmentKey<F>, row: FragmentRow) {
        self.fragments.borrow_mut().insert(key, keep(self.arena, row));
    }

    fn forget_fragments(&self, key: &FragmentKey<F>) {
        self.fragments.borrow_mut().remove(key);
    }

    fn frontend(&self, key: &FrontendKey<F>) -> Option<FrontendRow> {
        self.state.frontends.get(key).copied()
    }

    fn affinity(&self, key: &AffinityKey<F>) -> Option<AffinityRow> {
        self.affinity.borrow().get(key).copied()
    }

    fn keep_affinity(&self, key: AffinityKey<F>, row: AffinityRow) {
        self.affinity.borrow_mut().insert(key, row);
    }

    fn in_range(&self, set: u32, addr: F::Addr) -> bool {
        let whole = size_of::<F::Addr>() as u32 * 8;
        let bits = |addr: F::Addr| {
            let bytes = bytemuck::bytes_of(&addr).to_vec();
            bytes.into_iter().fold(0u128, |bits, byte| bits << 8 | byte as u128)
        };
        self.state.ranges.iter().any(|(prefix, key)| {
            let differing = bits(key.addr) ^ bits(addr);
            key.set == set && (*prefix == 0 || differing >> (whole - prefix) == 0)
        })
    }

    fn backend(&self, id: u32) -> Option<(BackendWord, &BackendRow<F>)> {
        if id >= ROWS {
            return None;
        }
        let row = self.state.backends.get(&id).unwrap_or(&self.free);
        Some((BackendWord(row.word), row))
    }
}
