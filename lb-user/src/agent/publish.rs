//! What is served: the model, the mirror of the maps, and what is to be tried again.

mod report;
mod services;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use lb_common::abi::{FrontendKind, NextHopKind};
use tracing::{error, info, warn};

use super::{
    node::{self, NodeAddresses},
    port_conflicts::PortConflicts,
    programs::seed_hash,
    proxy_neigh::ProxyNeigh,
    routes,
    sockets::Sockets,
    source_guard::SourceGuard,
    state_file::StateFile,
    wanted_neighbours::WantedNeighbours,
};
use crate::{
    compile::{NodeFacts, Shared, shared},
    files::Retried,
    maps::{Maps, Pins},
    model::{Family, Model, Service, ServiceName, diff},
    observe::{backends::next_hop, clock, view::View},
    plan::{self, Mirror, Routes as _, Tuning},
};

/// Of so many changes at once each has a line in the log; of more, there is one for all.
const LINES: usize = 100;

/// How often the host's sockets are told of backends that no longer serve: at once, and again for one that
/// was connecting in that moment.
const SOCKET_NOTIFICATIONS: u32 = 2;

const NOT_WRITTEN: &str = "not written to the maps yet; trying again";

/// See the module.
pub struct Publisher {
    /// What is served.
    pub model: Model,
    /// What the command line reads.
    pub view: View,
    /// What is wrong with the config.
    pub problems: Vec<String>,
    /// Why not every device has its programs, if so.
    pub device_problem: Option<String>,
    /// Ports at which nobody is told of a service's health, and why.
    pub health_check_problems: Vec<String>,
    maps: Maps,
    mirror: Mirror,
    proxy_neigh: ProxyNeigh,
    /// `--announce`.
    announce: bool,
    source_guard: SourceGuard,
    kept: StateFile,
    /// `kept.json`.
    pub state_file: Retried,
    /// `view.json`.
    pub view_file: Retried,
    tuning: Tuning,
    /// This node, as everything that is served was compiled for.
    node: NodeFacts,
    /// Who listens on the host, as of this pass; looked up when first asked for.
    port_conflicts: Option<PortConflicts>,
    /// Frontends of the host that several services ask for, and who has them.
    shared: Shared,
    /// Services whose last change was not fully applied, and why.
    failed: BTreeMap<ServiceName, String>,
    /// No lines about single services now.
    quiet: bool,
    started: bool,
    /// How often the host's sockets are still to be told of backends that no longer serve.
    socket_notifications: u32,
}

/// How long it took to serve another model.
pub struct Served {
    /// To find what has changed.
    pub compared: Duration,
    /// Until packets saw all of it.
    pub published: Duration,
}

impl Publisher {
    /// On maps that have been adopted.
    pub fn new(
        maps: Maps,
        mirror: Mirror,
        kept: StateFile,
        pins: &Pins,
        seed: u64,
        announce: bool,
    ) -> Publisher {
        let view = View { seed_hash: seed_hash(seed), ..View::default() };
        Publisher {
            model: Model::default(),
            view,
            problems: Vec::new(),
            device_problem: None,
            health_check_problems: Vec::new(),
            proxy_neigh: ProxyNeigh::adopt(&maps),
            announce,
            source_guard: SourceGuard::adopt(&maps),
            maps,
            mirror,
            kept,
            state_file: Retried::new(pins.kept()),
            view_file: Retried::new(pins.view()),
            tuning: Tuning { seed, hz: clock::hz(), tick_shift: clock::tick_shift(clock::hz()) },
            node: NodeFacts::default(),
            port_conflicts: None,
            shared: Shared::default(),
            failed: BTreeMap::new(),
            quiet: false,
            started: false,
            // An agent before us may not have come so far.
            socket_notifications: SOCKET_NOTIFICATIONS,
        }
    }

    /// Whom it has to know of to serve `model` and what is served: all their addresses.
    pub fn wants(&self, model: &Model) -> (BTreeSet<IpAddr>, BTreeSet<IpAddr>) {
        let endpoints =
            model.services.values().flat_map(|service| &service.ports).flat_map(|port| &port.endpoints);
        let backends = endpoints.map(|endpoint| endpoint.address).chain(self.mirror.addresses());
        let asked = |service: &Service| {
            let all = [&service.addresses, &service.external_ips, &service.load_balancer_ips];
            all.into_iter().flatten().copied().collect::<Vec<_>>()
        };
        let frontends = model.services.values().flat_map(|service| asked(service));
        (backends.collect(), frontends.chain(self.mirror.frontend_addresses()).collect())
    }

    /// Serves `model` instead of what is served.
    pub fn serve(&mut self, mut model: Model, routes: &routes::View) -> Result<Served> {
        let start = Instant::now();
        self.port_conflicts = None;
        if model.hash_seed.is_some_and(|seed| seed != self.tuning.seed) {
            warn!("hashSeed has changed: it takes effect when the agent is started again");
        }
        let mut addresses = self.kept.addresses.clone();
        addresses.assign(&mut model)?;
        if addresses != self.kept.addresses {
            // On the disk before it is in the maps: an address once given is never another's. A full disk keeps
            // nobody from being served.
            self.kept.addresses = addresses;
            self.state_file.changed();
            self.write_kept();
        }
        let changed = diff::changes(&self.model, &mut model);
        let old = std::mem::replace(&mut self.model, model);
        let compared = start.elapsed();
        let count = changed.len();
        for name in &changed {
            self.failed.remove(name);
        }
        self.quiet = count > LINES;
        let node = self.facts(routes);
        let moved = self.started && node != self.node;
        if !std::mem::replace(&mut self.started, true) {
            self.remove_unwanted();
            self.source_guard.update(&mut self.maps, routes);
        }
        // What goes, goes first: a frontend may move from one service to another.
        for name in &changed {
            if let Some(service) = old.services.get(name) {
                self.remove_lost(name, service);
            }
        }
        self.touch(&node);
        self.shared = shared(&self.model, &node);
        self.node = node;
        // What another service gets is not theirs first.
        for name in self.shared.losers.clone().into_iter().chain(changed) {
            let failed = self.failed.get(&name).cloned();
            self.publish(name, routes, failed.as_ref());
        }
        if moved {
            self.publish_all(routes);
        }
        self.refuse_other_ports();
        self.answer(routes);
        let published = start.elapsed() - compared;
        self.reclaim();
        if std::mem::take(&mut self.quiet) {
            info!("{count} services have changed");
            if let Some((name, why)) = self.failed.first_key_value() {
                error!("{} services not taken over, among them {name}: {why}", self.failed.len());
            }
        }
        self.view_changed();
        Ok(Served { compared, published })
    }

    /// What the node was known by, where the config does not say it.
    pub fn node(&self) -> NodeAddresses {
        self.kept.node
    }

    /// Has it known by the same after a restart.
    pub fn keep_node(&mut self, node: NodeAddresses) {
        if node != self.kept.node {
            self.kept.node = node;
            self.state_file.changed();
            self.write_kept();
        }
    }

    /// Writes given addresses, the node's and the seed down if they have changed.
    pub fn write_kept(&mut self) {
        let kept = &self.kept;
        self.state_file.write(|path| kept.write(path));
    }

    /// Tries again what failed.
    pub fn retry(&mut self, routes: &routes::View) {
        self.write_kept();
        if self.proxy_neigh.is_due() {
            self.answer(routes);
        }
        if self.source_guard.failed() {
            self.source_guard.update(&mut self.maps, routes);
        }
        if self.failed.is_empty() {
            return;
        }
        self.port_conflicts = None;
        let steps = plan::leftovers(&self.mirror);
        self.apply("leftovers", &steps);
        self.reclaim();
        let failed = std::mem::take(&mut self.failed);
        if failed.values().any(|why| why == NOT_WRITTEN) {
            self.remove_unwanted();
        }
        for (name, why) in &failed {
            self.publish(name.clone(), routes, Some(why));
        }
        self.refuse_other_ports();
        self.answer(routes);
        self.reclaim();
        if failed != self.failed {
            self.view_changed();
        }
    }

    /// Follows a change of the host: its addresses, its neighbours, the ways to backends.
    pub fn follow(&mut self, routes: &routes::View) {
        self.source_guard.update(&mut self.maps, routes);
        self.follow_node(routes);
        // A backend whose replies come from another zone by now is another one to the flows' rows.
        let has_moved = |address| {
            let (zone, backends) = (routes.next_hop(address).1, self.mirror.backends_at(address));
            backends.iter().any(|backend| !backend.word.state().is_removed() && backend.zone != zone)
        };
        if self.mirror.addresses().into_iter().any(has_moved) {
            self.publish_all(routes);
        }
        self.follow_ways(routes);
        // Who has gone is seen by the way that it had.
        self.follow_node(routes);
        self.answer(routes);
        self.reclaim();
    }

    /// Follows what this node is by now.
    fn follow_node(&mut self, routes: &routes::View) {
        let node = self.facts(routes);
        if node != self.node {
            self.touch(&node);
            self.shared = shared(&self.model, &node);
            self.node = node;
            self.publish_all(routes);
            self.refuse_other_ports();
            self.view_changed();
        }
    }

    /// This node now, by whose ways it is known, too, which backends have gone.
    fn facts(&self, routes: &routes::View) -> NodeFacts {
        let mut node = node::facts(&self.model, routes);
        let has_gone = |address: &IpAddr| {
            self.mirror.way_to(*address).is_some_and(|(_, row)| row.kind() == NextHopKind::Gone)
                && self.is_kept(*address)
        };
        node.silent.extend(self.mirror.addresses().into_iter().filter(has_gone));
        node
    }

    /// Follows the ways to backends.
    fn follow_ways(&mut self, routes: &routes::View) {
        let mut followed = 0;
        for address in self.mirror.addresses() {
            let old = self.mirror.way_to(address).map(|(_, row)| (row.kind(), row.ifindex, row.bridge));
            match plan::next_hop(&mut self.mirror, address, routes) {
                Ok(steps) if steps.is_empty() => {}
                Ok(steps) => {
                    let (row, _) = routes.next_hop(address);
                    // A MAC alone is nothing that people follow.
                    let differs = old != Some((row.kind(), row.ifindex, row.bridge));
                    followed += usize::from(differs);
                    if differs && followed <= LINES {
                        info!("backend {address}: reached by {}", next_hop(row.kind()));
                    }
                    self.apply(&address.to_string(), &steps);
                }
                Err(full) => error!("the way to {address} could not be changed: {full}"),
            }
        }
        if followed > LINES {
            info!("{} more backends are reached by other ways", followed - LINES);
        }
    }

    /// Tells the host's sockets of backends that no longer serve.
    pub fn tell_sockets(&mut self, sockets: &mut Sockets) {
        if self.socket_notifications > 0 {
            self.socket_notifications -= 1;
            sockets.move_on(&self.maps);
        }
    }

    /// The neighbours that the ways to backends need.
    pub fn wanted(&self, routes: &routes::View) -> WantedNeighbours {
        // Flows of removed backends find their way without us.
        WantedNeighbours::by(self.mirror.addresses().into_iter().map(|at| (at, self.is_kept(at))), routes)
    }

    /// Whether a backend at an address is of any service still.
    fn is_kept(&self, address: IpAddr) -> bool {
        self.mirror.backends_at(address).iter().any(|backend| !backend.word.state().is_removed())
    }

    /// A backend of that family behind an uplink, and a service that has it.
    pub fn remote(&self, family: Family) -> Option<(ServiceName, IpAddr)> {
        let is_remote = |address: IpAddr| {
            let way = self.mirror.way_to(address).filter(|_| Family::of(address) == family);
            way.is_some_and(|(_, row)| row.kind() == NextHopKind::Uplink)
        };
        let backends = self.model.services.values().flat_map(|service| {
            let endpoints = service.ports.iter().flat_map(|port| &port.endpoints);
            endpoints.map(|endpoint| (&service.name, endpoint.address))
        });
        backends.into_iter().find(|(_, address)| is_remote(*address)).map(|(name, at)| (name.clone(), at))
    }

    /// Has another look at the rows of addresses that are this node's or another's, or were.
    fn touch(&mut self, now: &NodeFacts) {
        let mut changed = Vec::new();
        for (now, before) in
            [(&now.own, &self.node.own), (&now.other_node_ports, &self.node.other_node_ports)]
        {
            if now != before {
                changed.extend(now.iter().chain(before));
            }
        }
        self.mirror.touch_addresses(changed);
    }

    /// Keeps the rows of addresses in step with their frontends.
    fn refuse_other_ports(&mut self) {
        let steps = plan::addresses(&mut self.mirror, &self.node.own, &self.node.other_node_ports);
        self.apply("service addresses", &steps);
    }

    /// Keeps what is answered for on the bridges and at the uplinks in step with frontends and devices.
    fn answer(&mut self, routes: &routes::View) {
        // Who asks for another node is answered by that.
        let others = &self.node.other_node_ports;
        let addresses =
            self.mirror.frontend_addresses().filter(|address| others.binary_search(address).is_err());
        let services = self.announce.then(|| self.mirror.services()).into_iter().flatten();
        let announced: BTreeSet<IpAddr> = services
            .flat_map(|(_, found)| &found.frontends)
            .filter(|frontend| matches!(frontend.kind, FrontendKind::LoadBalancer | FrontendKind::ExternalIp))
            .map(|frontend| frontend.at.address)
            .collect();
        let has = |service: &&Arc<Service>, address| {
            [&service.addresses, &service.external_ips, &service.load_balancer_ips]
                .iter()
                .any(|addresses| addresses.contains(&address))
        };
        let owner = |address| {
            let service = self.model.services.values().find(|service| has(service, address));
            service.map_or_else(|| "a node port".to_owned(), |service| format!("service {}", service.name))
        };
        if self.proxy_neigh.update(&mut self.maps, addresses, &announced, routes, owner) {
            self.view_file.changed();
        }
    }
}
