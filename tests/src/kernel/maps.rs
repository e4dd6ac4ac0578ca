//! The maps of a loaded object, filled from a case and read back.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{Array, HashMap as HashTable, LpmTrie, Map, MapData, PerCpuArray, PerCpuValues, lpm_trie::Key},
    programs::{ProgramFd, SchedClassifier, Xdp},
};
use lb_common::{
    abi::{
        Counter, FlowKey, FlowRow, PREFILTER_BITS, RangeKey, Traffic, UnassuredRow,
        maps::{self, of_family},
    },
    path::{Hook, PORT_CURSOR_COUNT},
};

use lb_sim::{Learned, Outcome};

use super::ROWS;
use crate::{family::Net, state::State};

/// An object's programs and maps, and what its arrays hold.
pub struct Maps {
    ebpf: Ebpf,
    written: HashMap<String, BTreeMap<u32, Vec<u8>>>,
}

impl Maps {
    pub fn new(ebpf: Ebpf) -> Self {
        Maps { ebpf, written: HashMap::new() }
    }

    /// The program of a hook, loaded.
    pub fn program(&mut self, hook: Hook) -> Result<&ProgramFd> {
        let program = self.ebpf.program_mut(hook.program()).context("no such program")?;
        if hook == Hook::UplinkXdp {
            let program: &mut Xdp = program.try_into()?;
            if program.fd().is_err() {
                program.load()?;
            }
            return Ok(program.fd()?);
        }
        let program: &mut SchedClassifier = program.try_into()?;
        if program.fd().is_err() {
            program.load()?;
        }
        Ok(program.fd()?)
    }

    /// Makes the maps hold what the case says and nothing else.
    pub fn fill<F: Net>(&mut self, state: &State<F>) -> Result<()> {
        let mut words = BTreeMap::<u32, u64>::new();
        for bit in &state.shared.prefilter {
            debug_assert!(*bit < PREFILTER_BITS);
            *words.entry(bit / 64).or_default() |= 1 << (bit % 64);
        }
        self.array(maps::PREFILTER.name, &words)?;
        self.array(maps::SERVICES.name, &state.shared.services)?;
        self.array(maps::SETS.name, &state.shared.sets)?;
        self.array(maps::SLOTS.name, &state.shared.slots)?;
        self.array(maps::NEXT_HOPS.name, &state.shared.next_hops)?;
        self.array(of_family::<F>().backends.name, &state.side.backends)?;
        self.hash(of_family::<F>().frontends.name, &state.side.frontends)?;
        self.hash(of_family::<F>().flows.name, &state.learned.flows)?;
        self.hash(of_family::<F>().unassured.name, &state.learned.unassured)?;
        self.hash(of_family::<F>().snat.name, &state.learned.snat)?;
        self.turns(&state.learned.turns)?;
        self.hash(of_family::<F>().affinity.name, &state.learned.affinity)?;
        self.hash(of_family::<F>().fragments.name, &state.learned.fragments)?;
        self.hash(maps::PROXY_NEIGH.name, &state.shared.proxy_neigh)?;
        self.hash(maps::SOURCE_GUARD.name, &state.shared.homes)?;
        self.hash(maps::BRIDGE_PORTS.name, &state.shared.bridge_ports)?;
        self.ranges(state)
    }

    /// What a run has left, the packet aside.
    pub fn seen<F: Net>(&mut self) -> Result<Outcome<F>> {
        let learned = Learned {
            flows: self.left(of_family::<F>().flows.name)?,
            unassured: self.left(of_family::<F>().unassured.name)?,
            snat: self.left(of_family::<F>().snat.name)?,
            turns: self.turns_left()?,
            fragments: self.left(of_family::<F>().fragments.name)?,
            affinity: self.left(of_family::<F>().affinity.name)?,
            sockets: HashMap::new(),
        };
        let traffic = self.moved(maps::TRAFFIC.name, ROWS, |sum: Traffic, more| Traffic {
            packets: sum.packets + more.packets,
            bytes: sum.bytes + more.bytes,
        })?;
        Ok(Outcome { packet: Vec::new(), counters: self.counters()?, traffic, learned })
    }

    /// How far each counter has moved since this was last asked; none that has not.
    pub fn counters(&mut self) -> Result<BTreeMap<u32, u64>> {
        self.moved(maps::COUNTERS.name, Counter::COUNT, |sum: u64, more| sum + more)
    }

    /// The flow table of a family.
    pub fn flows<F: Net>(&mut self) -> Result<HashTable<&mut MapData, FlowKey<F>, FlowRow<F>>> {
        Ok(HashTable::try_from(self.map(of_family::<F>().flows.name)?)?)
    }

    /// The table of unassured flows of a family.
    pub fn unassured<F: Net>(&mut self) -> Result<HashTable<&mut MapData, FlowKey<F>, UnassuredRow<F>>> {
        Ok(HashTable::try_from(self.map(of_family::<F>().unassured.name)?)?)
    }

    /// The rows of a table of hashes.
    fn left<K, V>(&mut self, name: &str) -> Result<HashMap<K, V>>
    where
        K: aya::Pod + Eq + Hash,
        V: aya::Pod,
    {
        let table = HashTable::<_, K, V>::try_from(self.map(name)?)?;
        table.iter().collect::<Result<_, _>>().with_context(|| format!("can't read {name}"))
    }

    fn turns(&mut self, turns: &BTreeMap<u32, u32>) -> Result<()> {
        let mut array = Array::<_, u32>::try_from(self.map(maps::PORT_CURSORS.name)?)?;
        for (count, turn) in turns {
            array.set(*count, turn, 0)?;
        }
        Ok(())
    }

    /// The counts that are not 0, and then are again.
    fn turns_left(&mut self) -> Result<BTreeMap<u32, u32>> {
        let mut array = Array::<_, u32>::try_from(self.map(maps::PORT_CURSORS.name)?)?;
        let mut left = BTreeMap::new();
        for count in 0..PORT_CURSOR_COUNT {
            let turn = array.get(&count, 0)?;
            if turn != 0 {
                left.insert(count, turn);
                array.set(count, 0, 0)?;
            }
        }
        Ok(left)
    }

    fn ranges<F: Net>(&mut self, state: &State<F>) -> Result<()> {
        let mut trie = LpmTrie::<_, RangeKey<F>, u32>::try_from(self.map(of_family::<F>().ranges.name)?)?;
        for key in trie.keys().collect::<Result<Vec<_>, _>>()? {
            trie.remove(&key)?;
        }
        for (prefix, key) in &state.side.ranges {
            trie.insert(&Key::new(u32::BITS + prefix, *key), 1, 0)?;
        }
        Ok(())
    }

    /// What is not zero in a per-CPU array, summed up over the CPUs, and then zero again.
    fn moved<V>(&mut self, name: &str, len: u32, add: impl Fn(V, V) -> V) -> Result<BTreeMap<u32, V>>
    where
        V: aya::Pod + Default + PartialEq,
    {
        let mut array = PerCpuArray::<_, V>::try_from(self.map(name)?)?;
        let mut moved = BTreeMap::new();
        for index in 0..len {
            let values = array.get(&index, 0)?;
            let sum = values.iter().fold(V::default(), |sum, value| add(sum, *value));
            if sum != V::default() {
                moved.insert(index, sum);
                let zeros = vec![V::default(); values.len()];
                array.set(index, PerCpuValues::try_from(zeros)?, 0)?;
            }
        }
        Ok(moved)
    }

    fn map(&mut self, name: &str) -> Result<&mut Map> {
        self.ebpf.map_mut(name).with_context(|| format!("no map {name}"))
    }

    fn array<V>(&mut self, name: &str, rows: &BTreeMap<u32, V>) -> Result<()>
    where
        V: aya::Pod + bytemuck::Pod,
    {
        let rows: BTreeMap<u32, Vec<u8>> =
            rows.iter().map(|(index, row)| (*index, bytemuck::bytes_of(row).to_vec())).collect();
        let before = self.written.insert(name.to_owned(), rows.clone()).unwrap_or_default();
        let mut array = Array::<_, V>::try_from(self.map(name)?)?;
        for index in before.keys().filter(|index| !rows.contains_key(index)) {
            array.set(*index, V::zeroed(), 0)?;
        }
        for (index, row) in rows.iter().filter(|(index, row)| before.get(index) != Some(row)) {
            array
                .set(*index, bytemuck::pod_read_unaligned::<V>(row), 0)
                .with_context(|| format!("row {index} of {name} (arrays have {ROWS})"))?;
        }
        Ok(())
    }

    fn hash<K, V>(&mut self, name: &str, rows: &HashMap<K, V>) -> Result<()>
    where
        K: aya::Pod + Eq + Hash,
        V: aya::Pod,
    {
        let mut table = HashTable::<_, K, V>::try_from(self.map(name)?)?;
        let before = table.keys().collect::<Result<Vec<K>, _>>()?;
        for key in before {
            table.remove(&key)?;
        }
        for (key, row) in rows {
            table.insert(key, row, 0)?;
        }
        Ok(())
    }
}
