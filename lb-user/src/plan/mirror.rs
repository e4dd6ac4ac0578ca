//! What the maps hold, as this process knows it: kept in step with every write, or read back from the
//! maps when an agent takes over.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{Hash as _, Hasher as _},
    net::IpAddr,
};

use ipnet::IpNet;
use lb_common::{
    abi::{BackendRow, BackendWord, FrontendKind, NextHopRow, SetRow, SlotRow},
    family::Family,
};

use super::{Ids, Step};
use crate::{
    compile::{Frontend, WantedFrontend},
    model::OnRemoval,
};

/// A service row and what hangs on it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Its published set.
    pub published: Option<Published>,
    /// Generation of the service's word.
    pub generation: u32,
    /// Its family.
    pub ipv6: bool,
    /// Frontends that lead to it.
    pub frontends: Vec<WantedFrontend>,
    /// Ids of its backends, removed ones that still have a row among them.
    pub backends: Vec<u32>,
}

/// A set and the rows that are its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    /// Its row.
    pub set: u32,
    /// First slot.
    pub first: u32,
    /// Number of slots, of both scopes.
    pub len: u32,
    /// Of everything that a change of would be a change of the set ([`digest`]).
    pub digest: u64,
    /// Its source ranges.
    pub ranges: Vec<IpNet>,
    /// What becomes of TCP flows of its service's backends once those are removed.
    pub on_removal: OnRemoval,
}

/// Numbers of rows in use, of IPv4 and IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Service rows.
    pub services: u32,
    /// Backends, removed ones too.
    pub backends: [u32; 2],
    /// Sets.
    pub sets: u32,
    /// Slots.
    pub slots: u32,
    /// Ways, of both families.
    pub next_hops: u32,
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
    /// DSR: the address of its node, which its way leads to.
    pub node: Option<IpAddr>,
    /// The zone that its replies come from.
    pub zone: u16,
}

impl FoundBackend {
    /// The address that its way leads to.
    pub fn via(&self) -> IpAddr {
        self.node.unwrap_or(self.address)
    }

    /// As a row of its family.
    pub fn row<F: Family>(&self, service: u32) -> BackendRow<F> {
        BackendRow {
            word: self.word.0,
            addr: F::from_ip(self.address).unwrap_or_default(),
            port: self.port.to_be(),
            zone: self.zone,
            service,
            node: self.node.and_then(F::from_ip).unwrap_or_default(),
        }
    }
}

/// The rows in use, and the free ones.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// The free rows.
    pub ids: Ids,
    frontends: HashMap<Frontend, u32>,
    addresses: HashMap<IpAddr, FrontendAddress>,
    /// Addresses whose frontends have changed since the last look.
    touched: HashSet<IpAddr>,
    services: HashMap<u32, Found>,
    backends: [HashMap<u32, Owned>; 2],
    next_hops: HashMap<IpAddr, NextHop>,
    /// Backends that were removed, longest ago first; some of them serve again by now.
    removed: [VecDeque<u32>; 2],
    retired: Vec<Retired>,
}

/// An address that frontends have, or had.
#[derive(Clone, Copy, Debug, Default)]
struct FrontendAddress {
    /// How many.
    frontends: u32,
    /// Its row is there, as this.
    row: Option<FrontendKind>,
}

/// A backend and the service it is or was of.
#[derive(Clone, Debug)]
struct Owned {
    backend: FoundBackend,
    service: Option<u32>,
}

/// The way to an address and who is there.
#[derive(Clone, Debug)]
struct NextHop {
    index: u32,
    row: NextHopRow,
    backends: Vec<u32>,
}

/// A row that nothing points at any more, but that a packet may still read.
#[derive(Clone, Debug, PartialEq)]
enum Retired {
    Service(u32),
    Set(Published),
    /// Of a set that was gone when we came.
    Ranges {
        set: u32,
        ranges: Vec<IpNet>,
    },
    NextHop(u32),
    Backend {
        ipv6: bool,
        id: u32,
    },
}

/// A digest of a set: its slots, what its row says besides where they are, its source ranges.
pub fn digest(slots: &[SlotRow], row: &SetRow, ranges: &[IpNet]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(bytemuck::cast_slice(slots));
    [row.len, row.local_len, row.flags, row.affinity].hash(&mut hasher);
    ranges.hash(&mut hasher);
    hasher.finish()
}

impl Mirror {
    /// Of maps that hold nothing.
    pub fn new(ids: Ids) -> Mirror {
        Mirror {
            ids,
            frontends: HashMap::new(),
            addresses: HashMap::new(),
            touched: HashSet::new(),
            services: HashMap::new(),
            next_hops: HashMap::new(),
            backends: Default::default(),
            removed: Default::default(),
            retired: Vec::new(),
        }
    }

    /// The service a frontend leads to.
    pub fn service_of(&self, frontend: &Frontend) -> Option<u32> {
        self.frontends.get(frontend).copied()
    }

    /// Every address that frontends have.
    pub fn frontend_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let used = self.addresses.iter().filter(|(_, known)| known.frontends > 0);
        used.map(|(address, _)| *address)
    }

    /// Whether a frontend leads to a service, and as what it should.
    pub(super) fn has(&self, frontend: &WantedFrontend, service: u32) -> bool {
        self.services.get(&service).is_some_and(|found| found.frontends.contains(frontend))
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
        let published = || self.services.values().filter_map(|found| found.published.as_ref());
        Used {
            services: self.services.len() as u32,
            backends: [self.backends[0].len() as u32, self.backends[1].len() as u32],
            sets: published().count() as u32,
            slots: published().map(|set| set.len).sum(),
            next_hops: self.next_hops.len() as u32,
        }
    }

    /// Every address that has a way.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.next_hops.keys().copied().collect()
    }

    /// The backends of a service, removed ones that still have a row among them.
    pub fn backends_of(&self, service: u32) -> Vec<FoundBackend> {
        let Some(found) = self.services.get(&service) else { return Vec::new() };
        let backends = &self.backends[found.ipv6 as usize];
        found.backends.iter().filter_map(|id| backends.get(id)).map(|owned| owned.backend).collect()
    }

    /// The row of the way to an address.
    pub fn way_to(&self, address: IpAddr) -> Option<(u32, NextHopRow)> {
        self.next_hops.get(&address).map(|hop| (hop.index, hop.row))
    }

    /// The backends at an address, of whichever service.
    pub fn backends_at(&self, address: IpAddr) -> Vec<FoundBackend> {
        let backends = &self.backends[address.is_ipv6() as usize];
        let ids = self.next_hops.get(&address).into_iter().flat_map(|hop| &hop.backends);
        ids.filter_map(|id| backends.get(id)).map(|owned| owned.backend).collect()
    }

    /// Services that no frontend leads to: what a failed write left.
    pub(super) fn unreached(&self) -> Vec<u32> {
        self.services.iter().filter(|(_, found)| found.frontends.is_empty()).map(|(id, _)| *id).collect()
    }

    /// Ways to addresses at which no backend is left.
    pub(super) fn unused_next_hops(&self) -> impl Iterator<Item = (IpAddr, u32)> {
        let unused = self.next_hops.iter().filter(|(_, hop)| hop.backends.is_empty());
        unused.map(|(address, hop)| (*address, hop.index))
    }

    /// The backend that has been removed for the longest time.
    pub(super) fn oldest_removed(&mut self, ipv6: bool) -> Option<FoundBackend> {
        while let Some(id) = self.removed[ipv6 as usize].pop_front() {
            if let Some(owned) = self.backends[ipv6 as usize].get(&id)
                && owned.backend.word.state().is_removed()
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

    pub(super) fn adopt_frontend(&mut self, frontend: WantedFrontend, service: u32) {
        self.note(&Step::InsertFrontend { frontend, service });
    }

    /// Ranges of a set that nothing points at; its row may be given out once they are deleted.
    pub(super) fn adopt_stale_ranges(&mut self, set: u32, ranges: Vec<IpNet>) {
        self.count_ranges(&ranges, 1);
        self.retired.push(Retired::Ranges { set, ranges });
    }

    /// Notes that there are ranges more (`sign` 1) or less (-1). They are of one family.
    pub(super) fn count_ranges(&mut self, ranges: &[IpNet], sign: i64) {
        let ipv6 = ranges.first().is_some_and(|range| range.addr().is_ipv6());
        self.ids.count_ranges(ipv6, sign * ranges.len() as i64);
    }

    pub(super) fn adopt_address(&mut self, address: IpAddr, kind: FrontendKind) {
        self.touched.insert(address);
        self.note(&Step::InsertAddress { address, kind });
    }

    /// The addresses whose frontends have changed: the row that each should have, and the one that it has.
    /// `others`: of other nodes' node ports, sorted.
    pub(super) fn touched_addresses(
        &mut self,
        own: &[IpAddr],
        others: &[IpAddr],
    ) -> Vec<(IpAddr, Option<FrontendKind>, Option<FrontendKind>)> {
        let touched = std::mem::take(&mut self.touched);
        let state = |address: IpAddr| {
            let known = self.addresses.get(&address).copied().unwrap_or_default();
            let wanted = known.frontends > 0 && !own.contains(&address) && !address.is_loopback();
            let other = others.binary_search(&address).is_ok();
            let kind = if other { FrontendKind::Node } else { FrontendKind::Address };
            (address, wanted.then_some(kind), known.row)
        };
        let mut states: Vec<_> = touched.into_iter().map(state).collect();
        states.sort_by_key(|(address, ..)| *address);
        states
    }

    /// Has another look at addresses that have become the host's own, or are no longer.
    pub fn touch_addresses(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.touched.extend(addresses);
    }

    fn count_address(&mut self, address: IpAddr, change: impl FnOnce(&mut FrontendAddress)) {
        let known = self.addresses.entry(address).or_default();
        change(known);
        if known.frontends == 0 && known.row.is_none() {
            self.addresses.remove(&address);
        }
    }

    pub(super) fn adopt_next_hop(&mut self, address: IpAddr, index: u32, row: NextHopRow) {
        self.next_hops.entry(address).or_insert(NextHop { index, row, backends: Vec::new() });
    }

    /// Follows a step that has been carried out.
    pub fn note(&mut self, step: &Step) {
        match step.clone() {
            Step::NextHop { index, address, row } => {
                let hop =
                    self.next_hops.entry(address).or_insert(NextHop { index, row, backends: Vec::new() });
                (hop.index, hop.row) = (index, row);
            }
            Step::Backend { service, backend, .. } => self.note_backend(Some(service), backend),
            Step::Slots { .. } | Step::Set { .. } => {}
            Step::Ranges { ranges, .. } => self.count_ranges(&ranges, 1),
            Step::Service { id, word, published } => {
                let found = self.services.entry(id).or_default();
                (found.published, found.generation) = (Some(published), word.generation);
            }
            Step::BackendWord { address, id, word } => self.note_word(address, id, word),
            Step::InsertFrontend { frontend, service } => {
                let address = frontend.at.address;
                self.frontends.insert(frontend.at, service);
                let found = self.services.entry(service).or_default();
                found.ipv6 = address.is_ipv6();
                found.frontends.push(frontend);
                self.ids.count_frontend(address.is_ipv6(), true);
                self.touched.insert(address);
                self.count_address(address, |known| known.frontends += 1);
            }
            Step::DeleteFrontend { frontend, service } => {
                let address = frontend.at.address;
                self.frontends.remove(&frontend.at);
                if let Some(found) = self.services.get_mut(&service) {
                    found.frontends.retain(|known| *known != frontend);
                }
                self.ids.count_frontend(address.is_ipv6(), false);
                self.touched.insert(address);
                self.count_address(address, |known| known.frontends = known.frontends.saturating_sub(1));
            }
            Step::InsertAddress { address, kind } => {
                self.ids.count_frontend(address.is_ipv6(), true);
                self.count_address(address, |known| known.row = Some(kind));
            }
            Step::DeleteAddress { address } => {
                self.ids.count_frontend(address.is_ipv6(), false);
                self.count_address(address, |known| known.row = None);
            }
            Step::RetireSet { published } => self.retired.push(Retired::Set(published)),
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
            Step::RetireNextHop { index, address } => {
                if self.next_hops.get(&address).is_some_and(|hop| hop.index == index) {
                    self.next_hops.remove(&address);
                }
                self.retired.push(Retired::NextHop(index));
            }
            Step::RetireBackend { address, id, .. } => {
                let ipv6 = address.is_ipv6();
                let owned = self.backends[ipv6 as usize].remove(&id);
                let via = owned.as_ref().map_or(address, |owned| owned.backend.via());
                let service = owned.and_then(|owned| owned.service);
                if let Some(found) = service.and_then(|service| self.services.get_mut(&service)) {
                    found.backends.retain(|known| *known != id);
                }
                if let Some(hop) = self.next_hops.get_mut(&via) {
                    hop.backends.retain(|known| *known != id);
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
        if let Some(hop) = self.next_hops.get_mut(&backend.via()) {
            hop.backends.push(backend.id);
        }
        if backend.word.state().is_removed() {
            self.removed[ipv6].push_back(backend.id);
        }
        self.backends[ipv6].insert(backend.id, Owned { backend, service });
    }

    fn note_word(&mut self, address: IpAddr, id: u32, word: BackendWord) {
        let ipv6 = address.is_ipv6() as usize;
        let Some(owned) = self.backends[ipv6].get_mut(&id) else { return };
        let before = std::mem::replace(&mut owned.backend.word, word);
        if word.state().is_removed() && !before.state().is_removed() {
            self.removed[ipv6].push_back(id);
        }
    }

    /// Gives back the rows of steps that were planned and not carried out.
    pub fn abandon(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::NextHop { index, .. } => self.ids.free_next_hop(*index),
                Step::Backend { backend, .. } => {
                    self.ids.free_backend(backend.address.is_ipv6(), backend.id);
                }
                Step::Slots { first, rows } => self.ids.free_slots(*first, rows.len() as u32),
                Step::Set { index, .. } => self.ids.free_set(*index),
                Step::InsertAddress { address, .. } | Step::DeleteAddress { address } => {
                    self.touched.insert(*address);
                }
                _ => {}
            }
        }
    }

    /// Whether rows wait for readers.
    pub fn has_retired(&self) -> bool {
        !self.retired.is_empty()
    }

    /// The source ranges of sets that have been retired; of no use once every reader has gone.
    pub fn retired_ranges(&self) -> impl Iterator<Item = (u32, &[IpNet])> {
        self.retired.iter().filter_map(|retired| match retired {
            Retired::Set(set) if !set.ranges.is_empty() => Some((set.set, &set.ranges[..])),
            Retired::Ranges { set, ranges } => Some((*set, &ranges[..])),
            _ => None,
        })
    }

    /// Frees what has been retired, after every reader has gone and retired ranges have been deleted.
    pub fn reclaim(&mut self) {
        for retired in std::mem::take(&mut self.retired) {
            match retired {
                Retired::Service(id) => self.ids.free_service(id),
                Retired::Set(set) => {
                    self.ids.free_set(set.set);
                    self.ids.free_slots(set.first, set.len);
                    self.count_ranges(&set.ranges, -1);
                }
                Retired::Ranges { ranges, .. } => self.count_ranges(&ranges, -1),
                Retired::NextHop(index) => self.ids.free_next_hop(index),
                Retired::Backend { ipv6, id } => self.ids.free_backend(ipv6, id),
            }
        }
    }
}
