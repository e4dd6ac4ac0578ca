//! The control plane's state: the model that is served, the mirror of the maps, and what is to be
//! tried again.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
    sync::Arc,
};

use anyhow::Result;
use lb_common::abi::BackendState;
use tracing::{error, info, warn};

use super::{kept::Kept, ways};
use crate::{
    apply,
    compile::{Frontend, Wanted, compile},
    maps::{Maps, Pins},
    model::{Model, Service, ServiceName, diff},
    netlink::Location,
    observe::{
        backends::way,
        state_name,
        view::{BackendView, ServiceView, View},
    },
    plan::{self, Mirror, Step, Ways as _},
};

/// How many rows of removed backends are freed at once when no other is left.
const RECYCLED: usize = 1024;

/// See the module.
pub struct Control {
    /// What is served.
    pub model: Model,
    /// What the command line reads.
    pub view: View,
    maps: Maps,
    mirror: Mirror,
    kept: Kept,
    pins: Pins,
    seed: u64,
    /// Services whose last change was not fully applied.
    failed: BTreeSet<ServiceName>,
    started: bool,
    view_changed: bool,
}

impl Control {
    /// On maps that have been adopted.
    pub fn new(maps: Maps, mirror: Mirror, kept: Kept, pins: Pins, seed: u64) -> Control {
        let view = View { hash_seed: format!("{seed:016x}"), ..View::default() };
        Control {
            model: Model::default(),
            view,
            maps,
            mirror,
            kept,
            pins,
            seed,
            failed: BTreeSet::new(),
            started: false,
            view_changed: true,
        }
    }

    /// Serves `model` instead of what is served.
    pub fn serve(&mut self, mut model: Model, ways: &ways::View) -> Result<()> {
        if model.hash_seed.is_some_and(|seed| seed != self.seed) {
            warn!("hashSeed has changed: it takes effect when the agent is started again");
        }
        let mut addresses = self.kept.addresses.clone();
        addresses.assign(&mut model)?;
        if addresses != self.kept.addresses {
            // On the disk before it is in the maps: an address once given is never another's.
            self.kept.addresses = addresses;
            self.kept.write(&self.pins.kept())?;
        }
        let changed = diff::changes(&self.model, &mut model);
        let old = std::mem::replace(&mut self.model, model);
        if !std::mem::replace(&mut self.started, true) {
            self.remove_unwanted();
        }
        // What goes, goes first: a frontend may move from one service to another.
        for name in &changed {
            if let Some(service) = old.services.get(name) {
                self.remove_lost(name, service);
            }
        }
        for name in changed {
            self.publish(name, ways);
        }
        self.reclaim();
        self.view_changed = true;
        Ok(())
    }

    /// Tries again what failed.
    pub fn retry(&mut self, ways: &ways::View) {
        if self.failed.is_empty() {
            return;
        }
        let steps = plan::leftovers(&self.mirror);
        self.apply("leftovers", &steps);
        self.reclaim();
        for name in std::mem::take(&mut self.failed) {
            self.publish(name, ways);
        }
        self.reclaim();
    }

    /// Follows a change of the ways to backends.
    pub fn follow(&mut self, ways: &ways::View) {
        for address in self.mirror.addresses() {
            match plan::way(&mut self.mirror, address, ways) {
                Ok(steps) if steps.is_empty() => {}
                Ok(steps) => {
                    let (row, _) = ways.way(address);
                    info!("backend {address}: reached by {}", way(row.kind()));
                    self.apply(&address.to_string(), &steps);
                }
                Err(full) => error!("the way to {address} could not be changed: {full}"),
            }
        }
        self.reclaim();
    }

    /// Backends whose neighbour is not known, with their bridges.
    pub fn unresolved(&self, ways: &ways::View) -> Vec<(u32, IpAddr)> {
        let unknown = |address| match ways.world.locate(address, ways.bridges) {
            Location::BridgeUnknown { bridge, .. } => Some((bridge, address)),
            _ => None,
        };
        self.mirror.addresses().into_iter().filter_map(unknown).collect()
    }

    /// Notes that the view must be written.
    pub fn view_changed(&mut self) {
        self.view_changed = true;
    }

    /// Writes the view if something has changed.
    pub fn write_view(&mut self) {
        if !std::mem::take(&mut self.view_changed) {
            return;
        }
        self.view.services =
            self.model.services.values().flat_map(|service| self.service_views(service)).collect();
        if let Err(error) = self.view.write(&self.pins.view()) {
            warn!("writing {}: {error}", self.pins.view().display());
        }
    }

    fn service_views(&self, service: &Arc<Service>) -> Vec<ServiceView> {
        let view = |wanted: &Wanted, frontend: &Frontend| {
            Some(ServiceView {
                id: self.mirror.service_of(frontend)?,
                namespace: service.name.namespace.clone(),
                name: service.name.name.clone(),
                port_name: wanted.port_name.clone(),
                kind: "ClusterIP".to_owned(),
                address: frontend.address,
                port: frontend.port,
                protocol: frontend.protocol.to_string(),
                backends: wanted
                    .backends
                    .iter()
                    .map(|backend| BackendView {
                        address: backend.address,
                        port: backend.port,
                        weight: backend.weight,
                        state: state_name(backend.state).to_owned(),
                    })
                    .collect(),
            })
        };
        compile(service)
            .iter()
            .flat_map(|wanted| wanted.frontends.iter().filter_map(|frontend| view(wanted, frontend)))
            .collect()
    }

    /// After adoption: what an agent before us served and nobody asks for now.
    fn remove_unwanted(&mut self) {
        let wanted: HashSet<Frontend> = self
            .model
            .services
            .values()
            .flat_map(|service| compile(service))
            .flat_map(|wanted| wanted.frontends)
            .collect();
        let unwanted: Vec<u32> = self
            .mirror
            .services()
            .filter(|(_, found)| !found.frontends.iter().any(|frontend| wanted.contains(frontend)))
            .map(|(id, _)| id)
            .collect();
        for id in unwanted {
            let frontends = self.mirror.found(id).map(|found| found.frontends.clone()).unwrap_or_default();
            let steps = plan::removal(&self.mirror, id);
            if self.apply("unwanted", &steps) {
                for frontend in frontends {
                    info!("{} removed: no service asks for it", show(&frontend));
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
            .flat_map(|service| compile(service))
            .flat_map(|wanted| wanted.frontends)
            .collect();
        for wanted in compile(old) {
            if wanted.frontends.iter().any(|frontend| now.contains(frontend)) {
                continue;
            }
            let Some(id) = self.mirror.service_of(&wanted.frontends[0]) else { continue };
            let steps = plan::removal(&self.mirror, id);
            if self.apply(&name.to_string(), &steps) {
                info!("service {name} {}: removed", show(&wanted.frontends[0]));
            } else {
                self.failed.insert(name.clone());
            }
        }
    }

    /// Publishes a service of the model.
    fn publish(&mut self, name: ServiceName, ways: &ways::View) {
        let Some(service) = self.model.services.get(&name).cloned() else { return };
        for wanted in compile(&service) {
            match self.plan(&wanted, ways) {
                Ok(steps) if steps.is_empty() => {}
                Ok(steps) => {
                    let log = describe(&wanted, &steps);
                    if self.apply(&name.to_string(), &steps) {
                        info!("service {name} {}: {log}", show(&wanted.frontends[0]));
                    } else {
                        self.failed.insert(name.clone());
                    }
                }
                Err(full) => {
                    error!("service {name} {} not taken over: {full}", show(&wanted.frontends[0]));
                    self.view.problems.push(format!("service {name}: {full}"));
                    self.failed.insert(name.clone());
                }
            }
        }
    }

    /// Plans one service port; where a map is full, what waits for readers or has long been removed
    /// is freed first.
    fn plan(&mut self, wanted: &Wanted, ways: &ways::View) -> Result<Vec<Step>, plan::Full> {
        match plan::service(&mut self.mirror, wanted, ways, self.seed) {
            Ok(steps) => return Ok(steps),
            Err(_) => self.reclaim(),
        }
        match plan::service(&mut self.mirror, wanted, ways, self.seed) {
            Ok(steps) => return Ok(steps),
            Err(full) if full.map != "backends" => return Err(full),
            Err(_) => {
                let ipv6 = wanted.frontends[0].address.is_ipv6();
                let steps = plan::recycle(&mut self.mirror, ipv6, RECYCLED.max(wanted.backends.len()));
                self.apply("recycling", &steps);
                self.reclaim();
            }
        }
        plan::service(&mut self.mirror, wanted, ways, self.seed)
    }

    /// Carries steps out; whether all of them were.
    fn apply(&mut self, what: &str, steps: &[Step]) -> bool {
        self.view_changed = true;
        match apply::apply(&mut self.maps, &mut self.mirror, steps) {
            Ok(()) => true,
            Err(error) => {
                error!("{what}: {error}; trying again");
                false
            }
        }
    }

    fn reclaim(&mut self) {
        if let Err(error) = apply::reclaim(&mut self.mirror) {
            error!("waiting for readers of the maps (membarrier): {error}");
        }
    }
}

fn show(frontend: &Frontend) -> String {
    format!("{} {}", frontend.protocol, std::net::SocketAddr::new(frontend.address, frontend.port))
}

/// What a change does, in the words of a log.
fn describe(wanted: &Wanted, steps: &[Step]) -> String {
    let active = wanted.backends.iter().filter(|backend| backend.state == BackendState::Active).count();
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
    format!("{active} of {} backends take flows ({})", wanted.backends.len(), changes.join(", "))
}
