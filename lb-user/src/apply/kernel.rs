//! The kernel's maps.

use std::io;

use aya::maps::MapError;
use ipnet::IpNet;
use lb_common::{
    abi::{BackendRow, FrontendKey, FrontendRow, NextHopRow, PREFILTER_BITS, SetRow, SlotRow, Word},
    family::Family,
};

use super::Store;
use crate::maps::Maps;

/// `BPF_NOEXIST` of linux/bpf.h: an existing frontend is never updated.
const NO_EXIST: u64 = 1;

impl Store for Maps {
    fn prefilter(&mut self, hash: u32) {
        let bit = hash & (PREFILTER_BITS - 1);
        let word = self.prefilter.get(bit / 64);
        self.prefilter.set(bit / 64, word | 1 << (bit % 64));
    }

    fn next_hop(&mut self, index: u32, row: NextHopRow) {
        self.next_hops.set(index, row);
    }

    fn backend<F: Family>(&mut self, id: u32, row: BackendRow<F>) {
        let backends = &mut F::of(self).backends;
        backends.set(id, BackendRow { word: Word::default(), ..row });
        backends.publish(id, row.word);
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

    fn backend_word<F: Family>(&mut self, id: u32, word: Word) {
        F::of(self).backends.publish(id, word);
    }

    fn insert_frontend<F: Family>(&mut self, key: FrontendKey<F>, row: FrontendRow) -> io::Result<()> {
        F::of(self).frontends.insert(key, row, NO_EXIST).map_err(io::Error::other)
    }

    fn delete_frontend<F: Family>(&mut self, key: FrontendKey<F>) -> io::Result<()> {
        match F::of(self).frontends.remove(&key) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn insert_ranges(&mut self, set: u32, ranges: &[IpNet]) -> io::Result<()> {
        Maps::insert_ranges(self, set, ranges)
    }

    fn delete_ranges(&mut self, set: u32, ranges: &[IpNet]) -> io::Result<()> {
        Maps::delete_ranges(self, set, ranges)
    }
}
