//! Source ranges in their tries.

use std::{collections::HashMap, io, net::IpAddr};

use aya::maps::{MapError, lpm_trie::Key};
use ipnet::IpNet;
use lb_common::{abi::RangeKey, family::Family};

use super::{Maps, Side};

/// Bits of a key that tell which set a range is of.
const SET_BITS: u32 = u32::BITS;

impl Maps {
    /// Every source range, by set, in order.
    pub fn source_ranges(&self) -> HashMap<u32, Vec<IpNet>> {
        let mut sets = HashMap::new();
        of_family(&self.v4, &mut sets);
        of_family(&self.v6, &mut sets);
        for ranges in sets.values_mut() {
            ranges.sort();
        }
        sets
    }

    /// Adds the ranges of a new set, all or none.
    pub fn insert_ranges(&mut self, set: u32, ranges: &[IpNet]) -> io::Result<()> {
        for (done, range) in ranges.iter().enumerate() {
            let inserted = match range.addr() {
                IpAddr::V4(addr) => insert(&mut self.v4, set, addr.into(), range.prefix_len()),
                IpAddr::V6(addr) => insert(&mut self.v6, set, addr.into(), range.prefix_len()),
            };
            if let Err(error) = inserted {
                self.delete_ranges(set, &ranges[..done])?;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Deletes the ranges of a set; what is not there is as good.
    pub fn delete_ranges(&mut self, set: u32, ranges: &[IpNet]) -> io::Result<()> {
        for range in ranges {
            match range.addr() {
                IpAddr::V4(addr) => delete(&mut self.v4, set, addr.into(), range.prefix_len())?,
                IpAddr::V6(addr) => delete(&mut self.v6, set, addr.into(), range.prefix_len())?,
            }
        }
        Ok(())
    }
}

fn of_family<F: Family>(side: &Side<F>, sets: &mut HashMap<u32, Vec<IpNet>>) {
    for key in side.ranges.keys().flatten() {
        let RangeKey { set, addr }: RangeKey<F> = key.data();
        let prefix = key.prefix_len().saturating_sub(SET_BITS) as u8;
        if let Ok(range) = IpNet::new(F::to_ip(addr), prefix) {
            sets.entry(set).or_default().push(range);
        }
    }
}

fn insert<F: Family>(side: &mut Side<F>, set: u32, addr: F::Addr, prefix: u8) -> io::Result<()> {
    let key = Key::new(SET_BITS + prefix as u32, RangeKey { set, addr });
    side.ranges.insert(&key, 1, 0).map_err(io::Error::other)
}

fn delete<F: Family>(side: &mut Side<F>, set: u32, addr: F::Addr, prefix: u8) -> io::Result<()> {
    match side.ranges.remove(&Key::new(SET_BITS + prefix as u32, RangeKey { set, addr })) {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(error) => Err(io::Error::other(error)),
    }
}
