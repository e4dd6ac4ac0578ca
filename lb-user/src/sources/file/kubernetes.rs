//! Kubernetes' objects, as `kubectl get services,endpointslices -o yaml` prints them.
//!
//! `v1 Service`, `discovery.k8s.io/v1 EndpointSlice` and `v1 List` of them. Fields that are not used are not
//! looked at. A bad object is left out and reported; it never keeps the others from being served.

use std::collections::HashMap;

use super::{
    super::{
        fields::{address, list, name, port, protocol, text},
        problem::{Bad, Place, Report},
        yaml::Node,
    },
    assemble::{Draft, Origin},
    slices::{self, Slice},
};
use crate::model::{Family, ServiceName, ServicePort};

/// A service with this label is served by somebody else.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";

/// The objects of all files; services and slices find each other at the end.
#[derive(Default)]
pub(super) struct Objects {
    services: Vec<Draft>,
    slices: HashMap<ServiceName, Vec<Slice>>,
}

impl Objects {
    /// Reads an object, or the objects of a `List`.
    pub fn add(&mut self, node: &Node<'_>, report: &mut Report<'_>) {
        let field = |field| node.get(field).and_then(|node| text(node, field).ok()).unwrap_or_default();
        match (field("apiVersion"), field("kind")) {
            ("v1", "List") => {
                let items = node.get("items").map(|items| list(items, "items"));
                for item in items.and_then(|items| report.take(items)).unwrap_or_default() {
                    self.add(item, report);
                }
            }
            ("v1", "Service") => match service(node, report) {
                Ok(draft) => self.services.extend(draft),
                Err(bad) => left_out("Service", node, bad, report),
            },
            ("discovery.k8s.io/v1", "EndpointSlice") => match slices::slice(node, report) {
                Ok(slice) => self.slices.entry(slice.service.clone()).or_default().push(slice),
                Err(bad) => left_out("EndpointSlice", node, bad, report),
            },
            (version, kind) => {
                let what = match (version, kind) {
                    ("", kind) => format!("this {kind} has no apiVersion"),
                    (version, "") => format!("this object of {version} has no kind"),
                    (version, kind) => format!("{kind} of {version} is not read here"),
                };
                let advice = "what is read is v1 Service, discovery.k8s.io/v1 EndpointSlice and v1 List";
                report.say(node.at, format!("left out: {what}; {advice}"));
            }
        }
    }

    /// The services with the endpoints of their slices.
    pub fn into_drafts(self) -> impl Iterator<Item = Draft> {
        let Objects { services, mut slices } = self;
        services.into_iter().map(move |mut draft| {
            let slices = slices.remove(&draft.name).unwrap_or_default();
            for port in &mut draft.ports {
                port.endpoints = slices::endpoints(port, &slices);
            }
            let backends =
                slices.iter().flat_map(|slice| slice.endpoints.iter().map(move |found| (found, slice)));
            for (&(address, _), slice) in backends {
                draft.saw_backend(address, || slice.place.clone());
            }
            draft
        })
    }
}

/// Reports an object that is not used.
fn left_out(kind: &str, node: &Node<'_>, bad: Bad, report: &mut Report<'_>) {
    let name = match object_name(node) {
        Ok(name) => format!("{kind} {name}"),
        Err(_) => format!("this {kind}"),
    };
    report.say(bad.at, format!("{name} is left out: {}", bad.text));
}

/// `metadata.namespace` (or `default`) and `metadata.name`.
pub(super) fn object_name(node: &Node<'_>) -> Result<ServiceName, Bad> {
    let metadata =
        node.get("metadata").ok_or_else(|| Bad::new(node.at, "it has no metadata; add metadata.name"))?;
    let own =
        metadata.get("name").ok_or_else(|| Bad::new(metadata.at, "it has no name; add metadata.name"))?;
    let name = name(own, "an object's name")?;
    Ok(ServiceName { namespace: namespace(metadata)?, name })
}

/// The namespace of an object's metadata.
pub(super) fn namespace(metadata: &Node<'_>) -> Result<String, Bad> {
    let namespace = metadata.get("namespace").map(|node| name(node, "a namespace's name"));
    Ok(namespace.transpose()?.unwrap_or_else(|| "default".to_owned()))
}

/// A label of an object.
pub(super) fn label<'n, 't>(node: &'n Node<'t>, key: &str) -> Option<&'n Node<'t>> {
    node.get("metadata")?.get("labels")?.get(key)
}

/// A service that has something to serve; `None` for headless ones and those that are another proxy's.
fn service(node: &Node<'_>, report: &mut Report<'_>) -> Result<Option<Draft>, Bad> {
    let name = object_name(node)?;
    let spec = node.get("spec").ok_or_else(|| Bad::new(node.at, "it has no spec; write one with ports"))?;
    let external = spec.get("type").map(|node| text(node, "type")).transpose()? == Some("ExternalName");
    if external || label(node, OTHER_PROXY).is_some() {
        return Ok(None);
    }
    let own = node.get("metadata").and_then(|metadata| metadata.get("name"));
    let place = report.place(own.unwrap_or(node).at);
    let created = node.get("metadata").and_then(|metadata| metadata.get("creationTimestamp"));
    let origin = match created.map(|node| text(node, "creationTimestamp")).transpose()? {
        Some(time) => Origin::Created(time.to_owned()),
        None => Origin::Undated,
    };
    let mut draft = Draft::new(name, place, origin);

    let mut nodes: Vec<&Node<'_>> = match spec.get("clusterIPs") {
        Some(node) => list(node, "clusterIPs")?.iter().collect(),
        None => Vec::new(),
    };
    if nodes.is_empty() {
        nodes.extend(spec.get("clusterIP"));
    }
    for node in nodes {
        match text(node, "a cluster IP")? {
            "None" => return Ok(None),
            "" => continue,
            _ => {}
        }
        let new = address(node, "a service's address")?;
        if let Some(old) = draft.addresses.iter().find(|old| old.is_ipv4() == new.is_ipv4()) {
            let text = format!("{new} and {old} are of one family; a service has one address of each");
            return Err(Bad::new(node.at, text));
        }
        draft.addresses.push(new);
    }
    if let Some(node) = spec.get("ipFamilies") {
        draft.families = list(node, "ipFamilies")?.iter().map(family).collect::<Result<_, _>>()?;
    }
    draft.ports = service_ports(spec, &draft.place, &draft.name, report)?;
    Ok(Some(draft).filter(|draft| !draft.ports.is_empty()))
}

/// `IPv4` or `IPv6`, in `ipFamilies` and `addressType`.
pub(super) fn family(node: &Node<'_>) -> Result<Family, Bad> {
    match text(node, "an address family")? {
        "IPv4" => Ok(Family::V4),
        "IPv6" => Ok(Family::V6),
        other => {
            Err(Bad::new(node.at, format!("\"{other}\" is not a family of addresses; write IPv4 or IPv6")))
        }
    }
}

/// The ports; those of a protocol that is not supported are left out and reported.
fn service_ports(
    spec: &Node<'_>,
    place: &Place,
    service: &ServiceName,
    report: &mut Report<'_>,
) -> Result<Vec<ServicePort>, Bad> {
    let nodes = spec.get("ports").map(|node| list(node, "ports")).transpose()?.unwrap_or_default();
    if nodes.is_empty() {
        let at = place.at.unwrap_or(spec.at);
        return Err(Bad::new(at, "it has no ports; add spec.ports"));
    }
    let mut ports: Vec<ServicePort> = Vec::new();
    for node in nodes {
        let number = node.get("port").ok_or_else(|| Bad::new(node.at, "a port has no number; add port"))?;
        let new = port(number)?;
        let protocol = match node.get("protocol").map(protocol).transpose() {
            Ok(given) => given.unwrap_or(crate::model::Protocol::Tcp),
            Err(bad) => {
                report.say(bad.at, format!("port {new} of Service {service} is left out: {}", bad.text));
                continue;
            }
        };
        if ports.iter().any(|old| (old.port, old.protocol) == (new, protocol)) {
            return Err(Bad::new(node.at, format!("port {new}/{protocol} is given twice; take one out")));
        }
        ports.push(ServicePort { name: port_name(node)?, port: new, protocol, ..ServicePort::default() });
    }
    Ok(ports)
}

/// The name of a port, of a service or a slice; empty for none.
pub(super) fn port_name(port: &Node<'_>) -> Result<String, Bad> {
    let name = port.get("name").map(|node| text(node, "a port's name")).transpose()?;
    Ok(name.unwrap_or_default().to_owned())
}
