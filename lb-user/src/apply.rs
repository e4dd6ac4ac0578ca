//! Apply: carries steps out, in order, and follows each in the mirror. Decides nothing.

mod kernel;
mod memory;

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use lb_common::{
    abi::{BackendRow, FrontendKey, FrontendRow, NextHopRow, SetRow, SlotRow, Word, ZONE_UPLINK},
    family::{Family, V4, V6},
    path::prefilter_hash,
};

use crate::{
    compile::Frontend,
    plan::{Mirror, Step},
};

/// Where steps are carried out: maps, or a test that watches them.
pub trait Rows {
    /// Writes what a step says.
    fn write(&mut self, step: &Step) -> io::Result<()>;
    /// Deletes the source ranges of a set; those that are not there are as good.
    fn delete_ranges(&mut self, set: u32, ranges: &[IpNet]) -> io::Result<()>;
}

/// Maps, row by row: the kernel's, or those in memory.
pub trait Store {
    /// Sets the prefilter bit of a hash.
    fn prefilter(&mut self, hash: u32);
    /// Writes a way.
    fn next_hop(&mut self, index: u32, row: NextHopRow);
    /// Writes a backend, its word last.
    fn backend<F: Family>(&mut self, id: u32, row: BackendRow<F>);
    /// Writes slots.
    fn slots(&mut self, first: u32, rows: &[SlotRow]);
    /// Writes a set.
    fn set(&mut self, index: u32, row: SetRow);
    /// Publishes a service's word.
    fn service(&mut self, id: u32, word: Word);
    /// Publishes a backend's word.
    fn backend_word<F: Family>(&mut self, id: u32, word: Word);
    /// Inserts a frontend, where there is none.
    fn insert_frontend<F: Family>(&mut self, key: FrontendKey<F>, row: FrontendRow) -> io::Result<()>;
    /// Deletes a frontend; one that is not there is as good.
    fn delete_frontend<F: Family>(&mut self, key: FrontendKey<F>) -> io::Result<()>;
    /// Inserts the source ranges of a set, all or none.
    fn insert_ranges(&mut self, set: u32, ranges: &[IpNet]) -> io::Result<()>;
    /// Deletes them; those that are not there are as good.
    fn delete_ranges(&mut self, set: u32, ranges: &[IpNet]) -> io::Result<()>;
}

impl<S: Store> Rows for S {
    fn write(&mut self, step: &Step) -> io::Result<()> {
        let ipv6 = match step {
            Step::Backend { backend, .. } => backend.address.is_ipv6(),
            Step::InsertFrontend { frontend, .. } | Step::DeleteFrontend { frontend, .. } => {
                frontend.at.address.is_ipv6()
            }
            Step::BackendWord { address, .. }
            | Step::RetireBackend { address, .. }
            | Step::InsertAddress { address, .. }
            | Step::DeleteAddress { address } => address.is_ipv6(),
            _ => false,
        };
        if ipv6 { write::<V6>(self, step) } else { write::<V4>(self, step) }
    }

    fn delete_ranges(&mut self, set: u32, ranges: &[IpNet]) -> io::Result<()> {
        Store::delete_ranges(self, set, ranges)
    }
}

/// Writes a step whose addresses, if it has any, are of the family.
fn write<F: Family>(store: &mut impl Store, step: &Step) -> io::Result<()> {
    match step {
        Step::NextHop { index, row, .. } => store.next_hop(*index, *row),
        Step::Backend { service, backend } => {
            let row = backend.row::<F>(*service);
            store.backend(backend.id, row);
            store.prefilter(prefilter_hash(row.addr, row.port));
        }
        Step::Slots { first, rows } => store.slots(*first, rows),
        Step::Set { index, row } => store.set(*index, *row),
        Step::Service { id, word, .. } => store.service(*id, *word),
        Step::BackendWord { id, word, .. } | Step::RetireBackend { id, word, .. } => {
            store.backend_word::<F>(*id, word.0);
        }
        Step::Ranges { set, ranges } => store.insert_ranges(*set, ranges)?,
        Step::InsertFrontend { frontend, service } => {
            let key = key::<F>(&frontend.at);
            store.insert_frontend(key, FrontendRow { service: *service, kind: frontend.kind as u32 })?;
            store.prefilter(prefilter_hash(key.addr, 0));
        }
        Step::DeleteFrontend { frontend, .. } => store.delete_frontend(key::<F>(&frontend.at))?,
        Step::InsertAddress { address, kind } => store
            .insert_frontend(address_key::<F>(*address), FrontendRow { service: 0, kind: *kind as u32 })?,
        Step::DeleteAddress { address } => store.delete_frontend(address_key::<F>(*address))?,
        Step::RetireSet { .. } | Step::RetireService { .. } | Step::RetireNextHop { .. } => {}
    }
    Ok(())
}

/// The key of a frontend of the family.
pub fn key<F: Family>(frontend: &Frontend) -> FrontendKey<F> {
    let protocol = frontend.protocol.number().into();
    FrontendKey { port: frontend.port.to_be(), protocol, ..address_key(frontend.address) }
}

/// The key of the row that an address has besides its frontends.
fn address_key<F: Family>(address: IpAddr) -> FrontendKey<F> {
    let addr = F::from_ip(address).unwrap_or_default();
    FrontendKey { addr, port: 0, zone: ZONE_UPLINK, protocol: 0 }
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
        if let Err(source) = rows.write(step) {
            mirror.abandon(&steps[done..]);
            return Err(StepError { what: subject(step), source });
        }
        mirror.note(step);
    }
    Ok(())
}

/// What a step that can fail is about.
fn subject(step: &Step) -> String {
    match step {
        Step::Ranges { ranges, .. } => format!("{} source ranges", ranges.len()),
        Step::InsertFrontend { frontend, .. } | Step::DeleteFrontend { frontend, .. } => {
            let Frontend { address, port, protocol } = frontend.at;
            format!("the frontend {protocol} {}", SocketAddr::new(address, port))
        }
        Step::InsertAddress { address, .. } | Step::DeleteAddress { address } => {
            format!("the address {address}")
        }
        _ => "a row of an array".to_owned(),
    }
}

/// Waits until every program that could have read what has just been unpublished has ended
/// (membarrier(2): `MEMBARRIER_CMD_GLOBAL` waits for an RCU grace period), then frees it.
pub fn reclaim(rows: &mut impl Rows, mirror: &mut Mirror) -> io::Result<()> {
    if mirror.has_retired() {
        lb_sys::wait_for_readers()?;
        for (set, ranges) in mirror.retired_ranges() {
            rows.delete_ranges(set, ranges)?;
        }
        mirror.reclaim();
    }
    Ok(())
}
