//! Apply: carries steps out, in order, and follows each in the mirror. Decides nothing.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;

use lb_common::{
    abi::{
        BackendRow, FrontendKey, FrontendKind, FrontendRow, INTEREST_BITS, ReachRow, SetRow, SlotRow, Word,
        ZONE_UPLINK,
    },
    family::{Family, V4, V6},
    path::interest_hash,
};

use crate::{
    compile::{Frontend, WantedFrontend},
    maps::{Maps, Side},
    plan::{FoundBackend, Mirror, Step},
};

/// Where rows are written: the maps, or a test's stand-in.
pub trait Rows {
    /// Writes a way.
    fn reach(&mut self, index: u32, row: ReachRow);
    /// Writes a backend, its word last.
    fn backend(&mut self, service: u32, backend: &FoundBackend, zone: u16);
    /// Writes slots.
    fn slots(&mut self, first: u32, rows: &[SlotRow]);
    /// Writes a set.
    fn set(&mut self, index: u32, row: SetRow);
    /// Publishes a service's word.
    fn service(&mut self, id: u32, word: Word);
    /// Publishes a backend's word.
    fn backend_word(&mut self, ipv6: bool, id: u32, word: Word);
    /// Inserts a frontend.
    fn insert_frontend(&mut self, frontend: &WantedFrontend, service: u32) -> io::Result<()>;
    /// Deletes a frontend; one that is not there is as good.
    fn delete_frontend(&mut self, frontend: &Frontend) -> io::Result<()>;
    /// Inserts the row of an address: it is no frontend's, but one of these.
    fn insert_address(&mut self, address: IpAddr, kind: FrontendKind) -> io::Result<()>;
    /// Deletes it; one that is not there is as good.
    fn delete_address(&mut self, address: IpAddr) -> io::Result<()>;
    /// Inserts the source ranges of a set, all or none.
    fn insert_ranges(&mut self, set: u32, ranges: &[IpNet]) -> io::Result<()>;
    /// Deletes them; those that are not there are as good.
    fn delete_ranges(&mut self, set: u32, ranges: &[IpNet]) -> io::Result<()>;
}

/// A step that could not be carried out. What came before it is done, what comes after is not.
#[derive(Debug, thiserror::Error)]
#[error("writing {what}: {source}")]
pub struct StepError {
    /// What was to be written.
    pub what: String,
    /// What the kernel said.
    pub source: io::Error,
}

/// Carries `steps` out. After an error the mirror tells what is there, and the rows of the steps that
/// were not reached are free again: planning anew goes on from there.
pub fn apply(rows: &mut impl Rows, mirror: &mut Mirror, steps: &[Step]) -> Result<(), StepError> {
    for (done, step) in steps.iter().enumerate() {
        if let Err(error) = write(rows, step) {
            mirror.abandon(&steps[done..]);
            return Err(error);
        }
        mirror.note(step);
    }
    Ok(())
}

fn write(rows: &mut impl Rows, step: &Step) -> Result<(), StepError> {
    match step {
        Step::Reach { index, row, .. } => rows.reach(*index, *row),
        Step::Backend { service, backend, zone } => rows.backend(*service, backend, *zone),
        Step::Slots { first, rows: slots } => rows.slots(*first, slots),
        Step::Set { index, row } => rows.set(*index, *row),
        Step::Service { id, word, .. } => rows.service(*id, *word),
        Step::BackendWord { address, id, word } | Step::RetireBackend { address, id, word } => {
            rows.backend_word(address.is_ipv6(), *id, word.0);
        }
        Step::Ranges { set, ranges } => rows
            .insert_ranges(*set, ranges)
            .map_err(|source| StepError { what: format!("{} source ranges", ranges.len()), source })?,
        Step::InsertFrontend { frontend, service } => {
            rows.insert_frontend(frontend, *service).map_err(|source| failed(&frontend.at, source))?;
        }
        Step::DeleteFrontend { frontend, .. } => {
            rows.delete_frontend(&frontend.at).map_err(|source| failed(&frontend.at, source))?;
        }
        Step::InsertAddress { address, kind } => rows
            .insert_address(*address, *kind)
            .map_err(|source| StepError { what: format!("the address {address}"), source })?,
        Step::DeleteAddress { address } => rows
            .delete_address(*address)
            .map_err(|source| StepError { what: format!("the address {address}"), source })?,
        Step::RetireSet { .. } | Step::RetireService { .. } | Step::RetireReach { .. } => {}
    }
    Ok(())
}

fn failed(frontend: &Frontend, source: io::Error) -> StepError {
    let Frontend { address, port, protocol } = frontend;
    StepError { what: format!("the frontend {protocol} {}", SocketAddr::new(*address, *port)), source }
}

/// Waits until every program that could have read what has just been unpublished has ended
/// (membarrier(2): `MEMBARRIER_CMD_GLOBAL` waits for an RCU grace period), then frees it.
pub fn reclaim(rows: &mut impl Rows, mirror: &mut Mirror) -> io::Result<()> {
    if mirror.has_retired() {
        crate::attach::wait_for_readers()?;
        for (set, ranges) in mirror.retired_ranges() {
            rows.delete_ranges(set, ranges)?;
        }
        mirror.reclaim();
    }
    Ok(())
}

/// Sets the bit of interest of a hash.
fn interest(maps: &mut Maps, hash: u32) {
    let bit = hash & (INTEREST_BITS - 1);
    let word = maps.interest.get(bit / 64);
    maps.interest.set(bit / 64, word | 1 << (bit % 64));
}

impl Rows for Maps {
    fn reach(&mut self, index: u32, row: ReachRow) {
        self.reach.set(index, row);
    }

    fn backend(&mut self, service: u32, backend: &FoundBackend, zone: u16) {
        let port = backend.port.to_be();
        let hash = match backend.address {
            IpAddr::V4(address) => {
                let row = BackendRow {
                    word: Word::default(),
                    addr: address.into(),
                    port,
                    zone,
                    service,
                    node: backend.node4(),
                };
                self.v4.backends.set(backend.id, row);
                self.v4.backends.publish(backend.id, backend.word.0);
                interest_hash(row.addr, port)
            }
            IpAddr::V6(address) => {
                let row = BackendRow {
                    word: Word::default(),
                    addr: address.into(),
                    port,
                    zone,
                    service,
                    node: backend.node6(),
                };
                self.v6.backends.set(backend.id, row);
                self.v6.backends.publish(backend.id, backend.word.0);
                interest_hash(row.addr, port)
            }
        };
        interest(self, hash);
    }

    fn slots(&mut self, first: u32, rows: &[SlotRow]) {
        self.slots.fill(first, rows);
    }

    fn set(&mut self, index: u32, row: SetRow) {
        self.sets.set(index, row);
    }

    fn service(&mut self, id: u32, word: Word) {
        self.services.publish(id, word);
    }

    fn backend_word(&mut self, ipv6: bool, id: u32, word: Word) {
        if ipv6 {
            self.v6.backends.publish(id, word);
        } else {
            self.v4.backends.publish(id, word);
        }
    }

    fn insert_frontend(&mut self, frontend: &WantedFrontend, service: u32) -> io::Result<()> {
        let row = FrontendRow { service, kind: frontend.kind as u32 };
        let Frontend { address, port, protocol } = frontend.at;
        let protocol = protocol.number() as u32;
        let hash = match address {
            IpAddr::V4(address) => {
                insert(&mut self.v4, key(address.into(), port, protocol), row)?;
                interest_hash::<<V4 as Family>::Addr>(address.into(), 0)
            }
            IpAddr::V6(address) => {
                insert(&mut self.v6, key(address.into(), port, protocol), row)?;
                interest_hash::<<V6 as Family>::Addr>(address.into(), 0)
            }
        };
        interest(self, hash);
        Ok(())
    }

    fn delete_frontend(&mut self, frontend: &Frontend) -> io::Result<()> {
        let protocol = frontend.protocol.number() as u32;
        match frontend.address {
            IpAddr::V4(address) => delete(&mut self.v4, key(address.into(), frontend.port, protocol)),
            IpAddr::V6(address) => delete(&mut self.v6, key(address.into(), frontend.port, protocol)),
        }
    }

    fn insert_address(&mut self, address: IpAddr, kind: FrontendKind) -> io::Result<()> {
        let row = FrontendRow { service: 0, kind: kind as u32 };
        match address {
            IpAddr::V4(address) => insert(&mut self.v4, key(address.into(), 0, 0), row),
            IpAddr::V6(address) => insert(&mut self.v6, key(address.into(), 0, 0), row),
        }
    }

    fn delete_address(&mut self, address: IpAddr) -> io::Result<()> {
        match address {
            IpAddr::V4(address) => delete(&mut self.v4, key(address.into(), 0, 0)),
            IpAddr::V6(address) => delete(&mut self.v6, key(address.into(), 0, 0)),
        }
    }

    fn insert_ranges(&mut self, set: u32, ranges: &[IpNet]) -> io::Result<()> {
        Maps::insert_ranges(self, set, ranges)
    }

    fn delete_ranges(&mut self, set: u32, ranges: &[IpNet]) -> io::Result<()> {
        Maps::delete_ranges(self, set, ranges)
    }
}

fn key<F: Family>(addr: F::Addr, port: u16, protocol: u32) -> FrontendKey<F> {
    FrontendKey { addr, port: port.to_be(), zone: ZONE_UPLINK, protocol }
}

/// `BPF_NOEXIST` of linux/bpf.h: an existing frontend is never updated.
const NO_EXIST: u64 = 1;

fn insert<F: Family>(side: &mut Side<F>, key: FrontendKey<F>, row: FrontendRow) -> io::Result<()> {
    side.frontends.insert(key, row, NO_EXIST).map_err(io::Error::other)
}

fn delete<F: Family>(side: &mut Side<F>, key: FrontendKey<F>) -> io::Result<()> {
    match side.frontends.remove(&key) {
        Ok(()) | Err(aya::maps::MapError::KeyNotFound) => Ok(()),
        Err(error) => Err(io::Error::other(error)),
    }
}
