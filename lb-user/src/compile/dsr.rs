//! DSR: at which address of its node a backend's packets from outside are handed over.

use std::net::IpAddr;

use super::{NodeFacts, usable::is_local};
use crate::model::{Endpoint, Family, Forwarding, Service};

/// The address of the node that an endpoint is on, where its service is to be forwarded so. `None`: it is on this
/// node, nobody knows the address, or there is no such forwarding in its family; then it is as for any service.
pub fn node_of(service: &Service, endpoint: &Endpoint, here: &NodeFacts) -> Option<IpAddr> {
    let family = Family::of(endpoint.address);
    if service.forwarding != Forwarding::Dsr || !here.can_tunnel(family) || is_local(endpoint, here) {
        return None;
    }
    let named = endpoint.place.as_deref().and_then(|place| place.node.as_ref());
    let node = match named {
        Some(name) => here.nodes.get(name)?,
        None => {
            let has = |node: &&crate::model::Node| {
                node.pod_cidrs.iter().any(|range| range.contains(&endpoint.address))
            };
            match here.nodes.values().find(has) {
                Some(node) => node,
                // A machine by itself.
                None => return Some(endpoint.address),
            }
        }
    };
    node.addresses.iter().copied().find(|address| Family::of(*address) == family)
}
