//! What the command line reads of what is served.

use std::{net::IpAddr, sync::Arc, time::Instant};

use tracing::{debug, error, info};

use super::Publisher;
use crate::{
    agent::health_checks::HealthCheck,
    compile::{Wanted, WantedFrontend, compile, ready_here},
    model::{NodePortAddress, Service},
    observe::{
        SILENT, kind_name, state_name,
        view::{BackendView, ServiceView},
    },
};

impl Publisher {
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

    /// What services say about their endpoints on this node, and at which addresses; none: at all.
    pub fn health_checks(&self) -> (Vec<HealthCheck>, &[IpAddr]) {
        let check = |service: &Arc<Service>| {
            let (port, endpoints) = (service.health_check?, ready_here(service, &self.node));
            Some(HealthCheck { service: service.name.clone(), port, endpoints })
        };
        let everywhere = self.model.node_port_addresses.contains(&NodePortAddress::Primary);
        let addresses = if everywhere { &[] } else { &self.node.node_ports[..] };
        (self.model.services.values().filter_map(check).collect(), addresses)
    }

    /// Notes at which ports nobody is told of a service's health.
    pub fn health_checks_are(&mut self, problems: Vec<String>) {
        if problems != self.health_check_problems {
            self.health_check_problems = problems;
            self.view_changed();
        }
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
        let problems =
            self.problems.iter().chain(&self.device_problem).chain(&self.health_check_problems).cloned();
        self.view.problems = problems.chain(failed).chain(self.proxy_neigh.problems()).collect();
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
}
