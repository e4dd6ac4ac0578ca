//! Kubernetes' EndpointSlices and the endpoints they give to the ports of a service.

use std::{cmp::Reverse, net::IpAddr, sync::Arc};

use super::{
    super::{
        super::{
            fields::{self, boolean, port, protocol, text},
            problem::{Bad, Place, Report},
            yaml::Node,
        },
        places::Places,
    },
    family,
    ip::address,
    items, items_or_none, label, namespace, object_name, port_name,
};
use crate::model::{self, Conditions, Endpoint, Family, Protocol, ServiceName, ServicePort};

/// The label that says whose endpoints these are.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What is used of a slice.
pub(super) struct Slice {
    pub service: ServiceName,
    pub place: Place,
    pub endpoints: Vec<Found>,
    /// Port names, as the service's own, with what they stand for here.
    ports: Vec<(String, Protocol, u16)>,
}

/// What is used of an endpoint.
pub(super) struct Found {
    pub address: IpAddr,
    conditions: Conditions,
    place: Option<Arc<model::Place>>,
}

/// Reads a slice. An endpoint or a port that is wrong is left out and reported alone.
pub(super) fn slice(node: &Node<'_>, places: &mut Places, report: &mut Report<'_>) -> Result<Slice, Bad> {
    let name = object_name(node)?;
    let metadata = node.get("metadata").unwrap_or(node);
    let owner = label(node, SERVICE_NAME).ok_or_else(|| {
        Bad::new(metadata.at, format!("it belongs to no service; add the label {SERVICE_NAME}: SERVICE"))
    })?;
    let owner = fields::name(owner, "a service's name")?;
    let service = ServiceName { namespace: namespace(metadata)?, name: owner };
    let family = family(
        node.get("addressType")
            .ok_or_else(|| Bad::new(node.at, "it has no addressType; write IPv4 or IPv6"))?,
    )?;

    let object = format!("EndpointSlice {name}");
    let mut ports = Vec::new();
    for node in items_or_none(node, "ports", &object, report) {
        let Some(number) = node.get("port") else { continue };
        // Of a service port that was left out and reported there.
        let Ok(protocol) = node.get("protocol").map_or(Ok(Protocol::Tcp), protocol) else { continue };
        let read = port_name(node).and_then(|name| Ok((name, protocol, port(number)?)));
        ports.extend(report.part("a port", &object, read));
    }
    let mut endpoints = Vec::new();
    for node in items_or_none(node, "endpoints", &object, report) {
        let read = endpoint(node, family, &object, places, report);
        endpoints.extend(report.part("an endpoint", &object, read));
    }
    Ok(Slice { service, place: report.place(metadata.at), endpoints, ports })
}

/// The first address of an endpoint, as kube-proxy takes it (the others stand for the same pod).
///
/// Whether it takes flows can't be guessed: one with a bad condition is none.
fn endpoint(
    node: &Node<'_>,
    family: Family,
    object: &str,
    places: &mut Places,
    report: &mut Report<'_>,
) -> Result<Found, Bad> {
    let first = items(node, "addresses")?.first();
    let first = first.ok_or_else(|| Bad::new(node.at, "it has no address; add one to addresses"))?;
    let address = address(first, "a backend")?;
    if Family::of(address) != family {
        let text =
            format!("{address} is not {family}, which the slice's addressType says; correct one of them");
        return Err(Bad::new(first.at, text));
    }
    let condition = |name| {
        let conditions = node.get("conditions")?;
        conditions.get(name).map(|node| boolean(node, name))
    };
    let ready = condition("ready").transpose()?.unwrap_or(true);
    let serving = condition("serving").transpose()?.unwrap_or(ready);
    let terminating = condition("terminating").transpose()?.unwrap_or(false);
    let conditions = Conditions { ready, serving, terminating };
    Ok(Found { address, conditions, place: places.share(place(node, object, report)) })
}

/// Where an endpoint is, and for whom it is meant (KEP-2433, KEP-3015).
fn place(endpoint: &Node<'_>, object: &str, report: &mut Report<'_>) -> model::Place {
    let mut told = |node: Option<&Node<'_>>, what: &str| {
        node.and_then(|node| report.part(&format!("the {what} of an endpoint"), object, text(node, what)))
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let (node, zone) = (told(endpoint.get("nodeName"), "nodeName"), told(endpoint.get("zone"), "zone"));
    let mut hints = |what| {
        let Some(hints) = endpoint.get("hints") else { return Vec::new() };
        let hints = items_or_none(hints, what, object, report).iter();
        let names = hints.filter_map(|hint| hint.get("name"));
        names
            .filter_map(|name| report.part("a hint", object, text(name, "a name")))
            .map(str::to_owned)
            .collect()
    };
    model::Place { node, zone, for_zones: hints("forZones"), for_nodes: hints("forNodes") }
}

/// The endpoints of one port of a service. One that several slices have is taken where it is most usable, as it
/// is in two slices while it moves from one to the other.
pub(super) fn endpoints(port: &ServicePort, slices: &[Slice]) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for slice in slices {
        let matching =
            slice.ports.iter().filter(|(name, protocol, _)| (name, protocol) == (&port.name, &port.protocol));
        for &(_, _, target) in matching {
            let endpoint = |found: &Found| Endpoint {
                address: found.address,
                port: target,
                weight: 1,
                conditions: found.conditions,
                place: found.place.clone(),
            };
            endpoints.extend(slice.endpoints.iter().map(endpoint));
        }
    }
    endpoints.sort_by_key(|endpoint| {
        let Conditions { ready, serving, terminating } = endpoint.conditions;
        (endpoint.address, endpoint.port, Reverse(ready), Reverse(serving), terminating)
    });
    endpoints.dedup_by_key(|endpoint| (endpoint.address, endpoint.port));
    endpoints
}
