//! Maps in memory: filled by `apply` like the kernel's, read by the decision core like the kernel's.
//!
//! They hold what a config asks for and nothing that packets leave behind: whoever asks is a client that
//! nobody has seen, and what its packet leaves is gone with the try.

use std::{
    cell::{Cell, OnceCell},
    collections::{HashMap, HashSet},
    io,
    net::IpAddr,
};

use ipnet::IpNet;
use lb_common::{
    abi::{
        AffinityKey, AffinityRow, AnswerKey, BackendRow, BackendWord, Counter, FlowKey, FlowRow, FragmentKey,
        FragmentRow, FrontendKey, FrontendKind, FrontendRow, HomeRow, INTEREST_BITS, Mac, ReachRow,
        ServiceRow, SetRow, Settings, SlotRow, SnatRow, SocketKey, SocketRow, Word, ZONE_UPLINK,
    },
    family::{Family, V4, V6},
    path::{Common, Insert, InsertError, Note, Parsed, Sockets, Table, Tables, interest_hash},
};

use crate::{
    apply::Rows,
    compile::{Frontend, WantedFrontend},
    observe::Addresses,
    plan::FoundBackend,
};

/// See the module.
#[derive(Default)]
pub struct Memory {
    interest: HashSet<u32>,
    services: HashMap<u32, ServiceRow>,
    sets: HashMap<u32, SetRow>,
    slots: Vec<SlotRow>,
    reach: HashMap<u32, ReachRow>,
    ranges: HashMap<u32, Vec<IpNet>>,
    v4: Side<V4>,
    v6: Side<V6>,
}

/// The maps of one family.
#[derive(Default)]
pub struct Side<F: Family> {
    frontends: HashMap<FrontendKey<F>, FrontendRow>,
    backends: HashMap<u32, BackendRow<F>>,
}

/// A family and its maps.
pub trait Sided: Addresses {
    /// An address of it.
    fn addr(address: IpAddr) -> Option<Self::Addr>;
    /// Its maps.
    fn side(memory: &Memory) -> &Side<Self>;
    /// Its maps, to be filled.
    fn side_mut(memory: &mut Memory) -> &mut Side<Self>;
}

impl Sided for V4 {
    fn addr(address: IpAddr) -> Option<Self::Addr> {
        match address {
            IpAddr::V4(address) => Some(address.into()),
            IpAddr::V6(_) => None,
        }
    }
    fn side(memory: &Memory) -> &Side<Self> {
        &memory.v4
    }
    fn side_mut(memory: &mut Memory) -> &mut Side<Self> {
        &mut memory.v4
    }
}

impl Sided for V6 {
    fn addr(address: IpAddr) -> Option<Self::Addr> {
        match address {
            IpAddr::V6(address) => Some(address.into()),
            IpAddr::V4(_) => None,
        }
    }
    fn side(memory: &Memory) -> &Side<Self> {
        &memory.v6
    }
    fn side_mut(memory: &mut Memory) -> &mut Side<Self> {
        &mut memory.v6
    }
}

impl Memory {
    /// The set that a service row points at.
    pub fn set_of(&self, service: u32) -> Option<SetRow> {
        self.sets.get(&self.services.get(&service)?.low).copied()
    }

    /// The slots from `first` on.
    pub fn slots(&self, first: u32, len: u32) -> &[SlotRow] {
        let first = first as usize;
        self.slots.get(first..first + len as usize).unwrap_or_default()
    }

    /// Address and port of a backend.
    pub fn backend<F: Sided>(&self, id: u32) -> Option<(IpAddr, u16)> {
        F::side(self).backends.get(&id).map(|row| (F::ip(row.addr), u16::from_be(row.port)))
    }

    fn interest(&mut self, hash: u32) {
        self.interest.insert(hash & (INTEREST_BITS - 1));
    }

    fn put_backend<F: Sided>(&mut self, id: u32, row: BackendRow<F>) {
        self.interest(interest_hash(row.addr, row.port));
        F::side_mut(self).backends.insert(id, row);
    }

    fn put_frontend<F: Sided>(&mut self, key: FrontendKey<F>, row: FrontendRow) {
        self.interest(interest_hash(key.addr, 0));
        F::side_mut(self).frontends.insert(key, row);
    }
}

fn key<F: Family>(addr: F::Addr, port: u16, protocol: u32) -> FrontendKey<F> {
    FrontendKey { addr, port: port.to_be(), zone: ZONE_UPLINK, protocol }
}

impl Rows for Memory {
    fn reach(&mut self, index: u32, row: ReachRow) {
        self.reach.insert(index, row);
    }

    fn backend(&mut self, service: u32, backend: &FoundBackend, zone: u16) {
        let FoundBackend { id, address, port, word, .. } = *backend;
        let (word, port) = (word.0, port.to_be());
        match address {
            IpAddr::V4(addr) => {
                self.put_backend::<V4>(
                    id,
                    BackendRow { word, addr: addr.into(), port, zone, service, node: backend.node4() },
                );
            }
            IpAddr::V6(addr) => {
                self.put_backend::<V6>(
                    id,
                    BackendRow { word, addr: addr.into(), port, zone, service, node: backend.node6() },
                );
            }
        }
    }

    fn slots(&mut self, first: u32, rows: &[SlotRow]) {
        let first = first as usize;
        let end = first + rows.len();
        if self.slots.len() < end {
            self.slots.resize(end, SlotRow::default());
        }
        self.slots[first..end].copy_from_slice(rows);
    }

    fn set(&mut self, index: u32, row: SetRow) {
        self.sets.insert(index, row);
    }

    fn service(&mut self, id: u32, word: Word) {
        self.services.insert(id, word);
    }

    fn backend_word(&mut self, ipv6: bool, id: u32, word: Word) {
        let row = if ipv6 {
            self.v6.backends.get_mut(&id).map(|row| &mut row.word)
        } else {
            self.v4.backends.get_mut(&id).map(|row| &mut row.word)
        };
        if let Some(row) = row {
            *row = word;
        }
    }

    fn insert_frontend(&mut self, frontend: &WantedFrontend, service: u32) -> io::Result<()> {
        let row = FrontendRow { service, kind: frontend.kind as u32 };
        let Frontend { address, port, protocol } = frontend.at;
        let protocol = protocol.number().into();
        match address {
            IpAddr::V4(address) => self.put_frontend::<V4>(key(address.into(), port, protocol), row),
            IpAddr::V6(address) => self.put_frontend::<V6>(key(address.into(), port, protocol), row),
        }
        Ok(())
    }

    fn delete_frontend(&mut self, frontend: &Frontend) -> io::Result<()> {
        let Frontend { address, port, protocol } = *frontend;
        let protocol = protocol.number().into();
        match address {
            IpAddr::V4(address) => self.v4.frontends.remove(&key(address.into(), port, protocol)),
            IpAddr::V6(address) => self.v6.frontends.remove(&key(address.into(), port, protocol)),
        };
        Ok(())
    }

    fn insert_address(&mut self, address: IpAddr, kind: FrontendKind) -> io::Result<()> {
        let row = FrontendRow { service: 0, kind: kind as u32 };
        match address {
            IpAddr::V4(address) => self.put_frontend::<V4>(key(address.into(), 0, 0), row),
            IpAddr::V6(address) => self.put_frontend::<V6>(key(address.into(), 0, 0), row),
        }
        Ok(())
    }

    fn delete_address(&mut self, address: IpAddr) -> io::Result<()> {
        match address {
            IpAddr::V4(address) => self.v4.frontends.remove(&key(address.into(), 0, 0)),
            IpAddr::V6(address) => self.v6.frontends.remove(&key(address.into(), 0, 0)),
        };
        Ok(())
    }

    fn insert_ranges(&mut self, set: u32, ranges: &[IpNet]) -> io::Result<()> {
        self.ranges.insert(set, ranges.to_vec());
        Ok(())
    }

    fn delete_ranges(&mut self, set: u32, _ranges: &[IpNet]) -> io::Result<()> {
        self.ranges.remove(&set);
        Ok(())
    }
}

/// A row of the flow table with its key.
type Recorded<F> = (FlowKey<F>, Cell<FlowRow<F>>);

/// The maps as a program of one hook sees them while one packet is tried.
pub struct Tried<'a, F: Family> {
    memory: &'a Memory,
    settings: Settings,
    stop: Cell<Option<Counter>>,
    note: OnceCell<Note<F>>,
    /// Both rows of the packet's flow, once it is recorded.
    flows: [OnceCell<Recorded<F>>; 2],
}

impl<'a, F: Family> Tried<'a, F> {
    /// With what would be fixed at load.
    pub fn new(memory: &'a Memory, settings: Settings) -> Self {
        Tried { memory, settings, stop: Cell::new(None), note: OnceCell::new(), flows: Default::default() }
    }

    /// The outcome that was counted last: why the packet ended where it did.
    pub fn outcome(&self) -> Option<Counter> {
        self.stop.get()
    }
}

impl<F: Sided> Tried<'_, F> {
    /// Address and port of the backend that was noted for the packet.
    pub fn backend_noted(&self) -> Option<(IpAddr, u16)> {
        self.memory.backend::<F>(self.note.get()?.backend.get().low)
    }
}

impl<F: Family> Common for Tried<'_, F> {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn now(&self) -> u32 {
        0
    }

    /// An example is as good as any other, and the same question gets the same answer.
    fn random(&self) -> u32 {
        0
    }

    /// Nobody is asked for addresses here.
    fn answer(&self, _: &AnswerKey) -> Option<Mac> {
        None
    }

    /// Whoever is asked about calls in their own name.
    fn home(&self, _: &AnswerKey) -> Option<HomeRow> {
        None
    }

    fn interesting(&self, hash: u32) -> bool {
        self.memory.interest.contains(&(hash & (INTEREST_BITS - 1)))
    }

    fn service(&self, id: u32) -> Option<ServiceRow> {
        self.memory.services.get(&id).copied()
    }

    fn set(&self, index: u32) -> Option<SetRow> {
        self.memory.sets.get(&index).copied()
    }

    fn slot(&self, index: u32) -> Option<SlotRow> {
        self.memory.slots.get(index as usize).copied()
    }

    fn reach(&self, index: u32) -> Option<ReachRow> {
        self.memory.reach.get(&index).copied()
    }

    fn count(&self, counter: Counter) {
        self.stop.set(Some(counter));
    }

    fn account(&self, _service: u32, _bytes: u32) {}
}

impl<F: Sided> Tables<F> for Tried<'_, F> {
    fn note(&self, parsed: &Parsed<F>, proven: bool) {
        let mut note = Note::default();
        note.begin(parsed, proven);
        let _ = self.note.set(note);
    }

    fn noted(&self) -> Option<&Note<F>> {
        self.note.get()
    }

    /// Both tables are one here: the only flow is the packet's.
    fn flow(&self, _: Table, key: &FlowKey<F>) -> Option<&Cell<FlowRow<F>>> {
        let mut rows = self.flows.iter().filter_map(OnceCell::get);
        rows.find(|(known, _)| known == key).map(|(_, row)| row)
    }

    /// It is the client's first packet, which proves nothing.
    fn proof(&self, _: &FlowKey<F>) -> Option<&Cell<u32>> {
        None
    }

    fn insert_flow(
        &self,
        table: Table,
        key: FlowKey<F>,
        row: FlowRow<F>,
        how: Insert,
    ) -> Result<(), InsertError> {
        match (self.flow(table, &key), how) {
            (Some(_), Insert::New) => return Err(InsertError::Exists),
            (Some(known), Insert::Replace) => {
                known.set(row);
                return Ok(());
            }
            (None, _) => {}
        }
        let free = self.flows.iter().find(|place| place.get().is_none()).ok_or(InsertError::Full)?;
        free.set((key, Cell::new(row))).map_err(|_| InsertError::Full)
    }

    /// Only a stale row, or half a flow, is ever forgotten, and there is none.
    fn remove_flow(&self, _: Table, _key: &FlowKey<F>) {}

    /// Every port is free.
    fn snat(&self, _: &FlowKey<F>) -> Option<&Cell<SnatRow<F>>> {
        None
    }

    fn insert_snat(&self, _: &FlowKey<F>, _: &SnatRow<F>) -> Result<(), InsertError> {
        Ok(())
    }

    fn turn(&self, _: u32, _: u32) -> u32 {
        0
    }

    fn remove_snat(&self, _: &FlowKey<F>) {}

    fn claim(&self, _: &Cell<SnatRow<F>>, _: u32) -> bool {
        false
    }

    /// The packet is a whole one.
    fn fragments(&self, _key: &FragmentKey<F>) -> Option<&Cell<FragmentRow>> {
        None
    }

    fn keep_fragments(&self, _key: FragmentKey<F>, _row: FragmentRow) {}

    fn forget_fragments(&self, _key: &FragmentKey<F>) {}

    fn frontend(&self, key: &FrontendKey<F>) -> Option<FrontendRow> {
        F::side(self.memory).frontends.get(key).copied()
    }

    fn affinity(&self, _key: &AffinityKey<F>) -> Option<AffinityRow> {
        None
    }

    fn keep_affinity(&self, _key: AffinityKey<F>, _row: AffinityRow) {}

    fn in_range(&self, set: u32, addr: F::Addr) -> bool {
        let addr = F::ip(addr);
        self.memory.ranges.get(&set).is_some_and(|ranges| ranges.iter().any(|range| range.contains(&addr)))
    }

    fn backend(&self, id: u32) -> Option<(BackendWord, &BackendRow<F>)> {
        F::side(self.memory).backends.get(&id).map(|row| (BackendWord(row.word), row))
    }
}

impl<F: Sided> Sockets<F> for Tried<'_, F> {
    fn socket(&self, _key: &SocketKey<F>) -> Option<SocketRow<F>> {
        None
    }

    fn keep_socket(&self, _key: SocketKey<F>, _row: SocketRow<F>) -> bool {
        true
    }
}
