//! Adoption: reads the mirror back from maps that another agent has filled.

use std::collections::HashSet;

use lb_common::{
    abi::{BackendState, BackendWord, FrontendKey, FrontendKind, SlotRow, set_flags},
    family::{Address as _, Family, V4, V6},
};

use super::{FoundBackend, Ids, Mirror, Published, mirror::digest};
use crate::{
    compile::{Frontend, WantedFrontend},
    maps::{Maps, Side},
    model::{OnRemoval, Protocol},
};

/// What the maps hold. Rows that an interrupted change left without use are free.
pub fn adopt(maps: &Maps) -> Mirror {
    let mut mirror = Mirror::new(Ids::new(|map| maps.rows(map)));
    frontends::<V4>(&mut mirror, &maps.v4);
    frontends::<V6>(&mut mirror, &maps.v6);
    let mut ranges = maps.source_ranges();
    let mut sets = HashSet::new();
    for id in mirror.service_ids() {
        let word = maps.services.word(id);
        let set = maps.sets.get(word.low);
        if word.low == 0 || set.service != id {
            continue;
        }
        // The slots of both scopes lie behind each other, or are the same.
        let end = (set.first + set.len).max(set.local_first + set.local_len);
        let rows: Vec<SlotRow> = (set.first..end).map(|index| maps.slots.get(index)).collect();
        let ranges = ranges.remove(&set.source_ranges).filter(|_| set.source_ranges != 0).unwrap_or_default();
        let len = rows.len() as u32;
        mirror.ids.adopt_slots(set.first, len);
        mirror.count_ranges(&ranges, 1);
        sets.insert(word.low);
        let digest = digest(&rows, &set, &ranges);
        mirror.adopt_service(id, |found| {
            let resets = set.flags & set_flags::RESET_ON_REMOVAL != 0;
            let on_removal = if resets { OnRemoval::Reset } else { OnRemoval::Keep };
            let first = set.first;
            found.published = Some(Published { set: word.low, first, len, digest, ranges, on_removal });
            found.generation = word.generation;
        });
    }
    for (set, ranges) in ranges {
        mirror.adopt_stale_ranges(set, ranges);
    }
    let services: HashSet<u32> = mirror.service_ids().into_iter().collect();
    mirror.ids.adopt_services(|id| services.contains(&id));
    mirror.ids.adopt_sets(|index| sets.contains(&index));
    let mut routes = backends::<V4>(&mut mirror, maps, &maps.v4, &services);
    routes.extend(backends::<V6>(&mut mirror, maps, &maps.v6, &services));
    mirror.ids.adopt_next_hop(|index| routes.contains(&index));
    mirror
}

fn frontends<F: Family>(mirror: &mut Mirror, side: &Side<F>) {
    for (key, row) in side.frontends.iter().flatten() {
        let key: FrontendKey<F> = key;
        let kind = FrontendKind::from_bits(row.kind);
        if matches!(kind, FrontendKind::Address | FrontendKind::Node) {
            mirror.adopt_address(F::to_ip(key.addr), kind);
            continue;
        }
        let Some(protocol) = Protocol::from_number(key.protocol) else { continue };
        let at = Frontend { address: F::to_ip(key.addr), port: u16::from_be(key.port), protocol };
        mirror.adopt_frontend(WantedFrontend { at, kind }, row.service);
    }
}

/// Reads the backends; gives the ways they use.
fn backends<F: Family>(
    mirror: &mut Mirror,
    maps: &Maps,
    side: &Side<F>,
    services: &HashSet<u32>,
) -> HashSet<u32> {
    let mut routes = HashSet::new();
    let mut used = HashSet::new();
    let mut generations = Vec::new();
    for id in 0..side.backends.len() {
        let row = side.backends.get(id);
        if row.word.generation != 0 {
            generations.resize(id as usize + 1, 0);
            generations[id as usize] = row.word.generation;
        }
        let word = BackendWord(row.word);
        if word.state() == BackendState::Free {
            continue;
        }
        let address = F::to_ip(row.addr);
        used.insert(id);
        routes.insert(word.next_hop());
        let node = (row.node != F::Addr::ZERO).then(|| F::to_ip(row.node));
        let (port, zone) = (u16::from_be(row.port), row.zone);
        let backend = FoundBackend { id, address, port, word, node, zone };
        mirror.adopt_next_hop(backend.via(), word.next_hop(), maps.next_hops.get(word.next_hop()));
        mirror.note_backend(services.contains(&row.service).then_some(row.service), backend);
    }
    mirror.ids.adopt_backends(F::IPV6, generations, |id| used.contains(&id));
    routes
}
