//! Which backends a client could get, and why it could not get the others.

use std::{collections::BTreeSet, net::SocketAddr};

use lb_common::{
    abi::{BackendState, FrontendKind, Scope},
    family::{Family, V4, V6},
};

use super::{
    super::{Other, Step, served::Served},
    Called, listed,
};
use crate::{
    compile::NodeFacts,
    model::{Distribution, Endpoint},
};

/// The backends of a service port, seen by one client.
#[derive(Default)]
pub struct Candidates {
    /// Those it could get.
    pub sockets: Vec<SocketAddr>,
    /// The others.
    pub others: Vec<Other>,
    /// The former with where they are.
    lines: Vec<String>,
    /// None is ready.
    fallback: bool,
}

impl Candidates {
    /// What the slots say that this client's flows are spread over, and what the model says of the rest.
    pub fn of(served: &Served, called: &Called<'_>) -> Candidates {
        let chosen = chosen(served, called);
        let ipv6 = called.wanted.frontends[0].at.address.is_ipv6();
        let endpoints = called.port.endpoints.iter().filter(|endpoint| endpoint.address.is_ipv6() == ipv6);
        let (mut lines, mut others, mut fallback) = (Vec::new(), Vec::new(), !chosen.is_empty());
        for endpoint in endpoints {
            let socket = SocketAddr::new(endpoint.address, endpoint.port);
            if chosen.contains(&socket) {
                lines.push(format!("{socket} {}", place(called, endpoint)));
                fallback &= !endpoint.conditions.ready;
            } else {
                others.push(Other {
                    backend: socket.to_string(),
                    why: why_not(called, endpoint, &served.node),
                });
            }
        }
        Candidates { sockets: chosen.into_iter().collect(), others, lines, fallback }
    }

    /// All of it in words.
    pub fn step(&self) -> Step {
        let (count, all) = (self.sockets.len(), self.sockets.len() + self.others.len());
        let text = match (count, all) {
            (_, 0) => "the service has none".to_owned(),
            (0, _) => format!("this client could get none of {all}"),
            _ if self.fallback => format!(
                "this client could get {count} of {all}: none is ready, so those that serve while they \
                 terminate are used"
            ),
            _ => format!("this client could get {count} of {all}"),
        };
        let others: Vec<String> =
            self.others.iter().map(|other| format!("{} {}", other.backend, other.why)).collect();
        let items = listed("+ ", &self.lines).chain(listed("- ", &others)).collect();
        Step { topic: "backends", text, items }
    }
}

/// The backends in the slots of the client's scope.
fn chosen(served: &Served, called: &Called<'_>) -> BTreeSet<SocketAddr> {
    let ipv6 = called.wanted.frontends[0].at.address.is_ipv6();
    if ipv6 { of_family::<V6>(served, called) } else { of_family::<V4>(served, called) }
}

fn of_family<F: Family>(served: &Served, called: &Called<'_>) -> BTreeSet<SocketAddr> {
    let found = served.maps.backends::<F>(called.set.service, called.scope).unwrap_or_default();
    found.into_keys().filter_map(|id| F::of(&served.maps).socket(id)).collect()
}

/// What an endpoint was compiled to.
fn state(called: &Called<'_>, endpoint: &Endpoint) -> Option<BackendState> {
    let same = |backend: &&crate::compile::WantedBackend| {
        (backend.address, backend.port) == (endpoint.address, endpoint.port)
    };
    called.wanted.backends.iter().find(same).map(|backend| backend.state)
}

/// Where a backend is, and its weight if it has one.
fn place(called: &Called<'_>, endpoint: &Endpoint) -> String {
    let place = endpoint.place.as_deref();
    let node = place.and_then(|place| place.node.as_ref());
    let here = state(called, endpoint).is_some_and(|state| state.takes(Scope::Local));
    let mut words = match node {
        _ if here => "on this node".to_owned(),
        Some(node) => format!("on node {node}"),
        None => "not on this node".to_owned(),
    };
    if let Some(zone) = place.and_then(|place| place.zone.as_ref()) {
        words += &format!(", zone {zone}");
    }
    if endpoint.weight != 1 {
        words += &format!(", weight {}", endpoint.weight);
    }
    words
}

/// Why a client cannot get a backend.
fn why_not(called: &Called<'_>, endpoint: &Endpoint, node: &NodeFacts) -> String {
    let conditions = endpoint.conditions;
    if endpoint.weight == 0 {
        return "weight 0: keeps its connections, gets no new ones".to_owned();
    }
    let elsewhere = called.scope == Scope::Local
        && matches!(state(called, endpoint), Some(state) if state.takes(Scope::Cluster) && !state.takes(Scope::Local));
    if elsewhere {
        let policy = match called.kind {
            FrontendKind::ClusterIp => "internalTrafficPolicy Local",
            _ => "externalTrafficPolicy Local",
        };
        return format!("{}: {policy} keeps it out", place(called, endpoint));
    }
    match (conditions.ready, conditions.serving, conditions.terminating) {
        (true, ..) => topology(called, endpoint, node),
        (false, true, true) => {
            "terminating: keeps its connections, gets no new ones while others are ready".to_owned()
        }
        (false, true, false) => {
            "not ready, still serving: keeps its connections, gets no new ones".to_owned()
        }
        (false, false, true) => "terminating and no longer serving".to_owned(),
        (false, false, false) => "not ready".to_owned(),
    }
}

/// Why a ready backend is left to other nodes.
fn topology(called: &Called<'_>, endpoint: &Endpoint, node: &NodeFacts) -> String {
    let place = endpoint.place.as_deref();
    let zone = node.zone.as_deref().unwrap_or("no zone");
    match place {
        Some(place) if !place.for_nodes.is_empty() => {
            format!("its hints are for nodes {}, this is {}", place.for_nodes.join(", "), node.name)
        }
        Some(place) if !place.for_zones.is_empty() => {
            format!("its hints are for zones {}, this node is in {zone}", place.for_zones.join(", "))
        }
        _ => {
            let place = self::place(called, endpoint);
            match called.service.distribution {
                Distribution::SameNode => {
                    format!("{place}: trafficDistribution prefers this node, then its zone ({zone})")
                }
                Distribution::SameZone => format!("{place}: trafficDistribution prefers this zone ({zone})"),
                Distribution::Even => format!("{place}: others are preferred"),
            }
        }
    }
}
