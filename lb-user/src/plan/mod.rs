//! Plan: wanted rows against found rows gives ordered steps. Pure; it decides everything and writes
//! nothing.
//!
//! The order is what a packet sees in between: ways, backends, slots and the set first, where nothing
//! points yet; then the service's word, which publishes them at once; then frontends. What is no
//! longer pointed at is retired, and free only after every reader has gone.

mod adopt;
mod ids;
mod mirror;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;
use lb_common::{
    abi::{
        BackendState, BackendWord, FrontendKind, NextHopRow, Scope, SetRow, SlotRow, Word, set_flags, ticks,
    },
    wire::Protocol,
};

pub use adopt::adopt;
pub use ids::{Full, Ids};
pub use mirror::{Found, FoundBackend, Mirror, Published, Used};

use crate::{
    compile::{self, Choice, Frontend, Wanted, WantedFrontend},
    model::{Algorithm, Forwarding, OnRemoval, TrafficPolicy},
};

/// One write, or one row given back. Its fields are the row, where it goes, and what the mirror keeps.
#[allow(missing_docs, reason = "the variants say it")]
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A way to an address, in a row that nothing points at.
    NextHop { index: u32, address: IpAddr, row: NextHopRow },
    /// A backend, in a row that nothing points at.
    Backend { service: u32, backend: FoundBackend },
    /// Slots, where nothing points.
    Slots { first: u32, rows: Vec<SlotRow> },
    /// The source ranges of a set that nothing points at yet.
    Ranges { set: u32, ranges: Vec<IpNet> },
    /// A set, in a row that nothing points at.
    Set { index: u32, row: SetRow },
    /// Publishes a service's set.
    Service { id: u32, word: Word, published: Published },
    /// Publishes a backend's state and way.
    BackendWord { address: IpAddr, id: u32, word: BackendWord },
    /// A frontend appears.
    InsertFrontend { frontend: WantedFrontend, service: u32 },
    /// A frontend disappears.
    DeleteFrontend { frontend: WantedFrontend, service: u32 },
    /// Calls to other ports of an address are refused from now on; those of another node are its own.
    InsertAddress { address: IpAddr, kind: FrontendKind },
    /// And no longer.
    DeleteAddress { address: IpAddr },
    /// A set, its slots and its source ranges are no longer pointed at.
    RetireSet { published: Published },
    /// A service has no frontend any more.
    RetireService { id: u32 },
    /// A way is no longer pointed at.
    RetireNextHop { index: u32, address: IpAddr },
    /// A removed backend's row is taken from it.
    RetireBackend { address: IpAddr, id: u32, word: BackendWord },
}

impl Step {
    /// Whether a backend keeps no UDP flows after it.
    pub fn loses_backend(&self) -> bool {
        matches!(self, Step::BackendWord { word, .. } if !word.state().keeps(Protocol::Udp))
    }
}

/// The way to an address, and the zone that replies from there come from.
pub trait Routes {
    /// As seen now.
    fn next_hop(&self, address: IpAddr) -> (NextHopRow, u16);

    /// As seen now, by who knew the `old` way: who was there may have gone.
    fn next_hop_after(&self, address: IpAddr, _old: &NextHopRow) -> NextHopRow {
        self.next_hop(address).0
    }
}

/// What decides about choices, besides what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Seed of Maglev's tables.
    pub seed: u64,
    /// Jiffies a second.
    pub hz: u32,
    /// A tick is 2^shift jiffies.
    pub tick_shift: u32,
}

/// The steps to one service port. Ids are taken from the mirror's free ones; those of steps that are
/// never carried out are given back with [`Mirror::abandon`].
pub fn service(
    mirror: &mut Mirror,
    wanted: &Wanted,
    routes: &dyn Routes,
    tuning: Tuning,
) -> Result<Vec<Step>, Full> {
    let known = wanted.frontends.iter().find_map(|frontend| mirror.service_of(&frontend.at));
    let id = match known {
        Some(id) => id,
        None => mirror.ids.service()?,
    };
    let mut steps = Vec::new();
    match plan(mirror, id, wanted, routes, tuning, &mut steps) {
        Ok(()) => Ok(steps),
        Err(full) => {
            mirror.abandon(&steps);
            if known.is_none() {
                mirror.ids.free_service(id);
            }
            Err(full)
        }
    }
}

fn plan(
    mirror: &mut Mirror,
    id: u32,
    wanted: &Wanted,
    routes: &dyn Routes,
    tuning: Tuning,
    steps: &mut Vec<Step>,
) -> Result<(), Full> {
    let ipv6 = wanted.frontends[0].at.address.is_ipv6();
    let missing: Vec<&WantedFrontend> =
        wanted.frontends.iter().filter(|frontend| !mirror.has(frontend, id)).collect();
    // Each may bring a row for its address.
    mirror.ids.admit_frontends(ipv6, 2 * missing.len() as u32)?;

    let found = mirror.found(id).cloned().unwrap_or_default();
    let found_backends = mirror.backends_of(id);
    // One that is to go another way, or whose replies come from another zone, is another backend: flows of the old one
    // go on as they do.
    type Place = (IpAddr, u16, Option<IpAddr>, u16);
    let known: HashMap<Place, &FoundBackend> = found_backends
        .iter()
        .map(|backend| ((backend.address, backend.port, backend.node, backend.zone), backend))
        .collect();

    // Backends first where they become active; what they lose comes after the set that leaves them.
    let mut after = Vec::new();
    let mut planned: HashMap<IpAddr, u32> = HashMap::new();
    let mut backend_ids = Vec::with_capacity(wanted.backends.len());
    for backend in &wanted.backends {
        let via = backend.node.unwrap_or(backend.address);
        let (row, zone) = routes.next_hop(via);
        let Some(old) = known.get(&(backend.address, backend.port, backend.node, zone)) else {
            let known = mirror.way_to(via).map(|(index, _)| index);
            let next_hop = match known.or_else(|| planned.get(&via).copied()) {
                Some(index) => index,
                None => {
                    let index = mirror.ids.next_hop()?;
                    steps.push(Step::NextHop { index, address: via, row });
                    planned.insert(via, index);
                    index
                }
            };
            let (backend_id, generation) = mirror.ids.backend(ipv6)?;
            let word = BackendWord::new(backend.state, next_hop, generation);
            let row = FoundBackend {
                id: backend_id,
                address: backend.address,
                port: backend.port,
                word,
                node: backend.node,
                zone,
            };
            steps.push(Step::Backend { service: id, backend: row });
            backend_ids.push(backend_id);
            continue;
        };
        backend_ids.push(old.id);
        // Between the two it takes what either table gives it.
        let both = match (old.word.state(), backend.state) {
            (BackendState::Active(before), BackendState::Active(now)) => {
                BackendState::Active(before.union(now))
            }
            (_, now @ BackendState::Active(_)) => now,
            (before, _) => before,
        };
        for (from, to, when) in [(old.word.state(), both, &mut *steps), (both, backend.state, &mut after)] {
            if from != to {
                let word = BackendWord::new(to, old.word.next_hop(), old.word.0.generation);
                when.push(Step::BackendWord { address: old.address, id: old.id, word });
            }
        }
    }
    let kept: HashSet<u32> = backend_ids.iter().copied().collect();
    for old in &found_backends {
        let state = compile::removed(wanted.choice.on_removal);
        if !kept.contains(&old.id) && old.word.state() != state {
            after.push(removed(old, state));
        }
    }

    let rows = |scope| -> Vec<SlotRow> {
        let table = wanted.table(scope, tuning.seed);
        table.iter().map(|index| SlotRow { backend: backend_ids[*index as usize], service: id }).collect()
    };
    let mut slots = rows(Scope::Cluster);
    let Choice { internal, external, forwarding, .. } = wanted.choice;
    // What another node has passed on to this one is for this one's backends.
    let is_local =
        internal == TrafficPolicy::Local || external == TrafficPolicy::Local || forwarding == Forwarding::Dsr;
    let local = if is_local { rows(Scope::Local) } else { Vec::new() };
    let mut row =
        SetRow { len: slots.len() as u32, local_len: local.len() as u32, ..options(wanted, tuning) };
    row.service = id;
    // On a node that has all of them there is one table for both.
    let (mut local_at, ranges) = (0, &wanted.choice.source_ranges);
    if local != slots {
        local_at = row.len;
        slots.extend(local);
    }
    let digest = mirror::digest(&slots, &row, ranges);
    if found.published.as_ref().is_none_or(|published| published.digest != digest) {
        let len = slots.len() as u32;
        let index = mirror.ids.set()?;
        let first = match mirror.ids.slots(len) {
            Ok(first) => first,
            Err(full) => {
                mirror.ids.free_set(index);
                return Err(full);
            }
        };
        steps.push(Step::Slots { first, rows: slots });
        (row.first, row.local_first) = (first, first + local_at);
        let on_removal = wanted.choice.on_removal;
        let published = Published { set: index, first, len, digest, ranges: ranges.clone(), on_removal };
        if !ranges.is_empty() {
            row.source_ranges = index;
        }
        // Before what can be refused: a step that fails gives back what it and those behind it took.
        steps.push(Step::Set { index, row });
        if !ranges.is_empty() {
            mirror.ids.admit_ranges(ipv6, ranges.len() as u32)?;
            steps.push(Step::Ranges { set: index, ranges: ranges.clone() });
        }
        let word = Word { low: index, generation: found.generation.wrapping_add(1) };
        steps.push(Step::Service { id, word, published });
        if let Some(old) = found.published {
            after.push(Step::RetireSet { published: old });
        }
    }
    for frontend in missing {
        if let Some(old) = found.frontends.iter().find(|old| old.at == frontend.at) {
            steps.push(Step::DeleteFrontend { frontend: *old, service: id });
        }
        steps.push(Step::InsertFrontend { frontend: *frontend, service: id });
    }
    for old in found.frontends.iter().filter(|old| !wanted.frontends.iter().any(|new| new.at == old.at)) {
        after.push(Step::DeleteFrontend { frontend: *old, service: id });
    }
    steps.append(&mut after);
    Ok(())
}

/// What a set says besides its slots.
fn options(wanted: &Wanted, tuning: Tuning) -> SetRow {
    let Choice { internal, external, affinity, algorithm, on_removal, forwarding, .. } = wanted.choice;
    let flag = |set, flag| if set { flag } else { 0 };
    SetRow {
        flags: flag(internal == TrafficPolicy::Local, set_flags::INTERNAL_LOCAL)
            | flag(external == TrafficPolicy::Local, set_flags::EXTERNAL_LOCAL)
            | flag(algorithm == Algorithm::Random, set_flags::RANDOM)
            | flag(on_removal == OnRemoval::Reset, set_flags::RESET_ON_REMOVAL)
            | flag(forwarding == Forwarding::Dsr, set_flags::DSR),
        affinity: affinity.map_or(0, |seconds| ticks(seconds, tuning.hz, tuning.tick_shift)),
        ..SetRow::default()
    }
}

/// The steps that refuse calls to other ports of addresses that have frontends now, and no longer to those
/// that have none left. Not at the host's `own` addresses: their other ports are the host's; nor at `others`,
/// sorted, which are other nodes'.
pub fn addresses(mirror: &mut Mirror, own: &[IpAddr], others: &[IpAddr]) -> Vec<Step> {
    let mut steps = Vec::new();
    for (address, wanted, there) in mirror.touched_addresses(own, others) {
        if wanted == there {
            continue;
        }
        if there.is_some() {
            steps.push(Step::DeleteAddress { address });
        }
        if let Some(kind) = wanted
            && mirror.ids.admit_frontends(address.is_ipv6(), 1).is_ok()
        {
            steps.push(Step::InsertAddress { address, kind });
        }
    }
    steps
}

/// The steps that take a service away: its frontends first, so that no packet finds half of it. Its
/// backends keep their TCP flows as removed ones, unless the service says otherwise.
pub fn removal(mirror: &Mirror, id: u32) -> Vec<Step> {
    let Some(found) = mirror.found(id) else { return Vec::new() };
    let mut steps: Vec<Step> = found
        .frontends
        .iter()
        .map(|frontend| Step::DeleteFrontend { frontend: *frontend, service: id })
        .collect();
    let on_removal = found.published.as_ref().map(|published| published.on_removal).unwrap_or_default();
    let state = compile::removed(on_removal);
    for backend in mirror.backends_of(id) {
        if backend.word.state() != state {
            steps.push(removed(&backend, state));
        }
    }
    if let Some(published) = found.published.clone() {
        steps.push(Step::RetireSet { published });
    }
    steps.push(Step::RetireService { id });
    steps
}

/// The steps that take away what a service port had (`old`) of what the service has no more (all that it has is `now`):
/// before anything is published, as it may be another service's from now on.
pub fn lost(mirror: &Mirror, old: &Wanted, now: &HashSet<Frontend>) -> Vec<Step> {
    let id = old.frontends.iter().find_map(|frontend| mirror.service_of(&frontend.at));
    let Some(id) = id else { return Vec::new() };
    if !old.frontends.iter().any(|frontend| now.contains(&frontend.at)) {
        return removal(mirror, id);
    }
    let gone = old.frontends.iter().filter(|frontend| !now.contains(&frontend.at));
    let gone = gone.filter(|frontend| mirror.has(frontend, id));
    gone.map(|frontend| Step::DeleteFrontend { frontend: *frontend, service: id }).collect()
}

fn removed(backend: &FoundBackend, state: BackendState) -> Step {
    let word = BackendWord::new(state, backend.word.next_hop(), backend.word.0.generation);
    Step::BackendWord { address: backend.address, id: backend.id, word }
}

/// The steps that follow a change of the way to an address: a new row, then every backend there.
pub fn next_hop(mirror: &mut Mirror, address: IpAddr, routes: &dyn Routes) -> Result<Vec<Step>, Full> {
    let Some((old, old_row)) = mirror.way_to(address) else { return Ok(Vec::new()) };
    let row = routes.next_hop_after(address, &old_row);
    if old_row == row {
        return Ok(Vec::new());
    }
    let index = mirror.ids.next_hop()?;
    let mut steps = vec![Step::NextHop { index, address, row }];
    for backend in mirror.backends_at(address) {
        let word = BackendWord::new(backend.word.state(), index, backend.word.0.generation);
        steps.push(Step::BackendWord { address, id: backend.id, word });
    }
    steps.push(Step::RetireNextHop { index: old, address });
    Ok(steps)
}

/// The steps that free up to `count` rows of backends, those removed longest ago first. What was left
/// of their TCP flows ends.
pub fn recycle(mirror: &mut Mirror, ipv6: bool, count: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    while steps.len() < count {
        let Some(backend) = mirror.oldest_removed(ipv6) else { break };
        let word = BackendWord::new(BackendState::Free, 0, backend.word.0.generation);
        steps.push(Step::RetireBackend { address: backend.address, id: backend.id, word });
    }
    steps
}

/// The steps that take away what failed writes left.
pub fn leftovers(mirror: &Mirror) -> Vec<Step> {
    let mut steps: Vec<Step> = mirror.unreached().into_iter().flat_map(|id| removal(mirror, id)).collect();
    steps.extend(mirror.unused_next_hops().map(|(address, index)| Step::RetireNextHop { index, address }));
    steps
}
