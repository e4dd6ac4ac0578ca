//! Single services: what they want is planned and carried out, and what could not be is kept for the next try.

use std::collections::HashSet;

use tracing::{error, info};

use super::{LINES, NOT_WRITTEN, Publisher, SOCKET_NOTIFICATIONS};
use crate::{
    agent::{port_conflicts::PortConflicts, routes},
    apply,
    compile::{Frontend, Wanted, compile},
    model::{Service, ServiceName},
    observe::{kind_name, state_name},
    plan::{self, Step},
};

/// How many rows of removed backends are freed at once when no other is left.
const RECYCLED: usize = 1024;

impl Publisher {
    /// What nobody asks for: served by an agent before us, or left by a removal that failed.
    pub(super) fn remove_unwanted(&mut self) {
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
    pub(super) fn remove_lost(&mut self, name: &ServiceName, old: &Service) {
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
            let steps = plan::lost(&self.mirror, &wanted, &now);
            let is_removal = steps.iter().any(|step| matches!(step, Step::RetireService { .. }));
            if !self.apply(&name.to_string(), &steps) {
                self.failed.insert(name.clone(), NOT_WRITTEN.to_owned());
            } else if is_removal && !self.quiet {
                info!("service {name} {}: removed", show(&wanted.frontends[0].at));
            }
        }
    }

    /// Publishes whatever of the model is not yet as this node should have it.
    pub(super) fn publish_all(&mut self, routes: &routes::View) {
        // What another service gets is not theirs first.
        let losers = self.shared.losers.iter();
        let names: Vec<ServiceName> = losers.chain(self.model.services.keys()).cloned().collect();
        for name in names {
            let failed = self.failed.get(&name).cloned();
            self.publish(name, routes, failed.as_ref());
        }
    }

    /// Publishes a service of the model; `failed` is why that could not be done the last time.
    pub(super) fn publish(&mut self, name: ServiceName, routes: &routes::View, failed: Option<&String>) {
        let Some(service) = self.model.services.get(&name).cloned() else { return };
        for mut wanted in compile(&service, &self.node) {
            for why in self.refuse_taken(&name, &mut wanted) {
                if !self.quiet && failed != Some(&why) {
                    error!("service {name}: {why}");
                }
                self.failed.insert(name.clone(), why);
            }
            if wanted.frontends.is_empty() {
                continue;
            }
            match self.plan(&wanted, routes) {
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

    /// Takes out the frontends of the host that another service has, or at which a process listens; why, in words.
    fn refuse_taken(&mut self, name: &ServiceName, wanted: &mut Wanted) -> Vec<String> {
        let mut said = Vec::new();
        wanted.frontends.retain(|frontend| {
            if !self.node.own.contains(&frontend.at.address) {
                return true;
            }
            if let Some(owner) = self.shared.other_owner(&frontend.at, name) {
                said.push(format!(
                    "{} {} not served for it: it belongs to service {owner}; give one of them another port",
                    kind_name(frontend.kind),
                    show(&frontend.at)
                ));
                return false;
            }
            let port_conflicts = self.port_conflicts.get_or_insert_with(PortConflicts::now);
            let Some(holder) = port_conflicts.holder(&frontend.at) else { return true };
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
    fn plan(&mut self, wanted: &Wanted, routes: &routes::View) -> Result<Vec<Step>, plan::Full> {
        match plan::service(&mut self.mirror, wanted, routes, self.tuning) {
            Ok(steps) => return Ok(steps),
            Err(_) => self.reclaim(),
        }
        match plan::service(&mut self.mirror, wanted, routes, self.tuning) {
            Ok(steps) => return Ok(steps),
            Err(full) if full.map != "backends" => return Err(full),
            Err(_) => {
                let ipv6 = wanted.frontends[0].at.address.is_ipv6();
                let steps = plan::recycle(&mut self.mirror, ipv6, RECYCLED.max(wanted.backends.len()));
                self.apply("recycling", &steps);
                self.reclaim();
            }
        }
        plan::service(&mut self.mirror, wanted, routes, self.tuning)
    }

    /// Carries steps out; whether all of them were.
    pub(super) fn apply(&mut self, what: &str, steps: &[Step]) -> bool {
        if steps.iter().any(Step::loses_backend) {
            self.socket_notifications = SOCKET_NOTIFICATIONS;
        }
        match apply::apply(&mut self.maps, &mut self.mirror, steps) {
            Ok(()) => true,
            Err(error) => {
                error!("{what}: {error}; trying again");
                false
            }
        }
    }

    pub(super) fn reclaim(&mut self) {
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
