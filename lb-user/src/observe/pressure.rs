//! How full the maps of an instance are, and what it means.

use anyhow::Result;
use aya::util::nr_cpus;
use lb_common::{
    abi::maps::{self, MapInfo, MapUse, NEXT_HOPS, SERVICES, SETS, SLOTS, of_family},
    family::{V4, V6},
};
use serde::Serialize;

use crate::{
    maps::{Maps, Pins, count},
    plan::Mirror,
};

/// How full a map is.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pressure {
    /// What is in it.
    pub name: String,
    /// Rows in use.
    pub used: u32,
    /// Rows.
    pub max: u32,
    /// One by the other.
    pub pressure: f64,
    /// What it does when it is full.
    pub when_full: WhenFull,
    /// What that means, in words.
    #[serde(skip)]
    meaning: &'static str,
}

/// What a full map does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenFull {
    /// Nothing is added any more.
    Refuses,
    /// The row that was not used for the longest time makes room.
    Evicts,
}
use WhenFull::{Evicts, Refuses};

/// Above this a map that refuses is nearly full.
pub const NEARLY_FULL: f64 = 0.9;

/// A full map of services: what it means.
const NO_MORE_SERVICES: &str = "services that need more will not be taken over; for a larger one: `lb uninstall`, \
     then start with a larger --max-services";

/// Every map of the instance that can be full.
pub fn pressure(pins: &Pins, opened: &Maps, mirror: &Mirror) -> Result<Vec<Pressure>> {
    // Arrays: which of their rows are in use is known from the services.
    let used = mirror.used();
    let arrays = [
        (&SERVICES, used.services),
        (&SETS, used.sets),
        (&SLOTS, used.slots),
        (&of_family::<V4>().backends, used.backends[0]),
        (&of_family::<V6>().backends, used.backends[1]),
        (&NEXT_HOPS, used.next_hops),
    ];
    let in_array = |map: &MapInfo| arrays.iter().find(|(array, _)| *array == map);
    let mut pressures = Vec::new();
    for map in maps::all() {
        let (contents, when_full, meaning) = match map.filled {
            MapUse::Never => continue,
            MapUse::Services(contents) => (contents, Refuses, NO_MORE_SERVICES),
            MapUse::Refuses(contents, meaning) => (contents, Refuses, meaning),
            MapUse::Evicts(contents, meaning) => (contents, Evicts, meaning),
        };
        let rows = match in_array(map) {
            Some((_, used)) => (*used, opened.rows(map)),
            None => count(&pins.maps(), map)?,
        };
        let family = map.ipv6.map_or("", |ipv6| if ipv6 { ", IPv6" } else { ", IPv4" });
        pressures.push(Pressure::new(format!("{contents}{family}"), rows, when_full, meaning));
    }
    Ok(pressures)
}

/// Rows that an LRU map of so many keeps back for each of so many CPUs when it begins to evict
/// (`LOCAL_FREE_TARGET` of kernel/bpf/bpf_lru_list.c).
fn kept_back(max: u32, cpus: u32) -> u32 {
    (max / cpus.max(1) / 2).clamp(1, 128)
}

impl Pressure {
    fn new(name: String, rows: (u32, u32), when_full: WhenFull, meaning: &'static str) -> Pressure {
        let (used, max) = rows;
        Pressure { name, used, max, pressure: used as f64 / max.max(1) as f64, when_full, meaning }
    }

    /// What is wrong where the map refuses and is nearly full.
    pub fn warning(&self) -> Option<String> {
        (self.when_full == Refuses && self.pressure > NEARLY_FULL).then(|| {
            format!(
                "{}: {} of {} rows are used; when all are, {}",
                self.name, self.used, self.max, self.meaning
            )
        })
    }

    /// What is to be known where the map evicts rows.
    pub fn note(&self) -> Option<String> {
        let cpus = nr_cpus().map_or(1, |cpus| cpus as u32);
        let full = self.used.saturating_add(cpus * kept_back(self.max, cpus)) >= self.max;
        (self.when_full == Evicts && full).then(|| {
            format!(
                "{}: full, {}; for a larger one: `lb uninstall`, then start with a larger --max-flows",
                self.name, self.meaning
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(when_full: WhenFull, used: u32) -> Pressure {
        Pressure::new("rows".to_owned(), (used, 1 << 20), when_full, "so it is")
    }

    #[test]
    fn a_map_that_refuses_is_warned_of_in_time() {
        assert_eq!(of(Refuses, 943_718).warning(), None, "90 %");
        let line = "rows: 943719 of 1048576 rows are used; when all are, so it is";
        assert_eq!(of(Refuses, 943_719).warning().as_deref(), Some(line));
        assert_eq!(of(Refuses, 1 << 20).note(), None);
    }

    #[test]
    fn a_map_that_evicts_may_be_full() {
        assert_eq!(of(Evicts, 1 << 20).warning(), None);
        assert_eq!(of(Evicts, 943_719).note(), None);
        let note = of(Evicts, (1 << 20) - 128).note().expect("a note");
        assert!(note.starts_with("rows: full, so it is; for a larger one: "), "{note}");
    }

    #[test]
    fn rows_that_are_kept_back() {
        assert_eq!(
            [(1 << 20, 2), (1024, 2), (1024, 64), (1024, 2048)].map(|(max, cpus)| kept_back(max, cpus)),
            [128, 128, 8, 1]
        );
    }
}
