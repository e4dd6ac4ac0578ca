//! Which endpoints are usable, and whose new flows they take: `CategorizeEndpoints` of kube-proxy 1.33
//! and later (KEP-1669, KEP-2086, KEP-2433, KEP-3015), with weights.

use lb_common::abi::{BackendState, Scopes};

use super::NodeFacts;
use crate::model::{Distribution, Endpoint, Place};

/// What each of the endpoints of one service port and family takes, in their order.
///
/// Both scopes are asked by themselves: [`Scope::Cluster`](lb_common::abi::Scope) has the ready endpoints
/// that topology leaves, or without any ready one those that serve while they terminate;
/// [`Scope::Local`](lb_common::abi::Scope) has this node's ready ones, or else this node's that serve while
/// they terminate. An endpoint of weight 0 takes no new flows and so never keeps others from taking them.
///
/// Those whose next hop does not answer are left out as long as another one takes flows: that nobody can be
/// reached is for clients to find out, not for us to be sure of.
pub fn states(endpoints: &[&Endpoint], distribution: Distribution, node: &NodeFacts) -> Vec<BackendState> {
    let is_heard = |endpoint: &&Endpoint| !node.silent.contains(&endpoint.address);
    if node.silent.is_empty() || endpoints.iter().copied().all(|endpoint| is_heard(&endpoint)) {
        return among(endpoints, distribution, node);
    }
    let heard: Vec<&Endpoint> = endpoints.iter().copied().filter(is_heard).collect();
    let states = among(&heard, distribution, node);
    if !states.iter().any(|state| state.is_active()) {
        return among(endpoints, distribution, node);
    }
    let mut states = states.into_iter();
    let mut heard = |endpoint: &&Endpoint| if is_heard(endpoint) { states.next() } else { None };
    endpoints.iter().map(|endpoint| heard(endpoint).unwrap_or_else(|| silent(endpoint))).collect()
}

/// What an endpoint is whose next hop does not answer.
fn silent(endpoint: &Endpoint) -> BackendState {
    match unused(endpoint) {
        BackendState::Draining => BackendState::Silent,
        removed => removed,
    }
}

/// What an endpoint is that takes no new flows.
fn unused(endpoint: &Endpoint) -> BackendState {
    let keeps = endpoint.conditions.ready || endpoint.conditions.serving;
    if keeps { BackendState::Draining } else { BackendState::Removed }
}

fn among(endpoints: &[&Endpoint], distribution: Distribution, node: &NodeFacts) -> Vec<BackendState> {
    let cluster = Usable::among(endpoints.iter().copied());
    let local = Usable::among(endpoints.iter().copied().filter(|endpoint| is_local(endpoint, node)));
    let preferred = Preferred::among(endpoints, distribution, node);
    let state = |endpoint: &Endpoint| {
        let in_cluster = cluster.has(endpoint) && preferred.has(endpoint, node);
        let in_local = local.has(endpoint) && is_local(endpoint, node);
        match (in_cluster, in_local) {
            (true, true) => BackendState::Active(Scopes::Both),
            (true, false) => BackendState::Active(Scopes::Cluster),
            (false, true) => BackendState::Active(Scopes::Local),
            (false, false) => unused(endpoint),
        }
    };
    endpoints.iter().map(|endpoint| state(endpoint)).collect()
}

/// Which conditions make an endpoint usable among its fellows.
#[derive(Clone, Copy)]
enum Usable {
    Ready,
    /// None is ready.
    ServingTerminating,
}

impl Usable {
    fn among<'e>(mut endpoints: impl Iterator<Item = &'e Endpoint>) -> Usable {
        if endpoints.any(|endpoint| Usable::Ready.has(endpoint)) {
            Usable::Ready
        } else {
            Usable::ServingTerminating
        }
    }

    fn has(self, endpoint: &Endpoint) -> bool {
        let conditions = endpoint.conditions;
        endpoint.weight > 0
            && match self {
                Usable::Ready => conditions.ready,
                Usable::ServingTerminating => conditions.serving && conditions.terminating,
            }
    }
}

/// Which of the ready endpoints topology prefers; all if there are none.
#[derive(Clone, Copy)]
enum Preferred {
    All,
    HintedNode,
    HintedZone,
    SameNode,
    SameZone,
}

impl Preferred {
    /// Hints count if every ready endpoint has one of that kind and one of them is for this node, those for
    /// nodes before those for zones. Where no endpoint has any, nobody writes them, and `distribution` is
    /// followed by where the endpoints are.
    fn among(endpoints: &[&Endpoint], distribution: Distribution, node: &NodeFacts) -> Preferred {
        let ready = || endpoints.iter().copied().filter(|endpoint| Usable::Ready.has(endpoint));
        let any = |preferred: Preferred| ready().any(|endpoint| preferred.has(endpoint, node));
        let hints = |of: fn(&Place) -> &[String]| {
            move |endpoint: &Endpoint| endpoint.place.as_deref().is_some_and(|place| !of(place).is_empty())
        };
        let for_nodes = hints(|place| &place.for_nodes);
        let for_zones = hints(|place| &place.for_zones);
        if ready().all(for_nodes) && any(Preferred::HintedNode) {
            return Preferred::HintedNode;
        }
        if ready().all(for_zones) && any(Preferred::HintedZone) {
            return Preferred::HintedZone;
        }
        if ready().any(|endpoint| for_nodes(endpoint) || for_zones(endpoint)) {
            return Preferred::All;
        }
        match distribution {
            Distribution::SameNode if any(Preferred::SameNode) => Preferred::SameNode,
            Distribution::SameNode | Distribution::SameZone if any(Preferred::SameZone) => {
                Preferred::SameZone
            }
            Distribution::SameNode | Distribution::SameZone | Distribution::Even => Preferred::All,
        }
    }

    fn has(self, endpoint: &Endpoint, node: &NodeFacts) -> bool {
        let place = endpoint.place.as_deref();
        match self {
            Preferred::All => true,
            Preferred::HintedNode => place.is_some_and(|place| place.for_nodes.contains(&node.name)),
            Preferred::HintedZone => {
                place.zip(node.zone.as_ref()).is_some_and(|(place, zone)| place.for_zones.contains(zone))
            }
            Preferred::SameNode => is_local(endpoint, node),
            Preferred::SameZone => {
                node.zone.is_some() && {
                    let zone = place.and_then(|place| place.zone.as_ref());
                    zone == node.zone.as_ref() || is_local(endpoint, node)
                }
            }
        }
    }
}

/// Whether an endpoint is on this node: by the node that is told, else by its address.
pub(super) fn is_local(endpoint: &Endpoint, node: &NodeFacts) -> bool {
    match endpoint.place.as_deref().and_then(|place| place.node.as_ref()) {
        Some(name) => *name == node.name,
        None => {
            node.own.contains(&endpoint.address)
                || node.pods.iter().any(|pods| pods.contains(&endpoint.address))
        }
    }
}
