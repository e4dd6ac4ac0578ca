//! Which families a service is to be given addresses of.

use ipnet::IpNet;

use super::{
    super::super::problem::{Place, Problem},
    Draft, Origin,
};
use crate::model::{Family, Service};

/// The families that the service is to be given addresses of; none if it names its own.
pub(super) fn wants(draft: &Draft, ranges: &[IpNet]) -> Result<Vec<Family>, Problem> {
    let problem = |place: &Place, text| Err(Problem { place: place.clone(), text });
    let Draft { service: Service { name, addresses, .. }, .. } = draft;
    let ours = draft.origin == Origin::Ours;
    if let Some(first) = addresses.first() {
        let foreign = |family: &Family| !addresses.iter().any(|&address| Family::of(address) == *family);
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
