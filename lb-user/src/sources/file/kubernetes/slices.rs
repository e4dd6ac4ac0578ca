//! Kubernetes' EndpointSlices and the endpoints they give to the ports of a service.

use std::{cmp::Reverse, net::IpAddr, sync::Arc};

use super::{
    super::{
        super::{
            fields::{self, address, boolean, port, protocol, text},
            problem::{Bad, Place, Report},
            yaml::Node,
        },
        places::Places,
    },
    family, items, label, namespace, object_name, port_name,
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

/// Reads a slice. An endpoint that is wrong is left out and reported alone.
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

    let mut ports = Vec::new();
    for node in items(node, "ports")? {
        let Some(number) = node.get("port") else { continue };
        // Of a service port that was left out and reported there.
        let Ok(protocol) = node.get("protocol").map_or(Ok(Protocol::Tcp), protocol) else { continue };
        ports.push((port_name(node)?, protocol, port(number)?));
    }
    let mut endpoints = Vec::new();
    for node in items(node, "endpoints")? {
        match endpoint(node, family, places) {
            Ok(endpoint) => endpoints.push(endpoint),
            Err(bad) => {
                report.say(bad.at, format!("an endpoint of EndpointSlice {name} is left out: {}", bad.text));
            }
        }
    }
    Ok(Slice { service, place: report.place(metadata.at), endpoints, ports })
}

/// The first address of an endpoint, as kube-proxy takes it (the others stand for the same pod).
fn endpoint(node: &Node<'_>, family: Family, places: &mut Places) -> Result<Found, Bad> {
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
    Ok(Found { address, conditions, place: places.share(place(node)?) })
}

/// Where an endpoint is, and for whom it is meant (KEP-2433, KEP-3015).
fn place(endpoint: &Node<'_>) -> Result<model::Place, Bad> {
    let told =
        |node: Option<&Node<'_>>, what| node.map(|node| text(node, what).map(str::to_owned)).transpose();
    let hints = |what| {
        let hints = endpoint.get("hints").map(|hints| items(hints, what)).transpose()?.unwrap_or_default();
        let names = hints.iter().filter_map(|hint| told(hint.get("name"), "the name of a hint").transpose());
        names.collect::<Result<Vec<String>, Bad>>()
    };
    Ok(model::Place {
        node: told(endpoint.get("nodeName"), "nodeName")?,
        zone: told(endpoint.get("zone"), "zone")?,
        for_zones: hints("forZones")?,
        for_nodes: hints("forNodes")?,
    })
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
