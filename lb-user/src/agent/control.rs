//! The control plane's state: the model that is served, the mirror of the maps, and what is to be
//! tried again.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use lb_common::abi::{FrontendKind, ReachKind};
use tracing::{debug, error, info, warn};

use super::{
    answers::Answers, homes::Homes, kept::Kept, listening::Listening, next_hops::Sought, node,
    programs::seed_hash, sockets::Sockets, ways,
};
use crate::{
    apply,
    compile::{Frontend, NodeFacts, Wanted, WantedFrontend, compile},
    files::Retried,
    maps::{Maps, Pins},
    model::{Family, Model, Service, ServiceName, diff},
    observe::{
        SILENT,
        backends::way,
        clock, kind_name, state_name,
        view::{BackendView, ServiceView, View},
    },
    plan::{self, Mirror, Step, Tuning, Ways as _},
};

/// How many rows of removed backends are freed at once when no other is left.
const RECYCLED: usize = 1024;

/// Of so many changes at once each has a line in the log; of more, there is one for all.
const LINES: usize = 100;

/// How often the host's sockets are told of backends that no longer serve: at once, and again for one that
/// was connecting in that moment.
const TELLINGS: u32 = 2;

const NOT_WRITTEN: &str = "not written to the maps yet; trying again";

/// See the module.
pub struct Control {
    /// What is served.
    pub model: Model,
    /// What the command line reads.
    pub view: View,
    /// What is wrong with the config.
    pub problems: Vec<String>,
    /// Why not every device has its programs, if so.
    pub device_problem: Option<String>,
    maps: Maps,
    mirror: Mirror,
    answers: Answers,
    /// `--announce`.
    announce: bool,
    homes: Homes,
    kept: Kept,
    /// `kept.json`.
    pub kept_file: Retried,
    /// `view.json`.
    pub view_file: Retried,
    tuning: Tuning,
    /// This node, as everything that is served was compiled for.
    node: NodeFacts,
    /// Who listens on the host, as of this pass; looked up when first asked for.
    listening: Option<Listening>,
    /// Services whose last change was not fully applied, and why.
    failed: BTreeMap<ServiceName, String>,
    /// No lines about single services now.
    quiet: bool,
    started: bool,
    /// How often the host's sockets are still to be told of backends that no longer serve.
    tellings: u32,
}

/// How long it took to serve another model.
pub struct Served {
    /// To find what has changed.
    pub compared: Duration,
    /// Until packets saw all of it.
    pub published: Duration,
}

impl Control {
    /// On maps that have been adopted.
    pub fn new(maps: Maps, mirror: Mirror, kept: Kept, pins: &Pins, seed: u64, announce: bool) -> Control {
        let view = View { seed_hash: seed_hash(seed), ..View::default() };
        Control {
            model: Model::default(),
            view,
            problems: Vec::new(),
            device_problem: None,
            answers: Answers::adopt(&maps),
            announce,
            homes: Homes::adopt(&maps),
            maps,
            mirror,
            kept,
            kept_file: Retried::new(pins.kept()),
            view_file: Retried::new(pins.view()),
            tuning: Tuning { seed, hz: clock::hz(), tick_shift: clock::tick_shift(clock::hz()) },
            node: NodeFacts::default(),
            listening: None,
            failed: BTreeMap::new(),
            quiet: false,
            started: false,
            // An agent before us may not have come so far.
            tellings: TELLINGS,
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
    pub fn serve(&mut self, mut model: Model, ways: &ways::View) -> Result<Served> {
        let start = Instant::now();
        self.listening = None;
        if model.hash_seed.is_some_and(|seed| seed != self.tuning.seed) {
            warn!("hashSeed has changed: it takes effect when the agent is started again");
        }
        let mut addresses = self.kept.addresses.clone();
        addresses.assign(&mut model)?;
        if addresses != self.kept.addresses {
            // On the disk before it is in the maps: an address once given is never another's. A full disk keeps
            // nobody from being served.
            self.kept.addresses = addresses;
            self.kept_file.changed();
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
        let node = node::facts(&self.model, ways);
        let moved = self.started && node != self.node;
        if !std::mem::replace(&mut self.started, true) {
            self.remove_unwanted();
            self.homes.update(&mut self.maps, ways);
        }
        // What goes, goes first: a frontend may move from one service to another.
        for name in &changed {
            if let Some(service) = old.services.get(name) {
                self.remove_lost(name, service);
            }
        }
        self.touch(&node);
        self.node = node;
        for name in changed {
            self.publish(name, ways, None);
        }
        if moved {
            self.publish_all(ways);
        }
        self.refuse_other_ports();
        self.answer(ways);
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

    /// Writes given addresses and the seed down if they have changed.
    pub fn write_kept(&mut self) {
        let kept = &self.kept;
        self.kept_file.write(|path| kept.write(path));
    }

    /// Tries again what failed.
    pub fn retry(&mut self, ways: &ways::View) {
        self.write_kept();
        if self.answers.failed() {
            self.answer(ways);
        }
        if self.homes.failed() {
            self.homes.update(&mut self.maps, ways);
        }
        if self.failed.is_empty() {
            return;
        }
        self.listening = None;
        let steps = plan::leftovers(&self.mirror);
        self.apply("leftovers", &steps);
        self.reclaim();
        let failed = std::mem::take(&mut self.failed);
        if failed.values().any(|why| why == NOT_WRITTEN) {
            self.remove_unwanted();
        }
        for (name, why) in &failed {
            self.publish(name.clone(), ways, Some(why));
        }
        self.refuse_other_ports();
        self.answer(ways);
        self.reclaim();
        if failed != self.failed {
            self.view_changed();
        }
    }

    /// Follows a change of the host: its addresses, its neighbours, the ways to backends.
    pub fn follow(&mut self, ways: &ways::View) {
        self.homes.update(&mut self.maps, ways);
        let node = node::facts(&self.model, ways);
        if node != self.node {
            self.touch(&node);
            self.node = node;
            self.publish_all(ways);
            self.refuse_other_ports();
            self.view_changed();
        }
        let mut followed = 0;
        for address in self.mirror.addresses() {
            let old = self.mirror.way_to(address).map(|(_, row)| (row.kind(), row.ifindex, row.bridge));
            match plan::way(&mut self.mirror, address, ways) {
                Ok(steps) if steps.is_empty() => {}
                Ok(steps) => {
                    let (row, _) = ways.way(address);
                    // A MAC alone is nothing that people follow.
                    let differs = old != Some((row.kind(), row.ifindex, row.bridge));
                    followed += usize::from(differs);
                    if differs && followed <= LINES {
                        info!("backend {address}: reached by {}", way(row.kind()));
                    }
                    self.apply(&address.to_string(), &steps);
                }
                Err(full) => error!("the way to {address} could not be changed: {full}"),
            }
        }
        if followed > LINES {
            info!("{} more backends are reached by other ways", followed - LINES);
        }
        self.answer(ways);
        self.reclaim();
    }

    /// Tells the host's sockets of backends that no longer serve.
    pub fn tell_sockets(&mut self, sockets: &mut Sockets) {
        if self.tellings > 0 {
            self.tellings -= 1;
            sockets.move_on(&self.maps);
        }
    }

    /// The neighbours that the ways to backends need.
    pub fn sought(&self, ways: &ways::View) -> Sought {
        // Flows of removed backends find their way without us.
        let is_kept =
            |at: IpAddr| self.mirror.backends_at(at).iter().any(|backend| !backend.word.state().is_removed());
        Sought::by(self.mirror.addresses().into_iter().map(|at| (at, is_kept(at))), ways)
    }

    /// A backend of that family behind an uplink, and a service that has it.
    pub fn remote(&self, family: Family) -> Option<(ServiceName, IpAddr)> {
        let is_remote = |address: IpAddr| {
            let way = self.mirror.way_to(address).filter(|_| Family::of(address) == family);
            way.is_some_and(|(_, row)| row.kind() == ReachKind::Uplink)
        };
        let backends = self.model.services.values().flat_map(|service| {
            let endpoints = service.ports.iter().flat_map(|port| &port.endpoints);
            endpoints.map(|endpoint| (&service.name, endpoint.address))
        });
        backends.into_iter().find(|(_, address)| is_remote(*address)).map(|(name, at)| (name.clone(), at))
    }

    /// Notes why not every device has its programs, or that each has; said once.
    pub fn devices_are(&mut self, problem: Option<String>) {
        if problem == self.device_problem {
            return;
        }
        match &problem {
            Some(problem) => error!("{problem}; trying again"),
            None => info!("every device has its programs"),
        }
        self.device_problem = problem;
        self.view_changed();
    }

    /// Notes that the view must be written.
    pub fn view_changed(&mut self) {
        self.view_file.changed();
    }

    /// Writes the view if something has changed.
    pub fn write_view(&mut self) {
        if !self.view_file.is_due() {
            return;
        }
        let start = Instant::now();
        let failed = self.failed.iter().map(|(name, why)| format!("service {name}: {why}"));
        let problems = self.problems.iter().chain(&self.device_problem).cloned();
        self.view.problems = problems.chain(failed).chain(self.answers.problems()).collect();
        self.view.lifetimes = self.model.lifetimes;
        self.view.snat_ports = self.model.snat_ports;
        self.view.services =
            self.model.services.values().flat_map(|service| self.service_views(service)).collect();
        let view = &self.view;
        self.view_file.write(|path| view.write(path));
        // The model has it all, in less memory.
        self.view.services = Vec::new();
        debug!("view written in {:?}", start.elapsed());
    }

    fn service_views(&self, service: &Arc<Service>) -> Vec<ServiceView> {
        let view = |wanted: &Wanted, frontend: &WantedFrontend| {
            Some(ServiceView {
                id: self.mirror.service_of(&frontend.at)?,
                namespace: service.name.namespace.clone(),
                name: service.name.name.clone(),
                port_name: wanted.port_name.clone(),
                kind: kind_name(frontend.kind).to_owned(),
                address: frontend.at.address,
                port: frontend.at.port,
                protocol: frontend.at.protocol.to_string(),
                backends: wanted
                    .backends
                    .iter()
                    .map(|backend| BackendView {
                        address: backend.address,
                        port: backend.port,
                        weight: backend.weight,
                        state: match self.node.silent.contains(&backend.address) {
                            true => SILENT,
                            false => state_name(backend.state),
                        }
                        .to_owned(),
                        node: backend.node,
                    })
                    .collect(),
            })
        };
        compile(service, &self.node)
            .iter()
            .flat_map(|wanted| wanted.frontends.iter().filter_map(|frontend| view(wanted, frontend)))
            // What is called at other nodes is theirs to show.
            .filter(|shown| self.node.other_node_ports.binary_search(&shown.address).is_err())
            .collect()
    }

    /// What nobody asks for: served by an agent before us, or left by a removal that failed.
    fn remove_unwanted(&mut self) {
        let wanted: HashSet<Frontend> = self
            .model
            .services
            .values()
            .flat_map(|service| compile(service, &self.node))
            .flat_map(|wanted| wanted.frontends)
            .map(|frontend| frontend.at)
            .collect();
        let unwanted: Vec<u32> = self
            .mirror
            .services()
            .filter(|(_, found)| !found.frontends.iter().any(|frontend| wanted.contains(&frontend.at)))
            .map(|(id, _)| id)
            .collect();
        let (count, quiet) = (unwanted.len(), unwanted.len() > LINES);
        if quiet {
            info!("{count} services removed that nobody asks for");
        }
        for id in unwanted {
            let frontends = self.mirror.found(id).map(|found| found.frontends.clone()).unwrap_or_default();
            let steps = plan::removal(&self.mirror, id);
            if !self.apply("unwanted", &steps) {
                let name = ServiceName { namespace: String::new(), name: format!("row {id}") };
                self.failed.insert(name, NOT_WRITTEN.to_owned());
            } else if !quiet {
                for frontend in frontends {
                    info!("{} removed: no service asks for it", show(&frontend.at));
                }
            }
        }
    }

    /// Takes away the ports and addresses that a service had and has no more.
    fn remove_lost(&mut self, name: &ServiceName, old: &Service) {
        let now: HashSet<Frontend> = self
            .model
            .services
            .get(name)
            .into_iter()
            .flat_map(|service| compile(service, &self.node))
            .flat_map(|wanted| wanted.frontends)
            .map(|frontend| frontend.at)
            .collect();
        for wanted in compile(old, &self.node) {
            if wanted.frontends.iter().any(|frontend| now.contains(&frontend.at)) {
                continue;
            }
            let Some(id) = self.mirror.service_of(&wanted.frontends[0].at) else { continue };
            let steps = plan::removal(&self.mirror, id);
            if !self.apply(&name.to_string(), &steps) {
                self.failed.insert(name.clone(), NOT_WRITTEN.to_owned());
            } else if !self.quiet {
                info!("service {name} {}: removed", show(&wanted.frontends[0].at));
            }
        }
    }

    /// Publishes whatever of the model is not yet as this node should have it.
    fn publish_all(&mut self, ways: &ways::View) {
        let names: Vec<ServiceName> = self.model.services.keys().cloned().collect();
        for name in names {
            self.publish(name, ways, None);
        }
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
    fn answer(&mut self, ways: &ways::View) {
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
        if self.answers.update(&mut self.maps, addresses, &announced, ways, owner) {
            self.view_file.changed();
        }
    }

    /// Publishes a service of the model; `failed` is why that could not be done the last time.
    fn publish(&mut self, name: ServiceName, ways: &ways::View, failed: Option<&String>) {
        let Some(service) = self.model.services.get(&name).cloned() else { return };
        for mut wanted in compile(&service, &self.node) {
            for why in self.refuse_taken(&mut wanted) {
                if !self.quiet && failed != Some(&why) {
                    error!("service {name}: {why}");
                }
                self.failed.insert(name.clone(), why);
            }
            if wanted.frontends.is_empty() {
                continue;
            }
            match self.plan(&wanted, ways) {
                Ok(steps) if steps.is_empty() => {}
                Ok(steps) => {
                    if !self.apply(&name.to_string(), &steps) {
                        self.failed.insert(name.clone(), NOT_WRITTEN.to_owned());
                    } else if !self.quiet {
                        let log = describe(&wanted, &steps);
                        info!("service {name} {}: {log}", show(&wanted.frontends[0].at));
                    }
                }
                Err(full) => {
                    let why = full.to_string();
                    // Said once, not with every try.
                    if !self.quiet && failed != Some(&why) {
                        error!("service {name} {} not taken over: {why}", show(&wanted.frontends[0].at));
                    }
                    self.failed.insert(name.clone(), why);
                }
            }
        }
    }

    /// Takes out the frontends at which a process of the host listens; why, in words.
    fn refuse_taken(&mut self, wanted: &mut Wanted) -> Vec<String> {
        let mut said = Vec::new();
        wanted.frontends.retain(|frontend| {
            if !self.node.own.contains(&frontend.at.address) {
                return true;
            }
            let listening = self.listening.get_or_insert_with(Listening::now);
            let Some(holder) = listening.holder(&frontend.at) else { return true };
            said.push(format!(
                "{} {} not served: {holder} listens there; stop it, or take another port",
                kind_name(frontend.kind),
                show(&frontend.at)
            ));
            false
        });
        said
    }

    /// Plans one service port; where a map is full, what waits for readers or has long been removed
    /// is freed first.
    fn plan(&mut self, wanted: &Wanted, ways: &ways::View) -> Result<Vec<Step>, plan::Full> {
        match plan::service(&mut self.mirror, wanted, ways, self.tuning) {
            Ok(steps) => return Ok(steps),
            Err(_) => self.reclaim(),
        }
        match plan::service(&mut self.mirror, wanted, ways, self.tuning) {
            Ok(steps) => return Ok(steps),
            Err(full) if full.map != "backends" => return Err(full),
            Err(_) => {
                let ipv6 = wanted.frontends[0].at.address.is_ipv6();
                let steps = plan::recycle(&mut self.mirror, ipv6, RECYCLED.max(wanted.backends.len()));
                self.apply("recycling", &steps);
                self.reclaim();
            }
        }
        plan::service(&mut self.mirror, wanted, ways, self.tuning)
    }

    /// Carries steps out; whether all of them were.
    fn apply(&mut self, what: &str, steps: &[Step]) -> bool {
        if steps.iter().any(Step::loses_backend) {
            self.tellings = TELLINGS;
        }
        match apply::apply(&mut self.maps, &mut self.mirror, steps) {
            Ok(()) => true,
            Err(error) => {
                error!("{what}: {error}; trying again");
                false
            }
        }
    }

    fn reclaim(&mut self) {
        if let Err(error) = apply::reclaim(&mut self.maps, &mut self.mirror) {
            error!("waiting for readers of the maps (membarrier): {error}");
        }
    }
}

fn show(frontend: &Frontend) -> String {
    format!("{} {}", frontend.protocol, std::net::SocketAddr::new(frontend.address, frontend.port))
}

/// What a change does, in the words of a log.
fn describe(wanted: &Wanted, steps: &[Step]) -> String {
    let active = wanted.backends.iter().filter(|backend| backend.state.is_active()).count();
    let mut changes = Vec::new();
    for step in steps {
        match step {
            Step::Backend { backend, .. } => {
                changes.push(format!("+{}", std::net::SocketAddr::new(backend.address, backend.port)));
            }
            Step::BackendWord { address, word, .. } => {
                changes.push(format!("{address} {}", state_name(word.state())));
            }
            _ => {}
        }
    }
    const SHOWN: usize = 8;
    if changes.len() > SHOWN {
        let more = changes.len() - SHOWN;
        changes.truncate(SHOWN);
        changes.push(format!("and {more} more"));
    }
    let changes = if changes.is_empty() { String::new() } else { format!(" ({})", changes.join(", ")) };
    format!("{active} of {} backends take flows{changes}", wanted.backends.len())
}
