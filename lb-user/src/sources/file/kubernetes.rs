//! Kubernetes' objects, as `kubectl get services,endpointslices,nodes -o yaml` prints them.
//!
//! `v1 Service`, `discovery.k8s.io/v1 EndpointSlice`, `v1 Node` and `v1 List` of them. Fields that are not
//! used are not looked at. A bad field is left out and reported, an object without its name or its addresses as a whole:
//! it never keeps the others from being served.

mod ip;
mod node;
mod service;
mod slices;

use std::{
    collections::{BTreeMap, HashSet},
    mem,
};

use self::{service::service, slices::Slice};
use super::{
    super::{
        fields::{list, name, text},
        problem::{Bad, Problem, Report},
        yaml::Node,
    },
    assemble::{Draft, Drafts},
    places::Places,
};
use crate::model::{self, Family, ServiceName};

/// A service with this label is served by somebody else, and so are its slices, which carry it, too.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
/// Marks what belongs to a headless service, which is not served.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// The objects of all files; services and slices find each other at the end.
#[derive(Default)]
pub(super) struct Objects {
    services: Vec<Draft>,
    /// Of every Service that was read, also of those that are not served.
    names: HashSet<ServiceName>,
    slices: BTreeMap<ServiceName, Vec<Slice>>,
    nodes: BTreeMap<String, model::Node>,
}

impl Objects {
    /// Reads an object, or the objects of a `List`.
    pub fn add(&mut self, node: &Node<'_>, places: &mut Places, report: &mut Report<'_>) {
        let field = |field| node.get(field).and_then(|node| text(node, field).ok()).unwrap_or_default();
        let (version, kind) = (field("apiVersion"), field("kind"));
        let read = match (version, kind) {
            ("v1", "List") => {
                let items = node.get("items").map(|items| list(items, "items"));
                for item in items.and_then(|items| report.take(items)).unwrap_or_default() {
                    self.add(item, places, report);
                }
                Ok(())
            }
            ("v1", "Service") => self.add_service(node, report),
            ("discovery.k8s.io/v1", "EndpointSlice") => self.add_slice(node, places, report),
            ("v1", "Node") => self.add_node(node, report),
            _ => {
                not_read(node, version, kind, report);
                Ok(())
            }
        };
        if let Err(bad) = read {
            let name = match object_name(node) {
                Ok(name) if kind == "Node" => format!("{kind} {}", name.name),
                Ok(name) => format!("{kind} {name}"),
                Err(_) => format!("this {kind}"),
            };
            report.say(bad.at, format!("{name} is left out: {}", bad.text));
        }
    }

    fn add_service(&mut self, node: &Node<'_>, report: &mut Report<'_>) -> Result<(), Bad> {
        self.names.insert(object_name(node)?);
        if !is_others(node) {
            self.services.extend(service(node, report)?);
        }
        Ok(())
    }

    fn add_slice(
        &mut self,
        node: &Node<'_>,
        places: &mut Places,
        report: &mut Report<'_>,
    ) -> Result<(), Bad> {
        if !is_others(node) {
            let slice = slices::slice(node, places, report)?;
            self.slices.entry(slice.service.clone()).or_default().push(slice);
        }
        Ok(())
    }

    fn add_node(&mut self, node: &Node<'_>, report: &mut Report<'_>) -> Result<(), Bad> {
        let (name, facts) = node::node(node, report)?;
        if self.nodes.contains_key(&name) {
            return Err(Bad::new(node.at, "there is a Node of that name already; take one out"));
        }
        self.nodes.insert(name, facts);
        Ok(())
    }

    /// Gives what was read to `drafts`: the services with the endpoints of their slices.
    pub fn finish(mut self, drafts: &mut Drafts, warnings: &mut Vec<Problem>) {
        for mut draft in mem::take(&mut self.services) {
            let slices = self.slices.remove(&draft.service.name).unwrap_or_default();
            for port in &mut draft.service.ports {
                port.endpoints = slices::endpoints(port, &slices);
            }
            for (found, slice) in
                slices.iter().flat_map(|slice| slice.endpoints.iter().map(move |found| (found, slice)))
            {
                draft.saw_backend(found.address, || slice.place.clone());
            }
            drafts.services.push(draft);
        }
        for (service, slices) in self.slices.iter().filter(|(service, _)| !self.names.contains(*service)) {
            if let Some(first) = slices.first() {
                let text = format!(
                    "EndpointSlices of service {service} are left out: there is no such Service; add it, or \
                     remove them"
                );
                warnings.push(Problem { place: first.place.clone(), text });
            }
        }
        // What our own documents say goes before.
        self.nodes.append(&mut drafts.nodes);
        drafts.nodes = self.nodes;
    }
}

/// Reports an object of a kind that means nothing here.
fn not_read(node: &Node<'_>, version: &str, kind: &str, report: &mut Report<'_>) {
    let what = match (version, kind) {
        ("", kind) => format!("this {kind} has no apiVersion"),
        (version, "") => format!("this object of {version} has no kind"),
        (version, kind) => format!("{kind} of {version} is not read here"),
    };
    let advice = "what is read is v1 Service, discovery.k8s.io/v1 EndpointSlice, v1 Node and v1 List";
    report.say(node.at, format!("left out: {what}; {advice}"));
}

/// Whether an object is somebody else's, as kube-proxy tells it: by the labels' names alone.
fn is_others(node: &Node<'_>) -> bool {
    let labels = node.get("metadata").and_then(|metadata| metadata.get("labels"));
    labels.is_some_and(|labels| labels.has(OTHER_PROXY) || labels.has(HEADLESS))
}

/// `metadata.namespace` (or `default`) and `metadata.name`.
fn object_name(node: &Node<'_>) -> Result<ServiceName, Bad> {
    let metadata =
        node.get("metadata").ok_or_else(|| Bad::new(node.at, "it has no metadata; add metadata.name"))?;
    let own =
        metadata.get("name").ok_or_else(|| Bad::new(metadata.at, "it has no name; add metadata.name"))?;
    let name = name(own, "an object's name")?;
    Ok(ServiceName { namespace: namespace(metadata)?, name })
}

/// The namespace of an object's metadata.
fn namespace(metadata: &Node<'_>) -> Result<String, Bad> {
    let namespace = metadata.get("namespace").map(|node| name(node, "a namespace's name"));
    Ok(namespace.transpose()?.unwrap_or_else(|| "default".to_owned()))
}

/// A label of an object.
fn label<'n, 't>(node: &'n Node<'t>, key: &str) -> Option<&'n Node<'t>> {
    node.get("metadata")?.get("labels")?.get(key)
}

/// The items of a list that may be left out. `what` is the field's name.
fn items<'n, 't>(parent: &'n Node<'t>, what: &str) -> Result<&'n [Node<'t>], Bad> {
    Ok(parent.get(what).map(|node| list(node, what)).transpose()?.unwrap_or_default())
}

/// As [`items`], of an object; what is no list is left out and reported.
fn items_or_none<'n, 't>(
    parent: &'n Node<'t>,
    what: &str,
    object: &str,
    report: &mut Report<'_>,
) -> &'n [Node<'t>] {
    report.part(what, object, items(parent, what)).unwrap_or_default()
}

/// `IPv4` or `IPv6`, in `ipFamilies` and `addressType`.
fn family(node: &Node<'_>) -> Result<Family, Bad> {
    match text(node, "an address family")? {
        "IPv4" => Ok(Family::V4),
        "IPv6" => Ok(Family::V6),
        other => {
            Err(Bad::new(node.at, format!("\"{other}\" is not a family of addresses; write IPv4 or IPv6")))
        }
    }
}

/// The name of a port, of a service or a slice; empty for none.
fn port_name(port: &Node<'_>) -> Result<String, Bad> {
    let name = port.get("name").map(|node| text(node, "a port's name")).transpose()?;
    Ok(name.unwrap_or_default().to_owned())
}
