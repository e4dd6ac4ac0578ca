//! The maps as programs see them while packets come.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
};

use bumpalo::Bump;
use lb_common::{
    abi::{
        AffinityKey, AffinityRow, BackendRow, BackendWord, Counter, FlowKey, FlowRow, FragmentKey,
        FragmentRow, FrontendKey, FrontendRow, Mac, NeighKey, NextHopRow, PREFILTER_BITS, ServiceRow, SetRow,
        Settings, SlotRow, SnatRow, SocketKey, SocketRow, SourceGuardRow, Traffic, UnassuredRow,
    },
    family::Family,
    path::{self, Common, Insert, InsertError, PORT_CURSOR_COUNT, PacketState, Parsed, Sockets, Table},
};

use crate::{Learned, Outcome, Shared, Side};

/// Tables in programs with the same settings. Rows that packets write live in an arena, so that a row that was
/// replaced or removed stays where it is while the path holds it, as in the kernel.
pub struct Tables<'a, F: Family> {
    arena: &'a Bump,
    shared: &'a Shared,
    side: &'a Side<F>,
    settings: Settings,
    /// Rows of each array.
    rows: u32,
    zero: BackendRow<F>,
    /// The same question gets the same answer.
    random: u32,
    sockets_full: bool,
    state: Cell<Option<&'a PacketState<F>>>,
    flows: RefCell<HashMap<FlowKey<F>, &'a Cell<FlowRow<F>>>>,
    unassured: RefCell<HashMap<FlowKey<F>, Unassured<'a, F>>>,
    snat: RefCell<HashMap<FlowKey<F>, &'a Cell<SnatRow<F>>>>,
    turns: RefCell<BTreeMap<u32, u32>>,
    fragments: RefCell<HashMap<FragmentKey<F>, &'a Cell<FragmentRow>>>,
    affinity: RefCell<HashMap<AffinityKey<F>, AffinityRow>>,
    sockets: RefCell<HashMap<SocketKey<F>, SocketRow<F>>>,
    counted: RefCell<Vec<Counter>>,
    traffic: RefCell<BTreeMap<u32, Traffic>>,
}

/// An unassured flow's row and the proof that its client has to give.
type Unassured<'a, F> = (&'a Cell<FlowRow<F>>, &'a Cell<u32>);

fn keep<T>(arena: &Bump, row: T) -> &Cell<T> {
    arena.alloc(Cell::new(row))
}

/// The rows of a table, in the arena.
fn kept<'a, K: Copy + Eq + std::hash::Hash, V: Copy>(
    arena: &'a Bump,
    rows: &HashMap<K, V>,
) -> RefCell<HashMap<K, &'a Cell<V>>> {
    RefCell::new(rows.iter().map(|(key, row)| (*key, keep(arena, *row))).collect())
}

fn copied<K: Eq + std::hash::Hash, V: Copy>(rows: RefCell<HashMap<K, &Cell<V>>>) -> HashMap<K, V> {
    rows.into_inner().into_iter().map(|(key, row)| (key, row.get())).collect()
}

impl<'a, F: Family> Tables<'a, F> {
    /// Over these maps, of whose arrays each has so many `rows`, and what is known so far.
    pub fn new(
        arena: &'a Bump,
        (shared, side, rows): (&'a Shared, &'a Side<F>, u32),
        learned: &Learned<F>,
        settings: Settings,
    ) -> Self {
        let unassured = learned.unassured.iter();
        let unassured = unassured.map(|(key, row)| (*key, (keep(arena, row.row), keep(arena, row.proof))));
        Tables {
            arena,
            shared,
            side,
            settings,
            rows,
            zero: BackendRow::default(),
            random: 0x9d2c_5680,
            sockets_full: false,
            state: Cell::new(None),
            flows: kept(arena, &learned.flows),
            unassured: RefCell::new(unassured.collect()),
            snat: kept(arena, &learned.snat),
            turns: RefCell::new(learned.turns.clone()),
            fragments: kept(arena, &learned.fragments),
            affinity: RefCell::new(learned.affinity.clone()),
            sockets: RefCell::new(learned.sockets.clone()),
            counted: RefCell::default(),
            traffic: RefCell::default(),
        }
    }

    /// With another random number.
    pub fn with_random(self, random: u32) -> Self {
        Tables { random, ..self }
    }

    /// No other sockets are remembered.
    pub fn without_room_for_sockets(self) -> Self {
        Tables { sockets_full: true, ..self }
    }

    /// Another packet comes.
    pub fn next(&self) {
        self.state.set(None);
    }

    /// What was counted, in order.
    pub fn counted(&self) -> Vec<Counter> {
        self.counted.borrow().clone()
    }

    /// What all packets have left; the last one is `packet` now.
    pub fn outcome(self, packet: Vec<u8>) -> Outcome<F> {
        let mut counters = BTreeMap::new();
        for counter in self.counted.into_inner() {
            *counters.entry(counter as u32).or_default() += 1;
        }
        let unassured = self.unassured.into_inner().into_iter();
        let unassured = unassured.map(|(key, (row, proof))| {
            let (row, proof) = (row.get(), proof.get());
            (key, UnassuredRow { row, proof })
        });
        Outcome {
            packet,
            counters,
            traffic: self.traffic.into_inner(),
            learned: Learned {
                flows: copied(self.flows),
                unassured: unassured.collect(),
                snat: copied(self.snat),
                turns: self.turns.into_inner(),
                affinity: self.affinity.into_inner(),
                fragments: copied(self.fragments),
                sockets: self.sockets.into_inner(),
            },
        }
    }

    /// A row of an array: one that nobody wrote is zero.
    fn row<T: Copy + Default>(&self, rows: &BTreeMap<u32, T>, index: u32) -> Option<T> {
        (index < self.rows).then(|| rows.get(&index).copied().unwrap_or_default())
    }
}

impl<F: Family> Common for Tables<'_, F> {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn now(&self) -> u32 {
        0
    }

    fn random(&self) -> u32 {
        self.random
    }

    fn prefilter(&self, hash: u32) -> bool {
        self.shared.prefilter.contains(&(hash & (PREFILTER_BITS - 1)))
    }

    fn service(&self, id: u32) -> Option<ServiceRow> {
        self.row(&self.shared.services, id)
    }

    fn set(&self, index: u32) -> Option<SetRow> {
        self.row(&self.shared.sets, index)
    }

    fn slot(&self, index: u32) -> Option<SlotRow> {
        self.row(&self.shared.slots, index)
    }

    fn next_hop(&self, index: u32) -> Option<NextHopRow> {
        self.row(&self.shared.next_hops, index)
    }

    fn proxy_neigh(&self, key: &NeighKey) -> Option<Mac> {
        self.shared.proxy_neigh.get(key).map(|row| row.mac)
    }

    fn source_guard(&self, key: &NeighKey) -> Option<SourceGuardRow> {
        self.shared.homes.get(key).copied()
    }

    fn bridge_port(&self, ifindex: u32) -> Option<u16> {
        self.shared.bridge_ports.get(&ifindex).map(|zone| *zone as u16)
    }

    fn count(&self, counter: Counter) {
        self.counted.borrow_mut().push(counter);
    }

    fn account(&self, service: u32, bytes: u32) {
        if service < self.rows {
            let mut traffic = self.traffic.borrow_mut();
            let traffic = traffic.entry(service).or_default();
            traffic.packets += 1;
            traffic.bytes += u64::from(bytes);
        }
    }
}

impl<F: Family> path::Tables<F> for Tables<'_, F> {
    fn begin(&self, parsed: &Parsed<F>, assured: bool) {
        if self.state.get().is_none() {
            let state = self.arena.alloc(PacketState::default());
            state.begin(parsed, assured);
            self.state.set(Some(state));
        }
    }

    fn set_zone(&self, zone: u16, assured: bool) {
        let Some(known) = self.state.get() else { return };
        let mut parsed = known.parsed;
        parsed.key.zone = zone;
        let state = self.arena.alloc(PacketState::default());
        state.begin(&parsed, assured);
        self.state.set(Some(state));
    }

    fn state(&self) -> Option<&PacketState<F>> {
        self.state.get()
    }

    fn flow(&self, table: Table, key: &FlowKey<F>) -> Option<&Cell<FlowRow<F>>> {
        match table {
            Table::Assured => self.flows.borrow().get(key).copied(),
            Table::Unassured => self.unassured.borrow().get(key).map(|(row, _)| *row),
        }
    }

    fn proof(&self, key: &FlowKey<F>) -> Option<&Cell<u32>> {
        self.unassured.borrow().get(key).map(|(_, proof)| *proof)
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
            Table::Assured => self.flows.borrow_mut().insert(key, row).is_some(),
            Table::Unassured => self.unassured.borrow_mut().insert(key, (row, keep(self.arena, 0))).is_some(),
        };
        Ok(())
    }

    fn remove_flow(&self, table: Table, key: &FlowKey<F>) {
        match table {
            Table::Assured => self.flows.borrow_mut().remove(key).is_some(),
            Table::Unassured => self.unassured.borrow_mut().remove(key).is_some(),
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

    fn advance_cursor(&self, count: u32, steps: u32) -> u32 {
        assert!(count < PORT_CURSOR_COUNT, "no such count: {count}");
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
        self.side.frontends.get(key).copied()
    }

    fn affinity(&self, key: &AffinityKey<F>) -> Option<AffinityRow> {
        self.affinity.borrow().get(key).copied()
    }

    fn keep_affinity(&self, key: AffinityKey<F>, row: AffinityRow) {
        self.affinity.borrow_mut().insert(key, row);
    }

    fn in_range(&self, set: u32, addr: F::Addr) -> bool {
        self.side.in_range(set, addr)
    }

    fn backend(&self, id: u32) -> Option<(BackendWord, &BackendRow<F>)> {
        let row = (id < self.rows).then(|| self.side.backends.get(&id).unwrap_or(&self.zero))?;
        Some((BackendWord(row.word), row))
    }
}

impl<F: Family> Sockets<F> for Tables<'_, F> {
    fn socket(&self, key: &SocketKey<F>) -> Option<SocketRow<F>> {
        self.sockets.borrow().get(key).copied()
    }

    fn keep_socket(&self, key: SocketKey<F>, row: SocketRow<F>) -> bool {
        let room = !self.sockets_full;
        if room {
            self.sockets.borrow_mut().insert(key, row);
        }
        room
    }
}
