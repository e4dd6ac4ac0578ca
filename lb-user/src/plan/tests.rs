//! Any sequence of models converges, also when writes fail; a second pass is empty; and what a packet
//! would find at any moment is the old or the new state, never half.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    net::IpAddr,
};

use ipnet::IpNet;
use lb_common::{
    abi::{BackendState, FrontendKind, NextHopKind, NextHopRow, Scope, Scopes},
    family::{Family as _, V4},
};
use lb_sim::Maps;
use proptest::prelude::*;

use super::{Ids, Mirror, Routes, Step, Tuning, addresses, leftovers, recycle, removal, service};
use crate::{
    apply::{Rows, apply, key},
    compile::{Choice, Frontend, Wanted, WantedBackend, WantedFrontend},
    maps::Sizes,
    model::{Protocol, TrafficPolicy},
};

/// Maps in memory. What is a system call in the kernel's fails when told so.
#[derive(Default)]
struct Fake {
    maps: Maps,
    failures: u32,
    /// What a packet must never see, checked after every write.
    watch: bool,
}

impl Fake {
    /// What a packet to a frontend may be sent to: every backend of its slots.
    fn lookup(&self, frontend: &Frontend, scope: Scope) -> Option<BTreeSet<(IpAddr, u16)>> {
        let service = self.maps.v4.frontends.get(&key::<V4>(frontend))?.service;
        let found = self.maps.backends::<V4>(service, scope).expect("no row leads astray");
        let socket = |id| self.maps.v4.socket(id).expect("a backend's row");
        Some(found.into_keys().map(socket).map(|at| (at.ip(), at.port())).collect())
    }

    fn check(&self) {
        for row in self.maps.v4.frontends.values().filter(|row| self.watch && row.service != 0) {
            for scope in [Scope::Cluster, Scope::Local] {
                self.maps.backends::<V4>(row.service, scope).expect("no row leads astray");
            }
        }
    }

    /// How many frontends there are, and for which addresses other ports are refused.
    fn frontends(&self) -> (usize, HashSet<IpAddr>) {
        let rows = &self.maps.v4.frontends;
        let addresses = rows.keys().filter(|key| key.port == 0).map(|key| V4::to_ip(key.addr));
        let addresses: HashSet<IpAddr> = addresses.collect();
        (rows.len() - addresses.len(), addresses)
    }
}

impl Rows for Fake {
    fn write(&mut self, step: &Step) -> io::Result<()> {
        use Step::{DeleteAddress, DeleteFrontend, InsertAddress, InsertFrontend, Ranges};
        let can_fail = matches!(
            step,
            InsertFrontend { .. }
                | DeleteFrontend { .. }
                | InsertAddress { .. }
                | DeleteAddress { .. }
                | Ranges { .. }
        );
        if can_fail && self.failures > 0 {
            self.failures -= 1;
            return Err(io::Error::from_raw_os_error(12));
        }
        if let Ranges { set, .. } = step {
            assert!(!self.maps.has_ranges(*set), "no ranges of another set are left there");
        }
        self.maps.write(step).expect("a frontend is never updated");
        self.check();
        Ok(())
    }

    fn delete_ranges(&mut self, set: u32, ranges: &[IpNet]) -> io::Result<()> {
        Rows::delete_ranges(&mut self.maps, set, ranges)
    }
}

struct Everywhere;

impl Routes for Everywhere {
    fn next_hop(&self, _: IpAddr) -> (NextHopRow, u16) {
        (NextHopRow { ifindex: 7, kind: NextHopKind::Peer as u32, ..NextHopRow::default() }, 3)
    }
}

/// A model: for each of a few services the backends it has, by host and state.
type Shape = Vec<Option<Vec<(u8, u8)>>>;

fn wanted(service: usize, backends: &[(u8, u8)]) -> Wanted {
    let mut hosts = BTreeMap::new();
    hosts.extend(backends.iter().copied());
    Wanted {
        port_name: String::new(),
        frontends: vec![
            WantedFrontend { at: at([10, 96, 0, service as u8], 80), kind: FrontendKind::ClusterIp },
            // Another port and kind each time the service has one backend more or less.
            WantedFrontend {
                at: at([192, 168, 1, 11], 30_000 + 10 * service as u16 + backends.len() as u16 % 2),
                kind: if backends.len() < 3 { FrontendKind::NodePort } else { FrontendKind::HostPort },
            },
        ],
        choice: Choice {
            source_ranges: (0..backends.len() as u8 % 3).map(range).collect(),
            affinity: (backends.len() > 2).then_some(10),
            external: TrafficPolicy::Local,
            ..Choice::default()
        },
        backends: hosts
            .into_iter()
            .map(|(host, state)| WantedBackend {
                address: [10, 244, 1, host].into(),
                port: 8080,
                weight: 1 + state as u16 / 3,
                state: match state % 3 {
                    0 => BackendState::Draining,
                    1 => BackendState::Active(Scopes::Both),
                    _ => BackendState::Active(Scopes::Local),
                },
                // As far as the mirror goes, an address of its own.
                node: (state % 2 == 0).then(|| [192, 168, 1, host].into()),
            })
            .collect(),
    }
}

fn at(address: [u8; 4], port: u16) -> Frontend {
    Frontend { address: address.into(), port, protocol: Protocol::Tcp }
}

fn range(number: u8) -> IpNet {
    IpNet::new([198, 51, number, 0].into(), 24).expect("a range")
}

/// The host's own.
fn own() -> [IpAddr; 1] {
    [[192, 168, 1, 11].into()]
}

fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    let backends = prop::collection::vec((0u8..6, 0u8..9), 0..5);
    prop::collection::vec(prop::collection::vec(prop::option::of(backends), 4), 1..8)
}

const TUNING: Tuning = Tuning { seed: 1, hz: 100, tick_shift: 7 };

/// One pass of the agent: what goes first, then what is wanted. Whether all of it was applied.
fn pass(fake: &mut Fake, mirror: &mut Mirror, shape: &Shape) -> bool {
    let mut done = true;
    let steps = leftovers(mirror);
    done &= apply(fake, mirror, &steps).is_ok();
    reclaim(fake, mirror);
    for (index, backends) in shape.iter().enumerate() {
        let empty = wanted(index, &[]);
        if backends.is_none()
            && let Some(id) = mirror.service_of(&empty.frontends[0].at)
        {
            let steps = removal(mirror, id);
            done &= apply(fake, mirror, &steps).is_ok();
        }
    }
    for (index, backends) in shape.iter().enumerate() {
        let Some(backends) = backends else { continue };
        let wanted = wanted(index, backends);
        let steps = service(mirror, &wanted, &Everywhere, TUNING).expect("nothing is full");
        done &= apply(fake, mirror, &steps).is_ok();
    }
    let steps = addresses(mirror, &own(), &[]);
    done &= apply(fake, mirror, &steps).is_ok();
    reclaim(fake, mirror);
    done
}

/// As `apply::reclaim`, without waiting: nobody reads these maps.
fn reclaim(fake: &mut Fake, mirror: &mut Mirror) {
    for (set, ranges) in mirror.retired_ranges() {
        fake.delete_ranges(set, ranges).expect("deleting does not fail here");
    }
    mirror.reclaim();
}

fn assert_serves(fake: &Fake, shape: &Shape) {
    let (frontends, addresses) = fake.frontends();
    for (index, backends) in shape.iter().enumerate() {
        let wanted = wanted(index, backends.as_deref().unwrap_or_default());
        for frontend in &wanted.frontends {
            for scope in [Scope::Cluster, Scope::Local] {
                let found = fake.lookup(&frontend.at, scope);
                assert_eq!(found.is_some(), backends.is_some(), "service {index}");
                let takes = wanted.backends.iter().filter(|backend| backend.state.takes(scope));
                let active =
                    takes.map(|backend| (backend.address, backend.port)).filter(|_| backends.is_some());
                assert_eq!(found.unwrap_or_default(), active.collect(), "service {index}");
            }
        }
        let vip = wanted.frontends[0].at.address;
        assert_eq!(addresses.contains(&vip), backends.is_some(), "service {index}");
    }
    let served = shape.iter().flatten().count();
    assert_eq!(frontends, 2 * served, "no frontend is left of what was wanted before");
    assert!(!addresses.contains(&own()[0]), "the host's own address is left alone");
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
                    let again = service(&mut mirror, &wanted(index, backends), &Everywhere, TUNING).expect("room");
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
        prop_assert!(fake.maps.v4.frontends.is_empty() && fake.maps.v4.ranges.is_empty());
    }
}

#[test]
fn a_full_map_refuses_the_change_as_a_whole() {
    let (mut fake, mut mirror) = (Fake::default(), Mirror::new(Ids::of(Sizes { services: 3, flows: 1024 })));
    for index in 0..2 {
        let steps = service(&mut mirror, &wanted(index, &[(1, 1)]), &Everywhere, TUNING).expect("room");
        apply(&mut fake, &mut mirror, &steps).expect("no failures");
    }
    let full = service(&mut mirror, &wanted(2, &[(1, 1), (2, 1)]), &Everywhere, TUNING).expect_err("full");
    assert_eq!((full.map, full.max), ("services", 3));
    assert!(full.to_string().contains("--max-services"));
    // The others can still change.
    let steps = service(&mut mirror, &wanted(1, &[(1, 1), (2, 1)]), &Everywhere, TUNING).expect("room");
    assert!(steps.iter().any(|step| matches!(step, Step::Service { .. })));
    apply(&mut fake, &mut mirror, &steps).expect("no failures");
    assert_eq!(
        fake.lookup(&wanted(1, &[]).frontends[0].at, Scope::Cluster).map(|found| found.len()),
        Some(2)
    );
}

#[test]
fn what_did_not_fit_leaves_every_row_free() {
    let (mut fake, mut mirror) = (Fake::default(), Mirror::new(Ids::of(Sizes { services: 3, flows: 1024 })));
    let many: Vec<(u8, u8)> = (0..60).map(|host| (host, 1)).collect();
    for _ in 0..4 {
        service(&mut mirror, &wanted(0, &many), &Everywhere, TUNING).expect_err("more backends than rows");
    }
    for index in 0..2 {
        let steps =
            service(&mut mirror, &wanted(index, &[(1, 1), (2, 1)]), &Everywhere, TUNING).expect("room");
        apply(&mut fake, &mut mirror, &steps).expect("no failures");
    }
}
