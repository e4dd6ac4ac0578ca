//! Ports of the node that services have where the node allocates them to flows (`snatPorts`): a packet to one
//! could be a call or a reply.

use super::{
    super::super::problem::{Place, Problem},
    Draft,
};
use crate::model::{PortRange, Service};

/// The fewest ports that `snatPorts` may have: with less, a handful of clients is all that a backend gets.
pub(in super::super) const FEWEST: u32 = 64;

/// The larger part of `snatPorts`, where nothing is said, that keeps clear of a `nodePortRange`; all of it if there is
/// none.
pub(super) fn without(range: PortRange, node_ports: Option<PortRange>) -> PortRange {
    let Some(both) = node_ports.and_then(|node_ports| range.overlap(&node_ports)) else { return range };
    let below = PortRange { first: range.first, last: both.first - 1 };
    let above = PortRange { first: both.last.saturating_add(1), last: range.last };
    let parts = [below, above].into_iter().filter(|part| part.first <= part.last && part.count() >= FEWEST);
    parts.max_by_key(PortRange::count).unwrap_or(range)
}

/// The largest part of the range that keeps clear of node ports of Kubernetes' services, which are the API server's to
/// give; and where the range stands, at `place`, what of it is not used. The whole range if there is no such part.
pub(super) fn stay_clear<'d>(
    range: PortRange,
    place: Option<&Place>,
    services: impl Iterator<Item = &'d Draft>,
) -> (PortRange, Option<Problem>) {
    let used = services.flat_map(|draft| {
        let node_ports = draft.service.ports.iter().filter_map(|port| port.node_port);
        node_ports.chain(draft.service.health_check).map(move |number| (number, &draft.service.name))
    });
    let mut used: Vec<_> = used.filter(|(number, _)| range.contains(*number)).collect();
    used.sort();
    let Some(&(number, service)) = used.first() else { return (range, None) };
    let mut first = u32::from(range.first);
    let mut largest: Option<PortRange> = None;
    for next in used.iter().map(|(number, _)| u32::from(*number)).chain([u32::from(range.last) + 1]) {
        if first < next {
            let part = PortRange { first: first as u16, last: (next - 1) as u16 };
            largest = largest.filter(|known| known.count() >= part.count()).or(Some(part));
        }
        first = next + 1;
    }
    let Some(largest) = largest.filter(|part| part.count() >= FEWEST) else { return (range, None) };
    let said = place.map(|place| Problem {
        place: place.clone(),
        text: format!(
            "snatPorts {range} has node port {number} of service {service} in it, so {largest} is used; write a range \
             without node ports"
        ),
    });
    (largest, said)
}

/// Takes node ports and host ports out of `service` that lie in the range, and says so. `place`: where the
/// range stands, if it does.
pub(super) fn clear(service: &mut Service, range: PortRange, place: Option<&Place>) -> Vec<String> {
    let range_at = match place {
        Some(place) => format!("snatPorts {range} at {place}"),
        None => format!("snatPorts, which are {range} where nothing is said"),
    };
    let mut lost = Vec::new();
    let name = service.name.to_string();
    for port in &mut service.ports {
        for (own, what) in [(&mut port.node_port, "node port"), (&mut port.host_port, "host port")] {
            if let Some(number) = own.take_if(|number| range.contains(*number)) {
                lost.push(format!(
                    "{what} {number}/{} of service {name} is not served: it lies in {range_at}; \
                     give the service another, or snatPorts another range",
                    port.protocol
                ));
            }
        }
    }
    lost
}
