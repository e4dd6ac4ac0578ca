//! Drafts of services, from whatever document, checked against each other and made into the model.

mod clear;
mod fit;
mod taken;
mod wants;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use lb_common::abi::{Lifetimes, MAX_CIDRS};

pub(super) use self::clear::FEWEST;
use self::{
    clear::{clear, stay_clear, without},
    fit::fit,
    taken::{Lost, Taken},
    wants::wants,
};
use super::super::problem::{Place, Problem};
use crate::model::{
    Endpoint, Family, Forwarding, Model, Node, NodePortAddress, PortRange, Service, ServiceName,
};

/// What the documents hold, each by itself right.
#[derive(Default)]
pub(super) struct Drafts {
    pub ranges: Vec<IpNet>,
    pub hash_seed: Option<(u64, Place)>,
    pub node: Option<(Node, Place)>,
    pub nodes: BTreeMap<String, Node>,
    /// Empty: the primary ones.
    pub node_port_addresses: Vec<NodePortAddress>,
    pub lifetimes: Option<(Lifetimes, Place)>,
    pub snat_ports: Option<(Option<PortRange>, Place)>,
    pub node_port_range: Option<(PortRange, Place)>,
    pub services: Vec<Draft>,
}

impl Drafts {
    /// Adds a range unless it is there already; an error if its family has too many.
    pub fn add_range(&mut self, range: IpNet) -> Result<(), String> {
        if self.ranges.contains(&range) {
            return Ok(());
        }
        let family = Family::of_range(&range);
        if self.ranges.iter().filter(|known| Family::of_range(known) == family).count() == MAX_CIDRS {
            return Err(format!(
                "{range} is one {family} range more than the {MAX_CIDRS} that serviceCIDRs may have; \
                 use fewer, larger ones"
            ));
        }
        self.ranges.push(range);
        Ok(())
    }

    /// Adds where node ports are reached, unless it is there already.
    pub fn add_node_port_address(&mut self, address: NodePortAddress) {
        if !self.node_port_addresses.contains(&address) {
            self.node_port_addresses.push(address);
        }
    }
}

/// Where a service comes from. Ours goes before Kubernetes', there the older before the younger.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    Ours,
    /// With its `creationTimestamp`, which sorts as text.
    Created(String),
    /// Of Kubernetes, without that.
    Undated,
}

/// A service that has not been compared with the others.
pub(super) struct Draft {
    /// What it asks for. No addresses: some of the ranges.
    pub service: Service,
    pub place: Place,
    pub origin: Origin,
    /// Families the source asks for where it names no address; empty: what the backends need.
    pub families: Vec<Family>,
    /// Some of its source ranges were left out: nobody may come in for that.
    pub ranges_left_out: bool,
    /// Node ports of ours that have to be in `nodePortRange`, and where they stand.
    pub node_ports: Vec<(u16, Place)>,
    /// A first backend of each family.
    backends: BTreeMap<Family, (IpAddr, Place)>,
}

impl Draft {
    pub fn new(name: ServiceName, place: Place, origin: Origin) -> Self {
        let service = Service { name, ..Service::default() };
        Draft {
            service,
            place,
            origin,
            families: vec![],
            ranges_left_out: false,
            node_ports: vec![],
            backends: BTreeMap::new(),
        }
    }

    /// Notes that the service has a backend of that family.
    pub fn saw_backend(&mut self, address: IpAddr, place: impl FnOnce() -> Place) {
        self.backends.entry(Family::of(address)).or_insert_with(|| (address, place()));
    }

    fn problem(&self, text: String) -> Problem {
        Problem { place: self.place.clone(), text }
    }
}

/// The model of all drafts. Those of Kubernetes that cannot be served, or what of them cannot, are left out
/// and go to `warnings`; what is wrong with ours goes to `errors`.
pub(super) fn model(drafts: Drafts, errors: &mut Vec<Problem>, warnings: &mut Vec<Problem>) -> Model {
    let own_node_ports = drafts.node_port_range.map(|(range, _)| range);
    let node_ports = own_node_ports.unwrap_or(PortRange::NODE);
    let (snat_ports, snat_place) = match drafts.snat_ports {
        Some((range, place)) => (range, Some(place)),
        None => (Some(without(PortRange::SNAT, own_node_ports)), None),
    };
    let mut model = Model {
        service_cidrs: drafts.ranges,
        hash_seed: drafts.hash_seed.map(|(seed, _)| seed),
        node: drafts.node.map(|(node, _)| node).unwrap_or_default(),
        nodes: Arc::new(drafts.nodes),
        node_port_addresses: drafts.node_port_addresses,
        lifetimes: drafts.lifetimes.map(|(lifetimes, _)| lifetimes).unwrap_or_default(),
        snat_ports,
        ..Model::default()
    };
    if model.node_port_addresses.is_empty() {
        model.node_port_addresses.push(NodePortAddress::Primary);
    }
    let mut services = drafts.services;
    services.sort_by(|a, b| a.origin.cmp(&b.origin));
    let mut taken = Taken::default();
    let mut admitted = Vec::new();
    for mut draft in services {
        for (number, place) in draft.node_ports.iter().filter(|(number, _)| !node_ports.contains(*number)) {
            let text = format!(
                "\"{number}\" is not a node port; write a whole number from {} to {}, or set nodePortRange",
                node_ports.first, node_ports.last
            );
            errors.push(Problem { place: place.clone(), text });
        }
        let checked =
            taken.name(&draft).and_then(|()| size(&draft)).and_then(|()| wants(&draft, &model.service_cidrs));
        match checked {
            Ok(wants) => {
                draft.service.wants = wants;
                let mut lost = Lost::default();
                let said = if draft.origin == Origin::Ours { &mut lost.errors } else { &mut lost.warnings };
                said.extend(fit(&mut draft));
                said.extend(unknown_nodes(&draft, &model));
                taken.cluster_ips(&mut draft, &mut lost);
                admitted.push((draft, lost));
            }
            Err(problem) if draft.origin == Origin::Ours => errors.push(problem),
            Err(Problem { place, text }) => {
                warnings.push(Problem { place, text: format!("left out: {text}") });
            }
        }
    }
    for (draft, lost) in &mut admitted {
        taken.others(draft, lost);
    }
    if let Some(range) = snat_ports {
        let used = admitted.iter().filter(|(draft, _)| draft.origin != Origin::Ours);
        let (range, said) = stay_clear(range, snat_place.as_ref(), used.map(|(draft, _)| draft));
        model.snat_ports = Some(range);
        warnings.extend(said);
        for (draft, lost) in &mut admitted {
            let said = if draft.origin == Origin::Ours { &mut lost.errors } else { &mut lost.warnings };
            said.extend(clear(&mut draft.service, range, snat_place.as_ref()));
        }
    }
    for (draft, lost) in admitted {
        errors.extend(lost.errors.into_iter().map(|text| draft.problem(text)));
        warnings.extend(lost.warnings.into_iter().map(|text| draft.problem(text)));
        model.services.insert(draft.service.name.clone(), Arc::new(draft.service));
    }
    model
}

/// What keeps packets of a service with DSR from backends' nodes: their addresses are not known. Of Kubernetes'
/// services these backends are reached by SNAT.
fn unknown_nodes(draft: &Draft, model: &Model) -> Option<String> {
    let Service { name, forwarding, ports, .. } = &draft.service;
    if *forwarding != Forwarding::Dsr {
        return None;
    }
    let unknown = |endpoint: &Endpoint| {
        let node = endpoint.place.as_deref()?.node.as_ref()?;
        let known = model.nodes.get(node).is_some_and(|known| {
            known.addresses.iter().any(|address| address.is_ipv4() == endpoint.address.is_ipv4())
        });
        let ours = model.node.name.as_ref() == Some(node);
        (!known && !ours).then(|| (endpoint.address, node.clone()))
    };
    let (backend, node) = ports.iter().flat_map(|port| &port.endpoints).find_map(unknown)?;
    let family = Family::of(backend);
    Some(format!(
        "service {name} asks for forwarding: dsr, but nobody knows an {family} address of node {node}, where its \
         backend {backend} is; add it, like `nodes: [{{name: {node}, addresses: [{}]}}]`",
        if family == Family::V4 { "192.168.1.12" } else { "\"fd00:1::12\"" }
    ))
}

/// Backends that one port of a service can have.
pub(super) const MAX_BACKENDS: usize = u16::MAX as usize;

fn size(draft: &Draft) -> Result<(), Problem> {
    match draft.service.ports.iter().find(|port| port.endpoints.len() > MAX_BACKENDS) {
        Some(port) => {
            let (name, number, count) = (&draft.service.name, port.port, port.endpoints.len());
            let text = format!(
                "port {number} of service {name} has {count} backends, but at most {MAX_BACKENDS} are possible; \
                 split it"
            );
            Err(draft.problem(text))
        }
        None => Ok(()),
    }
}
