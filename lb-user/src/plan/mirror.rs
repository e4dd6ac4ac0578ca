//! What the maps hold, as this process knows it: kept in step with every write, or read back from the
//! maps when an agent takes over.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hasher as _,
    net::IpAddr,
};

use lb_common::abi::{BackendState, BackendWord, ReachRow, SlotRow};

use super::{Ids, Step};
use crate::compile::Frontend;

/// A service row and what hangs on it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Index of its published set.
    pub set: Option<u32>,
    /// First slot of the set.
    pub first: u32,
    /// Its number of slots.
    pub len: u32,
    /// Generation of the service's word.
    pub generation: u32,
    /// Its family.
    pub ipv6: bool,
    /// Of the slots' content.
    pub digest: u64,
    /// Frontends that lead to it.
    pub frontends: Vec<Frontend>,
    /// Ids of its backends, removed ones that still have a row among them.
    pub backends: Vec<u32>,
}

/// Numbers of rows in use, of IPv4 and IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Service rows.
    pub services: u32,
    /// Frontends.
    pub frontends: [u32; 2],
    /// Backends, removed ones too.
    pub backends: [u32; 2],
    /// Slots.
    pub slots: u32,
}

/// A backend's row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FoundBackend {
    /// Its row.
    pub id: u32,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its state, way and generation.
    pub word: BackendWord,
}

/// The rows in use, and the free ones.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// The free rows.
    pub ids: Ids,
    frontends: HashMap<Frontend, u32>,
    services: HashMap<u32, Found>,
    backends: [HashMap<u32, Owned>; 2],
    reach: HashMap<IpAddr, Way>,
    /// Backends that were removed, longest ago first; some of them serve again by now.
    removed: [VecDeque<u32>; 2],
    retired: Vec<Retired>,
}

/// A backend and the service it is or was of.
#[derive(Clone, Debug)]
struct Owned {
    backend: FoundBackend,
    service: Option<u32>,
}

/// The way to an address and who is there.
#[derive(Clone, Debug)]
struct Way {
    index: u32,
    row: ReachRow,
    backends: Vec<u32>,
}

/// A row that nothing points at any more, but that a packet may still read.
#[derive(Clone, Debug, PartialEq)]
enum Retired {
    Service(u32),
    Set { index: u32, first: u32, len: u32 },
    Reach(u32),
    Backend { ipv6: bool, id: u32 },
}

/// A digest of a set's slots.
pub fn digest(rows: &[SlotRow]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(bytemuck::cast_slice(rows));
    hasher.finish()
}

impl Mirror {
    /// Of maps that hold nothing.
    pub fn new(ids: Ids) -> Mirror {
        Mirror {
            ids,
            frontends: HashMap::new(),
            services: HashMap::new(),
            reach: HashMap::new(),
            backends: Default::default(),
            removed: Default::default(),
            retired: Vec::new(),
        }
    }

    /// The service a frontend leads to.
    pub fn service_of(&self, frontend: &Frontend) -> Option<u32> {
        self.frontends.get(frontend).copied()
    }

    /// A service row in use.
    pub fn found(&self, service: u32) -> Option<&Found> {
        self.services.get(&service)
    }

    /// Every service row in use.
    pub fn services(&self) -> impl Iterator<Item = (u32, &Found)> {
        self.services.iter().map(|(id, found)| (*id, found))
    }

    /// How many rows are in use.
    pub fn used(&self) -> Used {
        let family =
            |ipv6: bool| self.frontends.keys().filter(|key| key.address.is_ipv6() == ipv6).count() as u32;
        Used {
            services: self.services.len() as u32,
            frontends: [family(false), family(true)],
            backends: [self.backends[0].len() as u32, self.backends[1].len() as u32],
            slots: self.services.values().map(|found| found.len).sum(),
        }
    }

    /// Every address that has a way.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.reach.keys().copied().collect()
    }

    /// The backends of a service, removed ones that still have a row among them.
    pub fn backends_of(&self, service: u32) -> Vec<FoundBackend> {
        let Some(found) = self.services.get(&service) else { return Vec::new() };
        let backends = &self.backends[found.ipv6 as usize];
        found.backends.iter().filter_map(|id| backends.get(id)).map(|owned| owned.backend).collect()
    }

    /// The row of the way to an address.
    pub fn way_to(&self, address: IpAddr) -> Option<(u32, ReachRow)> {
        self.reach.get(&address).map(|way| (way.index, way.row))
    }

    /// The backends at an address, of whichever service.
    pub(super) fn backends_at(&self, address: IpAddr) -> Vec<FoundBackend> {
        let backends = &self.backends[address.is_ipv6() as usize];
        let ids = self.reach.get(&address).into_iter().flat_map(|way| &way.backends);
        ids.filter_map(|id| backends.get(id)).map(|owned| owned.backend).collect()
    }

    /// Services that no frontend leads to: what a failed write left.
    pub(super) fn unreached(&self) -> Vec<u32> {
        self.services.iter().filter(|(_, found)| found.frontends.is_empty()).map(|(id, _)| *id).collect()
    }

    /// Ways to addresses at which no backend is left.
    pub(super) fn unused_ways(&self) -> impl Iterator<Item = (IpAddr, u32)> {
        let unused = self.reach.iter().filter(|(_, way)| way.backends.is_empty());
        unused.map(|(address, way)| (*address, way.index))
    }

    /// The backend that has been removed for the longest time.
    pub(super) fn oldest_removed(&mut self, ipv6: bool) -> Option<FoundBackend> {
        while let Some(id) = self.removed[ipv6 as usize].pop_front() {
            if let Some(owned) = self.backends[ipv6 as usize].get(&id)
                && owned.backend.word.state() == BackendState::Removed
            {
                return Some(owned.backend);
            }
        }
        None
    }

    pub(super) fn service_ids(&self) -> Vec<u32> {
        self.services.keys().copied().collect()
    }

    pub(super) fn adopt_service(&mut self, id: u32, change: impl FnOnce(&mut Found)) {
        change(self.services.entry(id).or_default());
    }

    pub(super) fn adopt_frontend(&mut self, frontend: Frontend, service: u32) {
        self.note(&Step::InsertFrontend { frontend, service });
    }

    pub(super) fn adopt_way(&mut self, address: IpAddr, index: u32, row: ReachRow) {
        self.reach.entry(address).or_insert(Way { index, row, backends: Vec::new() });
    }

    /// Follows a step that has been carried out.
    pub fn note(&mut self, step: &Step) {
        match *step {
            Step::Reach { index, address, row } => {
                let way = self.reach.entry(address).or_insert(Way { index, row, backends: Vec::new() });
                (way.index, way.row) = (index, row);
            }
            Step::Backend { service, backend, .. } => self.note_backend(Some(service), backend),
            Step::Slots { .. } | Step::Set { .. } => {}
            Step::Service { id, word, first, len, digest } => {
                let found = self.services.entry(id).or_default();
                (found.set, found.generation) = (Some(word.low), word.generation);
                (found.first, found.len, found.digest) = (first, len, digest);
            }
            Step::BackendWord { address, id, word } => self.note_word(address, id, word),
            Step::InsertFrontend { frontend, service } => {
                self.frontends.insert(frontend, service);
                let found = self.services.entry(service).or_default();
                found.ipv6 = frontend.address.is_ipv6();
                found.frontends.push(frontend);
                self.ids.count_frontend(frontend.address.is_ipv6(), true);
            }
            Step::DeleteFrontend { frontend, service } => {
                self.frontends.remove(&frontend);
                if let Some(found) = self.services.get_mut(&service) {
                    found.frontends.retain(|known| *known != frontend);
                }
                self.ids.count_frontend(frontend.address.is_ipv6(), false);
            }
            Step::RetireSet { index, first, len } => self.retired.push(Retired::Set { index, first, len }),
            Step::RetireService { id } => {
                let backends = self.services.remove(&id).unwrap_or_default().backends;
                for family in &mut self.backends {
                    for backend in &backends {
                        if let Some(owned) = family.get_mut(backend).filter(|owned| owned.service == Some(id))
                        {
                            owned.service = None;
                        }
                    }
                }
                self.retired.push(Retired::Service(id));
            }
            Step::RetireReach { index, address } => {
                if self.reach.get(&address).is_some_and(|way| way.index == index) {
                    self.reach.remove(&address);
                }
                self.retired.push(Retired::Reach(index));
            }
            Step::RetireBackend { address, id, .. } => {
                let ipv6 = address.is_ipv6();
                let owned = self.backends[ipv6 as usize].remove(&id);
                let service = owned.and_then(|owned| owned.service);
                if let Some(found) = service.and_then(|service| self.services.get_mut(&service)) {
                    found.backends.retain(|known| *known != id);
                }
                if let Some(way) = self.reach.get_mut(&address) {
                    way.backends.retain(|known| *known != id);
                }
                self.retired.push(Retired::Backend { ipv6, id });
            }
        }
    }

    pub(super) fn note_backend(&mut self, service: Option<u32>, backend: FoundBackend) {
        let ipv6 = backend.address.is_ipv6() as usize;
        if let Some(service) = service {
            let found = self.services.entry(service).or_default();
            found.ipv6 = backend.address.is_ipv6();
            found.backends.push(backend.id);
        }
        if let Some(way) = self.reach.get_mut(&backend.address) {
            way.backends.push(backend.id);
        }
        if backend.word.state() == BackendState::Removed {
            self.removed[ipv6].push_back(backend.id);
        }
        self.backends[ipv6].insert(backend.id, Owned { backend, service });
    }

    fn note_word(&mut self, address: IpAddr, id: u32, word: BackendWord) {
        let ipv6 = address.is_ipv6() as usize;
        let Some(owned) = self.backends[ipv6].get_mut(&id) else { return };
        let before = std::mem::replace(&mut owned.backend.word, word);
        if word.state() == BackendState::Removed && before.state() != BackendState::Removed {
            self.removed[ipv6].push_back(id);
        }
    }

    /// Gives back the rows of steps that were planned and not carried out.
    pub fn abandon(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Reach { index, .. } => self.ids.free_reach(*index),
                Step::Backend { backend, .. } => {
                    self.ids.free_backend(backend.address.is_ipv6(), backend.id);
                }
                Step::Slots { first, rows } => self.ids.free_slots(*first, rows.len() as u32),
                Step::Set { index, .. } => self.ids.free_set(*index),
                _ => {}
            }
        }
    }

    /// Whether rows wait for readers.
    pub fn has_retired(&self) -> bool {
        !self.retired.is_empty()
    }

    /// Frees what has been retired, after every reader has gone.
    pub fn reclaim(&mut self) {
        for retired in std::mem::take(&mut self.retired) {
            match retired {
                Retired::Service(id) => self.ids.free_service(id),
                Retired::Set { index, first, len } => {
                    self.ids.free_set(index);
                    self.ids.free_slots(first, len);
                }
                Retired::Reach(index) => self.ids.free_reach(index),
                Retired::Backend { ipv6, id } => self.ids.free_backend(ipv6, id),
            }
        }
    }
}
