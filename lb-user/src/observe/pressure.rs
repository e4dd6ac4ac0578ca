//! How full the maps of an instance are, and what it means.

use anyhow::Result;
use aya::util::nr_cpus;
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
    pub name: &'static str,
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

/// The maps whose rows are counted one by one: pin, what is in it, and what it does when it is full.
const COUNTED: &[(&str, &str, WhenFull, &str)] = &[
    ("FRONTENDS4", "frontends, IPv4", Refuses, NO_MORE_SERVICES),
    ("FRONTENDS6", "frontends, IPv6", Refuses, NO_MORE_SERVICES),
    ("RANGES4", "source ranges, IPv4", Refuses, NO_MORE_SERVICES),
    ("RANGES6", "source ranges, IPv6", Refuses, NO_MORE_SERVICES),
    ("ANSWERS", "answers", Refuses, "addresses in a bridge's or uplink's subnet will not be answered for"),
    ("HOMES", "homes", Refuses, "packets of more neighbours will not be held to their ports"),
    ("COOKIES", "cookies", Refuses, "sockets of more pods will be left to the programs at their ports"),
    ("SNAT4", "node's ports, IPv4", Refuses, "clients outside will not reach backends on other nodes"),
    ("SNAT6", "node's ports, IPv6", Refuses, "clients outside will not reach backends on other nodes"),
    ("FLOWS4", "flows, IPv4", Evicts, "idle flows are being evicted"),
    ("FLOWS6", "flows, IPv6", Evicts, "idle flows are being evicted"),
    ("UNPROVEN4", "new flows, IPv4", Evicts, "flows whose clients never answer push each other out"),
    ("UNPROVEN6", "new flows, IPv6", Evicts, "flows whose clients never answer push each other out"),
    ("AFFINITY4", "affinity, IPv4", Evicts, "clients that were not seen for long get other backends"),
    ("AFFINITY6", "affinity, IPv6", Evicts, "clients that were not seen for long get other backends"),
    ("FRAGMENTS4", "fragments, IPv4", Evicts, "packets that never came whole push each other out"),
    ("FRAGMENTS6", "fragments, IPv6", Evicts, "packets that never came whole push each other out"),
    ("SOCKETS4", "sockets, IPv4", Evicts, "sockets that were idle for long are shown their backends"),
    ("SOCKETS6", "sockets, IPv6", Evicts, "sockets that were idle for long are shown their backends"),
];

/// Every map of the instance that can be full.
pub fn pressure(pins: &Pins, maps: &Maps, mirror: &Mirror) -> Result<Vec<Pressure>> {
    let used = mirror.used();
    let of_services = [
        ("services", used.services, maps.services.len()),
        ("sets", used.sets, maps.sets.len()),
        ("slots", used.slots, maps.slots.len()),
        ("backends, IPv4", used.backends[0], maps.v4.backends.len()),
        ("backends, IPv6", used.backends[1], maps.v6.backends.len()),
        ("ways", used.ways, maps.reach.len()),
    ];
    let mut all: Vec<Pressure> = of_services
        .into_iter()
        .map(|(name, used, max)| Pressure::new(name, (used, max), Refuses, NO_MORE_SERVICES))
        .collect();
    for (map, name, when_full, meaning) in COUNTED {
        all.push(Pressure::new(name, count(&pins.maps(), map)?, *when_full, meaning));
    }
    Ok(all)
}

/// Rows that an LRU map of so many keeps back for each of so many CPUs when it begins to evict
/// (`LOCAL_FREE_TARGET` of kernel/bpf/bpf_lru_list.c).
fn kept_back(max: u32, cpus: u32) -> u32 {
    (max / cpus.max(1) / 2).clamp(1, 128)
}

impl Pressure {
    fn new(name: &'static str, rows: (u32, u32), when_full: WhenFull, meaning: &'static str) -> Pressure {
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
    use crate::maps::PINNED;

    fn of(when_full: WhenFull, used: u32) -> Pressure {
        Pressure::new("rows", (used, 1 << 20), when_full, "so it is")
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

    #[test]
    fn no_map_is_left_out() {
        // Arrays: their rows in use are known from the services. The rest is never full.
        let others = [
            "INTEREST",
            "SERVICES",
            "SETS",
            "SLOTS",
            "REACH",
            "BACKENDS4",
            "BACKENDS6",
            "COUNTERS",
            "TRAFFIC",
            "TURNS",
        ];
        let counted = COUNTED.iter().map(|(map, ..)| *map);
        let mut known: Vec<&str> = others.into_iter().chain(counted).collect();
        let mut pinned = PINNED.to_vec();
        known.sort_unstable();
        pinned.sort_unstable();
        assert_eq!(known, pinned);
    }
}
