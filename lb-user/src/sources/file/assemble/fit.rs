//! What a service asks for and cannot have, although the rest of it can be served.

use std::net::IpAddr;

use super::Draft;
use crate::model::{Family, Protocol, Service, ServicePort, nobody};

/// Takes out of `service` what cannot be served, and says what, why and what to do. What is probably not
/// meant stays as it is and is said as well.
pub(super) fn fit(draft: &mut Draft) -> Vec<String> {
    let Draft { service, ranges_left_out, .. } = draft;
    let has = [Family::V4, Family::V6].map(|family| served(service, family));
    let served = |family| if family == Family::V4 { has[0] } else { has[1] };
    for port in &mut service.ports {
        port.endpoints.retain(|endpoint| served(Family::of(endpoint.address)));
    }
    let mut lost = Vec::new();
    let name = service.name.to_string();
    foreign(&mut service.external_ips, "external IP", &name, served, &mut lost);
    foreign(&mut service.load_balancer_ips, "load balancer IP", &name, served, &mut lost);
    source_ranges(service, *ranges_left_out, served, &mut lost);
    service.ports.retain_mut(|port| sctp(port, &name, &mut lost));
    lost
}

/// Takes out the addresses of a family that the service has none of its own of.
fn foreign(
    addresses: &mut Vec<IpAddr>,
    what: &str,
    service: &str,
    served: impl Fn(Family) -> bool,
    lost: &mut Vec<String>,
) {
    addresses.retain(|&address| {
        let family = Family::of(address);
        if !served(family) {
            lost.push(format!(
                "{what} {address} of service {service} is not served: the service has no {family} address of \
                 its own; add one, or take this one out"
            ));
        }
        served(family)
    });
}

/// Whether a service has, or will be given, an address of that family.
fn served(service: &Service, family: Family) -> bool {
    service.wants.contains(&family) || service.addresses.iter().any(|&address| Family::of(address) == family)
}

/// Source ranges hold for each family by itself, as with kube-proxy: none of one family means everybody, unless some
/// are `left_out`, which may have been of that one.
fn source_ranges(
    service: &mut Service,
    left_out: bool,
    served: impl Fn(Family) -> bool,
    lost: &mut Vec<String>,
) {
    let Service { name, source_ranges, load_balancer_ips, .. } = service;
    for family in [Family::V4, Family::V6] {
        let range = source_ranges.iter().find(|range| Family::of_range(range) == family);
        let balanced = load_balancer_ips.iter().find(|address| Family::of(**address) == family);
        match (range, balanced) {
            (Some(range), None) if !served(family) => lost.push(format!(
                "source range {range} of service {name} holds for nothing: the service has no {family} address; \
                 add one, or take the {family} ranges out"
            )),
            (None, Some(address)) if left_out => {
                lost.push(format!(
                    "load balancer IP {address} of service {name} is open to nobody: of its source ranges some are \
                     left out, and none is left for {family}; correct them"
                ));
                source_ranges.push(nobody(family));
            }
            (None, Some(address)) if !source_ranges.is_empty() => lost.push(format!(
                "load balancer IP {address} of service {name} is open to everybody: its source ranges have \
                 none of {family}; add one, if only that of all addresses"
            )),
            _ => {}
        }
    }
    source_ranges.retain(|range| served(Family::of_range(range)));
}

/// SCTP's checksum covers the ports and cannot be changed by difference, so a port must stay what it is.
/// Whether the port can be served at all.
fn sctp(port: &mut ServicePort, service: &str, lost: &mut Vec<String>) -> bool {
    let number = port.port;
    if port.protocol != Protocol::Sctp {
        return true;
    }
    if let Some(other) = port.endpoints.iter().find(|endpoint| endpoint.port != number) {
        lost.push(format!(
            "port {number}/SCTP of service {service} is not served: its backend {} listens on port {}, and \
             SCTP's checksum covers ports, so they stay as they are; let it listen on {number}",
            other.address, other.port
        ));
        return false;
    }
    for (own, what) in [(&mut port.node_port, "node port"), (&mut port.host_port, "host port")] {
        if let Some(other) = own.take_if(|other| *other != number) {
            lost.push(format!(
                "{what} {other} of port {number}/SCTP of service {service} is not served: SCTP's checksum \
                 covers ports, so they stay as they are; take it out, or use port {other} everywhere"
            ));
        }
    }
    true
}
