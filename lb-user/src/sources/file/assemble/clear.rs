//! Ports of the node that services have where the node allocates them to flows (`snatPorts`): a packet to one
//! could be a call or a reply.

use super::super::super::problem::Place;
use crate::model::{PortRange, Service};

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
