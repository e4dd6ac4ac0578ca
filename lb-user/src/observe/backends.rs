//! Backends and how they are reached.

use std::net::SocketAddr;

use lb_common::abi::NextHopKind;
use serde::Serialize;

use super::view::View;
use crate::{maps::Maps, plan::adopt};

/// One backend of one frontend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// Namespace of its service.
    pub namespace: String,
    /// Name of its service.
    pub service: String,
    /// The frontend, `address:port/protocol`.
    pub frontend: String,
    /// Its address.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// Its share of new flows.
    pub weight: u16,
    /// `ready`, `draining`, `removed`, or `silent` where its next hop does not answer.
    pub state: String,
    /// `peer`, `bridge`, `neighbour`, `host`, `uplink`, `stack`, `gone` where nobody is any more, or `nothing`
    /// while no way is known.
    pub reached_by: String,
}

/// Every backend of every frontend.
pub fn backends(maps: &Maps, view: &View) -> Vec<Backend> {
    let mirror = adopt(maps);
    let services = super::services::services(maps, view);
    let of_service = services.iter().flat_map(|service| {
        let frontend = SocketAddr::new(service.address, service.port);
        service.backends.iter().map(move |backend| (service, frontend, backend))
    });
    of_service
        .map(|(service, frontend, backend)| Backend {
            namespace: service.namespace.clone(),
            service: service.name.clone(),
            frontend: format!("{frontend}/{}", service.protocol),
            address: backend.address.to_string(),
            port: backend.port,
            weight: backend.weight,
            state: backend.state.clone(),
            reached_by: match (mirror.way_to(backend.node.unwrap_or(backend.address)), backend.node) {
                (None, _) => "nothing".to_owned(),
                (Some(_), Some(node)) => format!("dsr to {node}"),
                (Some((_, row)), None) => next_hop(row.kind()).to_owned(),
            },
        })
        .collect()
}

/// The word for a way.
pub fn next_hop(kind: NextHopKind) -> &'static str {
    match kind {
        NextHopKind::None => "nothing",
        NextHopKind::Peer => "peer",
        NextHopKind::Bridge => "bridge",
        NextHopKind::Neighbour => "neighbour",
        NextHopKind::Host => "host",
        NextHopKind::Uplink => "uplink",
        NextHopKind::Stack => "stack",
        NextHopKind::Gone => "gone",
    }
}
