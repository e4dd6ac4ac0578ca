//! What the maps hold, as data.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
};

use lb_common::{
    abi::{
        AffinityKey, AffinityRow, BackendRow, BackendWord, FlowKey, FlowRow, FragmentKey, FragmentRow,
        FrontendKey, FrontendRow, NeighKey, NextHopRow, PREFILTER_BITS, ProxyNeighRow, RangeKey, Scope,
        ServiceRow, SetRow, SlotRow, SnatRow, SocketKey, SocketRow, SourceGuardRow, UnassuredRow,
    },
    family::{Family, Pair, V4, V6},
};

/// Maps that exist once, as the agent writes them. Rows by index are those of arrays: one that is not here is zero.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    /// Bits of the prefilter.
    pub prefilter: HashSet<u32>,
    /// Services by id.
    pub services: BTreeMap<u32, ServiceRow>,
    /// Sets by index.
    pub sets: BTreeMap<u32, SetRow>,
    /// Slots by index.
    pub slots: BTreeMap<u32, SlotRow>,
    /// Ways to backends by index.
    pub next_hops: BTreeMap<u32, NextHopRow>,
    /// Addresses that bridges and uplinks answer for.
    pub proxy_neigh: HashMap<NeighKey, ProxyNeighRow>,
    /// Zones of the bridges' ports, by interface index.
    pub bridge_ports: HashMap<u32, u32>,
    /// Ports at which neighbours are known.
    pub homes: HashMap<NeighKey, SourceGuardRow>,
}

impl Shared {
    /// Sets the prefilter bit of a hash.
    pub fn prefilter(&mut self, hash: u32) {
        self.prefilter.insert(hash & (PREFILTER_BITS - 1));
    }

    /// The set that a service leads to.
    pub fn set_of(&self, service: u32) -> Option<&SetRow> {
        self.sets.get(&self.services.get(&service)?.low)
    }
}

/// Maps that exist once per family, as the agent writes them.
#[derive(Clone, Debug)]
pub struct Side<F: Family> {
    /// Frontends.
    pub frontends: HashMap<FrontendKey<F>, FrontendRow>,
    /// Backends by id.
    pub backends: BTreeMap<u32, BackendRow<F>>,
    /// Source ranges, with their prefix lengths without the set's bits.
    pub ranges: Vec<(u32, RangeKey<F>)>,
}

impl<F: Family> Default for Side<F> {
    fn default() -> Self {
        Side { frontends: HashMap::new(), backends: BTreeMap::new(), ranges: Vec::new() }
    }
}

impl<F: Family> Side<F> {
    /// Address and port of a backend.
    pub fn socket(&self, backend: u32) -> Option<SocketAddr> {
        let row = self.backends.get(&backend)?;
        Some(SocketAddr::new(F::to_ip(row.addr), u16::from_be(row.port)))
    }

    /// Whether an address is in a set's source ranges.
    pub fn in_range(&self, set: u32, addr: F::Addr) -> bool {
        let whole = size_of::<F::Addr>() as u32 * 8;
        let bits = |addr: F::Addr| {
            bytemuck::bytes_of(&addr).iter().fold(0u128, |bits, byte| bits << 8 | u128::from(*byte))
        };
        self.ranges.iter().any(|(prefix, key)| {
            let differing = bits(key.addr) ^ bits(addr);
            key.set == set && (*prefix == 0 || differing >> (whole - prefix) == 0)
        })
    }
}

/// The maps of an instance, of both families.
#[derive(Clone, Debug, Default)]
pub struct Maps {
    /// Those that exist once.
    pub shared: Shared,
    /// IPv4's.
    pub v4: Side<V4>,
    /// IPv6's.
    pub v6: Side<V6>,
}

impl<'a> Pair for &'a Maps {
    type Of<F: Family> = &'a Side<F>;

    fn v4(self) -> &'a Side<V4> {
        &self.v4
    }

    fn v6(self) -> &'a Side<V6> {
        &self.v6
    }
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

/// The backends in the slots of a scope by id, and in how many slots each is.
pub type Backends = BTreeMap<u32, u32>;

impl Maps {
    /// The backends that clients of a service in a scope are spread over.
    ///
    /// # Errors
    /// What a packet must never find: a row that is not there or another service's.
    pub fn backends<F: Family>(&self, service: u32, scope: Scope) -> Result<Backends, &'static str> {
        let Shared { services, slots, next_hops, .. } = &self.shared;
        let side = F::of(self);
        if !services.contains_key(&service) {
            return Err("a frontend leads to no service");
        }
        let set = self.shared.set_of(service).ok_or("a service leads to no set")?;
        if set.service != service {
            return Err("a service leads to the set of another");
        }
        if set.source_ranges != 0 && !self.has_ranges(set.source_ranges) {
            return Err("a set has source ranges that are not written");
        }
        let (first, len) = set.slots(scope);
        let mut found = Backends::new();
        for index in first..first + len {
            let slot = slots.get(&index).ok_or("a set has slots that are not written")?;
            if slot.service != service {
                return Err("a set has slots of another service");
            }
            let backend = side.backends.get(&slot.backend).ok_or("a slot leads to no backend")?;
            if backend.service != service {
                return Err("a slot leads to a backend of another service");
            }
            let word = BackendWord(backend.word);
            if !word.takes(scope) {
                return Err("a slot leads to a backend that does not take its flows");
            }
            if !next_hops.contains_key(&word.next_hop()) {
                return Err("a backend has no way");
            }
            *found.entry(slot.backend).or_default() += 1;
        }
        Ok(found)
    }

    /// Whether a set has source ranges, of either family.
    pub fn has_ranges(&self, set: u32) -> bool {
        self.v4.ranges.iter().any(|(_, key)| key.set == set)
            || self.v6.ranges.iter().any(|(_, key)| key.set == set)
    }
}

/// What packets have left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned<F: Family> {
    /// The flow table.
    pub flows: HashMap<FlowKey<F>, FlowRow<F>>,
    /// Flows whose clients have not proved themselves.
    pub unassured: HashMap<FlowKey<F>, UnassuredRow<F>>,
    /// Ports of the node's that flows have.
    pub snat: HashMap<FlowKey<F>, SnatRow<F>>,
    /// How far the counts of turns among them are, but for those at 0.
    pub turns: BTreeMap<u32, u32>,
    /// Whose backends clients get again.
    pub affinity: HashMap<AffinityKey<F>, AffinityRow>,
    /// Packets of which only a part has been seen.
    pub fragments: HashMap<FragmentKey<F>, FragmentRow>,
    /// Other ends of sockets.
    pub sockets: HashMap<SocketKey<F>, SocketRow<F>>,
}

impl<F: Family> Default for Learned<F> {
    fn default() -> Self {
        Learned {
            flows: HashMap::new(),
            unassured: HashMap::new(),
            snat: HashMap::new(),
            turns: BTreeMap::new(),
            affinity: HashMap::new(),
            fragments: HashMap::new(),
            sockets: HashMap::new(),
        }
    }
}
