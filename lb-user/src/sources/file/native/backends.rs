//! The backends of a service of ours.

use std::{net::IpAddr, sync::Arc};

use super::{
    super::{
        super::{
            fields::{address, boolean, fields, name, number, port},
            problem::{Position, Report},
            yaml::Node,
        },
        assemble::MAX_BACKENDS,
        places::Places,
    },
    given, items,
    ports::Port,
};
use crate::model::{Conditions, Endpoint, Family, Place, ServicePort};

/// A backend, before it is known for which ports.
pub(super) struct Backend {
    pub address: IpAddr,
    pub at: Position,
    /// `None`: the port's target.
    port: Option<u16>,
    weight: u16,
    conditions: Conditions,
    place: Option<Arc<Place>>,
}

/// The backends of a service.
pub(super) fn service_backends(
    backends: Option<&Node<'_>>,
    places: &mut Places,
    report: &mut Report<'_>,
) -> Vec<Backend> {
    let nodes = items(backends, "backends", report);
    let count = nodes.len();
    if let Some(list) = backends
        && count > MAX_BACKENDS
    {
        let text =
            format!("{count} backends in one service, but at most {MAX_BACKENDS} are possible; split it");
        report.say(list.at, text);
        return Vec::new();
    }
    let read: Vec<Backend> = nodes.iter().filter_map(|node| backend(node, places, report)).collect();
    if let Some(list) = backends
        && !read.is_empty()
        && read.iter().all(|backend| backend.weight == 0)
    {
        let text =
            "every backend has weight 0, so none would get a connection; give one a weight of 1 or more";
        report.say(list.at, text);
    }
    read
}

fn backend(node: &Node<'_>, places: &mut Places, report: &mut Report<'_>) -> Option<Backend> {
    let known = ["address", "port", "weight", "node", "zone", "ready", "serving", "terminating"];
    let [ip, own_port, weight, host, zone, ready, serving, terminating] =
        fields(node, "a backend", known, report)?;
    let own_port = own_port.map(|node| report.take(port(node)));
    let weight = weight.map_or(Some(1), |node| report.take(number(node, "a weight", 0..=u16::MAX)));
    let place = Place {
        node: given(host, |node| name(node, "a node's name").map(Some), report),
        zone: given(zone, |node| name(node, "a zone").map(Some), report),
        ..Place::default()
    };
    let conditions = conditions(ready, serving, terminating, report);
    let Some(ip) = ip else {
        report.say(node.at, "the backend has no address; add `address: 10.244.1.2`");
        return None;
    };
    let address = report.take(address(ip, "a backend"))?;
    let port = match own_port {
        Some(port) => Some(port?),
        None => None,
    };
    Some(Backend { address, at: ip.at, port, weight: weight?, conditions, place: places.share(place) })
}

/// What a backend is said to be. Left out: one that terminates is not ready, any other is; one that is
/// ready or terminates serves.
fn conditions(
    ready: Option<&Node<'_>>,
    serving: Option<&Node<'_>>,
    terminating: Option<&Node<'_>>,
    report: &mut Report<'_>,
) -> Conditions {
    let mut said = |node: Option<&Node<'_>>, what, default| {
        node.and_then(|node| report.take(boolean(node, what))).unwrap_or(default)
    };
    let terminating = said(terminating, "terminating", false);
    let ready = said(ready, "ready", !terminating);
    let serving = said(serving, "serving", ready || terminating);
    Conditions { ready, serving, terminating }
}

/// Every port with its endpoints. A backend that is there twice is reported once.
pub(super) fn join(ports: Vec<Port>, backends: &[Backend], report: &mut Report<'_>) -> Vec<ServicePort> {
    let mut twice = None;
    let mut joined = Vec::with_capacity(ports.len());
    for port in ports {
        let at_port = |backend: &Backend| (backend.address, backend.port.unwrap_or(port.target));
        let mut order: Vec<&Backend> = backends.iter().collect();
        order.sort_by_key(|backend| at_port(backend));
        let pair = order.windows(2).find(|pair| at_port(pair[0]) == at_port(pair[1]));
        twice = twice.or(pair.map(|pair| (pair[0].at, pair[1].at, at_port(pair[0]))));
        if let Some((number, at)) = port.host_port {
            has_one_backend(number, at, backends, report);
        }
        let endpoints = order.iter().map(|backend| {
            let (address, port) = at_port(backend);
            let Backend { weight, conditions, ref place, .. } = **backend;
            Endpoint { address, port, weight, conditions, place: place.clone() }
        });
        joined.push(ServicePort {
            endpoints: endpoints.collect(),
            name: port.name,
            port: port.port,
            node_port: port.node_port.map(|(number, _)| number),
            host_port: port.host_port.map(|(number, _)| number),
            protocol: port.protocol,
            lost: Vec::new(),
        });
    }
    if let Some((first, second, (address, port))) = twice {
        let first = report.place(first);
        let text =
            format!("backend {address} port {port} is given twice, first at {first}; use weight instead");
        report.say(second, text);
    }
    joined
}

/// Notes that a host port, at `at`, would not lead to one container.
fn has_one_backend(number: u16, at: Position, backends: &[Backend], report: &mut Report<'_>) {
    let count = |family| backends.iter().filter(|backend| Family::of(backend.address) == family).count();
    let counts = [Family::V4, Family::V6].map(|family| (family, count(family)));
    if counts.iter().all(|(_, count)| *count == 0) {
        let text = format!("hostPort {number} leads to one container, but there is no backend; add it");
        report.say(at, text);
    }
    if let Some((family, count)) = counts.into_iter().find(|(_, count)| *count > 1) {
        let text = format!(
            "hostPort {number} leads to one container of each family, but there are {count} {family} \
             backends; use a nodePort, or take the others out"
        );
        report.say(at, text);
    }
}
