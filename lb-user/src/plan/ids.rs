//! Which rows are free. Ids come back oldest first, so that what a packet may still hold is given out
//! as late as can be.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use lb_common::{
    abi::maps::{MapInfo, NEXT_HOPS, SERVICES, SETS, SLOTS, of_family},
    family::{V4, V6},
};

use crate::maps::Sizes;

/// A map that can't take a change. The change is refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the map of {map} is full ({max} rows): {advice}")]
pub struct Full {
    /// What is full.
    pub map: &'static str,
    /// Its rows.
    pub max: u32,
    /// What to do.
    pub advice: &'static str,
}

const ADVICE: &str = "raise --max-services (after `lb uninstall`, which frees the maps)";

/// Free rows of every map that is filled by id.
#[derive(Clone, Debug)]
pub struct Ids {
    services: Pool,
    sets: Pool,
    next_hops: Pool,
    backends: [Backends; 2],
    slots: Ranges,
    frontends: [(u32, u32); 2],
    ranges: [(u32, u32); 2],
}

/// Ids of one map.
#[derive(Clone, Debug)]
struct Pool {
    name: &'static str,
    next: u32,
    max: u32,
    free: VecDeque<u32>,
}

impl Pool {
    fn new(name: &'static str, max: u32) -> Pool {
        // Row 0 is never given out: what is zeroed by mistake leads nowhere.
        Pool { name, next: 1, max, free: VecDeque::new() }
    }

    fn take(&mut self) -> Result<u32, Full> {
        // Fresh rows first: the free ones rest as long as possible.
        if self.next < self.max {
            self.next += 1;
            return Ok(self.next - 1);
        }
        self.free.pop_front().ok_or(Full { map: self.name, max: self.max, advice: ADVICE })
    }

    fn adopt(&mut self, used: impl Fn(u32) -> bool) {
        let last = (1..self.max).rev().find(|id| used(*id));
        self.next = last.map_or(1, |last| last + 1);
        self.free = (1..self.next).filter(|id| !used(*id)).collect();
    }
}

/// Ids of backends: generations grow with each use, and rows of removed backends rest until no other
/// is left.
#[derive(Clone, Debug)]
struct Backends {
    pool: Pool,
    generations: Vec<u32>,
}

/// Ranges of slots, best fit, coalescing.
#[derive(Clone, Debug)]
struct Ranges {
    max: u32,
    by_start: BTreeMap<u32, u32>,
    by_len: BTreeSet<(u32, u32)>,
}

impl Ranges {
    fn new(max: u32) -> Ranges {
        let mut ranges = Ranges { max, by_start: BTreeMap::new(), by_len: BTreeSet::new() };
        ranges.put(1, max - 1);
        ranges
    }

    fn put(&mut self, start: u32, len: u32) {
        if len > 0 {
            self.by_start.insert(start, len);
            self.by_len.insert((len, start));
        }
    }

    fn drop_range(&mut self, start: u32, len: u32) {
        self.by_start.remove(&start);
        self.by_len.remove(&(len, start));
    }

    fn take(&mut self, len: u32) -> Result<u32, Full> {
        if len == 0 {
            return Ok(0);
        }
        let (found, start) = *self.by_len.range((len, 0)..).next().ok_or(Full {
            map: "slots",
            max: self.max,
            advice: ADVICE,
        })?;
        self.drop_range(start, found);
        self.put(start + len, found - len);
        Ok(start)
    }

    fn free(&mut self, mut start: u32, mut len: u32) {
        if len == 0 {
            return;
        }
        if let Some((&before, &before_len)) = self.by_start.range(..start).next_back()
            && before + before_len == start
        {
            self.drop_range(before, before_len);
            (start, len) = (before, len + before_len);
        }
        if let Some(&after_len) = self.by_start.get(&(start + len)) {
            self.drop_range(start + len, after_len);
            len += after_len;
        }
        self.put(start, len);
    }

    fn reserve(&mut self, start: u32, len: u32) {
        let Some((&found, &found_len)) = self.by_start.range(..=start).next_back() else { return };
        if len > 0 && start + len <= found + found_len {
            self.drop_range(found, found_len);
            self.put(found, start - found);
            self.put(start + len, found + found_len - start - len);
        }
    }
}

impl Ids {
    /// Everything free, of sizes as they really are.
    pub fn new(size: impl Fn(&MapInfo) -> u32) -> Ids {
        let backends = |map| Backends { pool: Pool::new("backends", size(map)), generations: Vec::new() };
        let (v4, v6) = (of_family::<V4>(), of_family::<V6>());
        Ids {
            services: Pool::new("services", size(&SERVICES)),
            sets: Pool::new("sets", size(&SETS)),
            next_hops: Pool::new("ways to backends", size(&NEXT_HOPS)),
            backends: [backends(&v4.backends), backends(&v6.backends)],
            slots: Ranges::new(size(&SLOTS)),
            frontends: [(0, size(&v4.frontends)), (0, size(&v6.frontends))],
            ranges: [(0, size(&v4.ranges)), (0, size(&v6.ranges))],
        }
    }

    /// Everything free, of the sizes that maps get.
    pub fn of(sizes: Sizes) -> Ids {
        Ids::new(|map| sizes.rows(map).unwrap_or(0))
    }

    pub(super) fn service(&mut self) -> Result<u32, Full> {
        self.services.take()
    }

    pub(super) fn set(&mut self) -> Result<u32, Full> {
        self.sets.take()
    }

    pub(super) fn next_hop(&mut self) -> Result<u32, Full> {
        self.next_hops.take()
    }

    pub(super) fn slots(&mut self, len: u32) -> Result<u32, Full> {
        self.slots.take(len)
    }

    /// A backend's id and its generation.
    pub(super) fn backend(&mut self, ipv6: bool) -> Result<(u32, u32), Full> {
        let backends = &mut self.backends[ipv6 as usize];
        let id = backends.pool.take()?;
        if backends.generations.len() <= id as usize {
            backends.generations.resize(id as usize + 1, 0);
        }
        let generation = &mut backends.generations[id as usize];
        *generation = generation.wrapping_add(1);
        Ok((id, *generation))
    }

    pub(super) fn admit_frontends(&self, ipv6: bool, more: u32) -> Result<(), Full> {
        let (used, max) = self.frontends[ipv6 as usize];
        if used + more > max { Err(Full { map: "frontends", max, advice: ADVICE }) } else { Ok(()) }
    }

    pub(super) fn admit_ranges(&self, ipv6: bool, more: u32) -> Result<(), Full> {
        let (used, max) = self.ranges[ipv6 as usize];
        if used + more > max { Err(Full { map: "source ranges", max, advice: ADVICE }) } else { Ok(()) }
    }

    pub(super) fn count_ranges(&mut self, ipv6: bool, more: i64) {
        let used = &mut self.ranges[ipv6 as usize].0;
        *used = (*used as i64 + more).max(0) as u32;
    }

    pub(super) fn count_frontend(&mut self, ipv6: bool, inserted: bool) {
        let used = &mut self.frontends[ipv6 as usize].0;
        *used = if inserted { *used + 1 } else { used.saturating_sub(1) };
    }

    pub(super) fn free_service(&mut self, id: u32) {
        self.services.free.push_back(id);
    }

    pub(super) fn free_set(&mut self, index: u32) {
        self.sets.free.push_back(index);
    }

    pub(super) fn free_next_hop(&mut self, index: u32) {
        self.next_hops.free.push_back(index);
    }

    pub(super) fn free_slots(&mut self, first: u32, len: u32) {
        self.slots.free(first, len);
    }

    pub(super) fn free_backend(&mut self, ipv6: bool, id: u32) {
        self.backends[ipv6 as usize].pool.free.push_back(id);
    }

    pub(super) fn adopt_services(&mut self, used: impl Fn(u32) -> bool) {
        self.services.adopt(used);
    }

    pub(super) fn adopt_sets(&mut self, used: impl Fn(u32) -> bool) {
        self.sets.adopt(used);
    }

    pub(super) fn adopt_next_hop(&mut self, used: impl Fn(u32) -> bool) {
        self.next_hops.adopt(used);
    }

    pub(super) fn adopt_slots(&mut self, first: u32, len: u32) {
        self.slots.reserve(first, len);
    }

    pub(super) fn adopt_backends(&mut self, ipv6: bool, generations: Vec<u32>, used: impl Fn(u32) -> bool) {
        let backends = &mut self.backends[ipv6 as usize];
        backends.generations = generations;
        backends.pool.adopt(used);
    }
}
