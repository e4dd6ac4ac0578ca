//! Any sequence of models converges, also when writes fail; a second pass is empty; and what a packet
//! would find at any moment is the old or the new state, never half.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::IpAddr,
};

use lb_common::abi::{BackendState, BackendWord, ReachKind, ReachRow, SetRow, SlotRow, Word};
use proptest::prelude::*;

use super::{FoundBackend, Ids, Mirror, Step, Ways, leftovers, recycle, removal, service};
use crate::{
    apply::{Rows, apply},
    compile::{Frontend, Wanted, WantedBackend},
    maps::Sizes,
    model::Protocol,
};

/// Maps in memory. Frontend writes fail when told so.
#[derive(Default)]
struct Fake {
    reach: HashMap<u32, ReachRow>,
    backends: HashMap<u32, (u32, FoundBackend)>,
    words: HashMap<u32, Word>,
    slots: HashMap<u32, SlotRow>,
    sets: HashMap<u32, SetRow>,
    services: HashMap<u32, Word>,
    frontends: HashMap<Frontend, u32>,
    failures: u32,
    /// What a packet must never see, checked after every write.
    watch: bool,
}

impl Fake {
    fn write(&mut self) -> io::Result<()> {
        if self.failures > 0 {
            self.failures -= 1;
            return Err(io::Error::from_raw_os_error(12));
        }
        Ok(())
    }

    /// What a packet to a frontend may be sent to: every backend of its slots, with how many.
    fn lookup(&self, frontend: &Frontend) -> Option<BTreeMap<(IpAddr, u16), u32>> {
        let service = *self.frontends.get(frontend)?;
        let word = self.services.get(&service).expect("a frontend leads to a published service");
        let set = self.sets.get(&word.low).expect("a service leads to a set");
        assert_eq!(set.service, service, "the set is the service's own");
        let mut found = BTreeMap::new();
        for index in set.first..set.first + set.len {
            let slot = self.slots.get(&index).expect("every slot of a set is written");
            assert_eq!(slot.service, service, "every slot is the service's own");
            let (owner, backend) = self.backends.get(&slot.backend).expect("a slot leads to a backend");
            assert_eq!(*owner, service);
            let word = BackendWord(self.words[&slot.backend]);
            assert_eq!(word.state(), BackendState::Active, "a slot leads to an active backend");
            assert!(self.reach.contains_key(&word.reach()), "a backend has a way");
            *found.entry((backend.address, backend.port)).or_insert(0) += 1;
        }
        Some(found)
    }

    fn check(&self) {
        if self.watch {
            for frontend in self.frontends.keys() {
                self.lookup(frontend);
            }
        }
    }
}

impl Rows for Fake {
    fn reach(&mut self, index: u32, row: ReachRow) {
        self.reach.insert(index, row);
        self.check();
    }
    fn backend(&mut self, service: u32, backend: &FoundBackend, _zone: u16) {
        self.backends.insert(backend.id, (service, *backend));
        self.words.insert(backend.id, backend.word.0);
        self.check();
    }
    fn slots(&mut self, first: u32, rows: &[SlotRow]) {
        self.slots.extend((first..).zip(rows.iter().copied()));
        self.check();
    }
    fn set(&mut self, index: u32, row: SetRow) {
        self.sets.insert(index, row);
        self.check();
    }
    fn service(&mut self, id: u32, word: Word) {
        self.services.insert(id, word);
        self.check();
    }
    fn backend_word(&mut self, _ipv6: bool, id: u32, word: Word) {
        self.words.insert(id, word);
        self.check();
    }
    fn insert_frontend(&mut self, frontend: &Frontend, service: u32) -> io::Result<()> {
        self.write()?;
        assert!(self.frontends.insert(*frontend, service).is_none(), "a frontend is never updated");
        self.check();
        Ok(())
    }
    fn delete_frontend(&mut self, frontend: &Frontend) -> io::Result<()> {
        self.write()?;
        self.frontends.remove(frontend);
        self.check();
        Ok(())
    }
}

struct Everywhere;

impl Ways for Everywhere {
    fn way(&self, _: IpAddr) -> (ReachRow, u16) {
        (ReachRow { ifindex: 7, kind: ReachKind::Peer as u32, ..ReachRow::default() }, 3)
    }
}

/// A model: for each of a few services the backends it has, by host and state.
type Shape = Vec<Option<Vec<(u8, u8)>>>;

fn wanted(service: usize, backends: &[(u8, u8)]) -> Wanted {
    let mut hosts = BTreeMap::new();
    hosts.extend(backends.iter().copied());
    Wanted {
        port_name: String::new(),
        frontends: vec![Frontend {
            address: [10, 96, 0, service as u8].into(),
            port: 80,
            protocol: Protocol::Tcp,
        }],
        backends: hosts
            .into_iter()
            .map(|(host, state)| WantedBackend {
                address: [10, 244, 1, host].into(),
                port: 8080,
                weight: 1 + state as u16 / 3,
                state: match state % 3 {
                    0 => BackendState::Draining,
                    _ => BackendState::Active,
                },
            })
            .collect(),
    }
}

fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    let backends = prop::collection::vec((0u8..6, 0u8..9), 0..5);
    prop::collection::vec(prop::collection::vec(prop::option::of(backends), 4), 1..8)
}

const SEED: u64 = 1;

/// One pass of the agent: what goes first, then what is wanted. Whether all of it was applied.
fn pass(fake: &mut Fake, mirror: &mut Mirror, shape: &Shape) -> bool {
    let mut done = true;
    let steps = leftovers(mirror);
    done &= apply(fake, mirror, &steps).is_ok();
    mirror.reclaim();
    for (index, backends) in shape.iter().enumerate() {
        let empty = wanted(index, &[]);
        if backends.is_none()
            && let Some(id) = mirror.service_of(&empty.frontends[0])
        {
            let steps = removal(mirror, id);
            done &= apply(fake, mirror, &steps).is_ok();
        }
    }
    for (index, backends) in shape.iter().enumerate() {
        let Some(backends) = backends else { continue };
        let wanted = wanted(index, backends);
        let steps = service(mirror, &wanted, &Everywhere, SEED).expect("nothing is full");
        done &= apply(fake, mirror, &steps).is_ok();
    }
    mirror.reclaim();
    done
}

fn assert_serves(fake: &Fake, shape: &Shape) {
    for (index, backends) in shape.iter().enumerate() {
        let wanted = wanted(index, backends.as_deref().unwrap_or_default());
        let found = fake.lookup(&wanted.frontends[0]);
        assert_eq!(found.is_some(), backends.is_some(), "service {index}");
        let active: Vec<_> = wanted
            .backends
            .iter()
            .filter(|backend| backend.state.is_active())
            .map(|backend| (backend.address, backend.port))
            .collect();
        let served: Vec<_> = found.unwrap_or_default().into_keys().collect();
        assert_eq!(served, active, "service {index}");
    }
}

fn mirror() -> Mirror {
    Mirror::new(Ids::of(Sizes { services: 64, flows: 1024 }))
}

proptest! {
    #[test]
    fn any_models_converge(shapes in shapes()) {
        let (mut fake, mut mirror) = (Fake { watch: true, ..Fake::default() }, mirror());
        for shape in &shapes {
            prop_assert!(pass(&mut fake, &mut mirror, shape));
            assert_serves(&fake, shape);
            for (index, backends) in shape.iter().enumerate() {
                if let Some(backends) = backends {
                    let again = service(&mut mirror, &wanted(index, backends), &Everywhere, SEED).expect("room");
                    prop_assert_eq!(again, vec![], "a second pass is empty");
                }
            }
        }
    }

    #[test]
    fn failed_writes_are_made_good(shapes in shapes(), failures in prop::collection::vec(0u32..4, 8)) {
        let (mut fake, mut mirror) = (Fake::default(), mirror());
        for (shape, failures) in shapes.iter().zip(failures) {
            fake.failures = failures;
            pass(&mut fake, &mut mirror, shape);
        }
        fake.failures = 0;
        let last = shapes.last().expect("at least one");
        while !pass(&mut fake, &mut mirror, last) {}
        pass(&mut fake, &mut mirror, last);
        assert_serves(&fake, last);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn rows_are_given_back(shapes in shapes()) {
        let (mut fake, mut mirror) = (Fake::default(), mirror());
        let nothing: Shape = vec![None; 4];
        // Many times more than the maps have rows.
        for _ in 0..40 {
            for shape in &shapes {
                pass(&mut fake, &mut mirror, shape);
            }
            pass(&mut fake, &mut mirror, &nothing);
            let steps = recycle(&mut mirror, false, usize::MAX);
            apply(&mut fake, &mut mirror, &steps).expect("no failures");
            mirror.reclaim();
        }
        prop_assert_eq!(mirror.services().count(), 0);
        prop_assert!(fake.frontends.is_empty());
    }
}

#[test]
fn a_full_map_refuses_the_change_as_a_whole() {
    let (mut fake, mut mirror) = (Fake::default(), Mirror::new(Ids::of(Sizes { services: 3, flows: 1024 })));
    for index in 0..2 {
        let steps = service(&mut mirror, &wanted(index, &[(1, 1)]), &Everywhere, SEED).expect("room");
        apply(&mut fake, &mut mirror, &steps).expect("no failures");
    }
    let full = service(&mut mirror, &wanted(2, &[(1, 1), (2, 1)]), &Everywhere, SEED).expect_err("full");
    assert_eq!((full.map, full.max), ("services", 3));
    assert!(full.to_string().contains("--max-services"));
    // The others can still change.
    let steps = service(&mut mirror, &wanted(1, &[(1, 1), (2, 1)]), &Everywhere, SEED).expect("room");
    assert!(steps.iter().any(|step| matches!(step, Step::Service { .. })));
    apply(&mut fake, &mut mirror, &steps).expect("no failures");
    assert_eq!(fake.lookup(&wanted(1, &[]).frontends[0]).map(|found| found.len()), Some(2));
}

#[test]
fn what_did_not_fit_leaves_every_row_free() {
    let (mut fake, mut mirror) = (Fake::default(), Mirror::new(Ids::of(Sizes { services: 3, flows: 1024 })));
    let many: Vec<(u8, u8)> = (0..60).map(|host| (host, 1)).collect();
    for _ in 0..4 {
        service(&mut mirror, &wanted(0, &many), &Everywhere, SEED).expect_err("more backends than rows");
    }
    for index in 0..2 {
        let steps = service(&mut mirror, &wanted(index, &[(1, 1), (2, 1)]), &Everywhere, SEED).expect("room");
        apply(&mut fake, &mut mirror, &steps).expect("no failures");
    }
}
