//! Maps in memory.

use std::{collections::hash_map::Entry, io};

use ipnet::IpNet;
use lb_common::{
    abi::{BackendRow, FrontendKey, FrontendRow, NextHopRow, RangeKey, SetRow, SlotRow, Word},
    family::{Family, V4, V6},
};
use lb_sim::Maps;

use super::Store;

impl Store for Maps {
    fn prefilter(&mut self, hash: u32) {
        self.shared.prefilter(hash);
    }

    fn next_hop(&mut self, index: u32, row: NextHopRow) {
        self.shared.next_hops.insert(index, row);
    }

    fn backend<F: Family>(&mut self, id: u32, row: BackendRow<F>) {
        F::of(self).backends.insert(id, row);
    }

    fn slots(&mut self, first: u32, rows: &[SlotRow]) {
        self.shared.slots.extend((first..).zip(rows.iter().copied()));
    }

    fn set(&mut self, index: u32, row: SetRow) {
        self.shared.sets.insert(index, row);
    }

    fn service(&mut self, id: u32, word: Word) {
        self.shared.services.insert(id, word);
    }

    fn backend_word<F: Family>(&mut self, id: u32, word: Word) {
        if let Some(row) = F::of(self).backends.get_mut(&id) {
            row.word = word;
        }
    }

    fn insert_frontend<F: Family>(&mut self, key: FrontendKey<F>, row: FrontendRow) -> io::Result<()> {
        match F::of(self).frontends.entry(key) {
            Entry::Occupied(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Entry::Vacant(place) => {
                place.insert(row);
                Ok(())
            }
        }
    }

    fn delete_frontend<F: Family>(&mut self, key: FrontendKey<F>) -> io::Result<()> {
        F::of(self).frontends.remove(&key);
        Ok(())
    }

    fn insert_ranges(&mut self, set: u32, ranges: &[IpNet]) -> io::Result<()> {
        insert_ranges::<V4>(self, set, ranges);
        insert_ranges::<V6>(self, set, ranges);
        Ok(())
    }

    fn delete_ranges(&mut self, set: u32, _: &[IpNet]) -> io::Result<()> {
        self.v4.ranges.retain(|(_, key)| key.set != set);
        self.v6.ranges.retain(|(_, key)| key.set != set);
        Ok(())
    }
}

/// Those of the family.
fn insert_ranges<F: Family>(maps: &mut Maps, set: u32, ranges: &[IpNet]) {
    let rows = ranges.iter().filter_map(|range| {
        let addr = F::from_ip(range.addr())?;
        Some((range.prefix_len().into(), RangeKey { set, addr }))
    });
    F::of(maps).ranges.extend(rows);
}
