//! Drafts of services, from whatever document, checked against each other and made into the model.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::super::problem::{Place, Problem};
use crate::model::{Family, Model, Protocol, Service, ServiceName, ServicePort};

/// What the documents hold, each by itself right.
#[derive(Default)]
pub(super) struct Drafts {
    pub ranges: Vec<IpNet>,
    pub hash_seed: Option<(u64, Place)>,
    pub services: Vec<Draft>,
}

impl Drafts {
    /// Adds a range unless it is there already.
    pub fn add_range(&mut self, range: IpNet) {
        if !self.ranges.contains(&range) {
            self.ranges.push(range);
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
    pub name: ServiceName,
    pub place: Place,
    pub origin: Origin,
    /// Empty: some of the ranges.
    pub addresses: Vec<IpAddr>,
    /// Families the source asks for where it names no address; empty: what the backends need.
    pub families: Vec<Family>,
    pub ports: Vec<ServicePort>,
    /// A first backend of each family.
    backends: BTreeMap<Family, (IpAddr, Place)>,
}

impl Draft {
    pub fn new(name: ServiceName, place: Place, origin: Origin) -> Self {
        let (addresses, families, ports) = (vec![], vec![], vec![]);
        Draft { name, place, origin, addresses, families, ports, backends: BTreeMap::new() }
    }

    /// Notes that the service has a backend of that family.
    pub fn saw_backend(&mut self, address: IpAddr, place: impl FnOnce() -> Place) {
        self.backends.entry(Family::of(address)).or_insert_with(|| (address, place()));
    }
}

/// The model of all drafts. Those of Kubernetes that cannot be served are left out and go to `warnings`, what is
/// wrong with ours goes to `errors`.
pub(super) fn model(drafts: Drafts, errors: &mut Vec<Problem>, warnings: &mut Vec<Problem>) -> Model {
    let Drafts { ranges, hash_seed, mut services } = drafts;
    services.sort_by(|a, b| a.origin.cmp(&b.origin));
    let mut taken = Taken::default();
    let mut model =
        Model { service_cidrs: ranges, hash_seed: hash_seed.map(|(seed, _)| seed), ..Model::default() };
    for draft in services {
        let checked = taken
            .check(&draft)
            .and_then(|()| size(&draft))
            .and_then(|()| wants(&draft, &model.service_cidrs));
        match checked {
            Ok(wants) => {
                taken.add(&draft);
                model.services.insert(draft.name.clone(), Arc::new(service(draft, wants)));
            }
            Err(problem) if draft.origin == Origin::Ours => {
                taken.add(&draft);
                errors.push(problem);
            }
            Err(Problem { place, text }) => {
                warnings.push(Problem { place, text: format!("left out: {text}") });
            }
        }
    }
    model
}

/// Names and frontends that are taken, and where.
#[derive(Default)]
struct Taken {
    names: HashMap<ServiceName, Place>,
    frontends: HashMap<(IpAddr, u16, Protocol), (ServiceName, Place)>,
}

impl Taken {
    fn add(&mut self, draft: &Draft) {
        self.names.entry(draft.name.clone()).or_insert_with(|| draft.place.clone());
        for frontend in frontends(draft) {
            self.frontends.entry(frontend).or_insert_with(|| (draft.name.clone(), draft.place.clone()));
        }
    }

    fn check(&self, draft: &Draft) -> Result<(), Problem> {
        let problem = |text| Err(Problem { place: draft.place.clone(), text });
        if let Some(place) = self.names.get(&draft.name) {
            return problem(format!("there is a service {} at {place} already; rename one", draft.name));
        }
        for frontend in frontends(draft) {
            if let Some((name, place)) = self.frontends.get(&frontend) {
                let (address, port, protocol) = frontend;
                return problem(format!(
                    "{address} port {port}/{protocol} of {} belongs to service {name} at {place} already; \
                     give one of them another address or port",
                    draft.name
                ));
            }
        }
        Ok(())
    }
}

fn frontends(draft: &Draft) -> impl Iterator<Item = (IpAddr, u16, Protocol)> {
    let of_address = |&address| draft.ports.iter().map(move |port| (address, port.port, port.protocol));
    draft.addresses.iter().flat_map(of_address)
}

/// Backends that one port of a service can have.
pub(super) const MAX_BACKENDS: usize = u16::MAX as usize;

fn size(draft: &Draft) -> Result<(), Problem> {
    match draft.ports.iter().find(|port| port.endpoints.len() > MAX_BACKENDS) {
        Some(port) => {
            let (name, number, count) = (&draft.name, port.port, port.endpoints.len());
            let text = format!(
                "port {number} of service {name} has {count} backends, but at most {MAX_BACKENDS} are possible; \
                 split it"
            );
            Err(Problem { place: draft.place.clone(), text })
        }
        None => Ok(()),
    }
}

/// The families that the service is to be given addresses of; none if it names its own.
fn wants(draft: &Draft, ranges: &[IpNet]) -> Result<Vec<Family>, Problem> {
    let problem = |place: &Place, text| Err(Problem { place: place.clone(), text });
    let name = &draft.name;
    let ours = draft.origin == Origin::Ours;
    if let Some(first) = draft.addresses.first() {
        let foreign =
            |family: &Family| !draft.addresses.iter().any(|&address| Family::of(address) == *family);
        if ours
            && let Some((family, (address, place))) =
                draft.backends.iter().find(|(family, _)| foreign(family))
        {
            return problem(
                place,
                format!(
                    "backend {address} is {family}, but service {name} has only the {} address {first}; \
                     add an {family} address, or take the backend out",
                    Family::of(*first)
                ),
            );
        }
        return Ok(vec![]);
    }

    let has_range = |family: Family| ranges.iter().any(|range| Family::of_range(range) == family);
    if ranges.is_empty() {
        return problem(
            &draft.place,
            format!(
                "service {name} has no address and there is no range to give it one from; \
                 add an address, or `serviceCIDRs: [10.96.0.0/12]`"
            ),
        );
    }
    if !draft.families.is_empty() {
        return match draft.families.iter().find(|family| !has_range(**family)) {
            Some(family) => problem(
                &draft.place,
                format!(
                    "service {name} asks for an {family} address, but serviceCIDRs has no such range; add one"
                ),
            ),
            None => Ok(draft.families.clone()),
        };
    }
    if draft.backends.is_empty() {
        return Ok(vec![if has_range(Family::V4) { Family::V4 } else { Family::V6 }]);
    }
    let served: Vec<Family> = draft.backends.keys().copied().filter(|&family| has_range(family)).collect();
    let unserved = draft.backends.iter().find(|(family, _)| !served.contains(family));
    if let Some((family, (address, place))) = unserved.filter(|_| ours || served.is_empty()) {
        return problem(
            place,
            format!(
                "backend {address} is {family}, but serviceCIDRs has no {family} range for service {name}; \
                 add a range, or take the backend out"
            ),
        );
    }
    Ok(served)
}

fn service(draft: Draft, wants: Vec<Family>) -> Service {
    let Draft { name, addresses, mut ports, .. } = draft;
    for port in &mut ports {
        port.endpoints.retain(|endpoint| {
            let family = Family::of(endpoint.address);
            wants.contains(&family) || addresses.iter().any(|&address| Family::of(address) == family)
        });
    }
    Service { name, addresses, wants, ports, ..Service::default() }
}
