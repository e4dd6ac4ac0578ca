//! A service of ours.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    super::{
        super::{
            fields::{self, address, fields, list, name, port, word},
            problem::{Bad, Report},
            values::{AFFINITY_TIMEOUT, admit_source_ranges, keeps_clients, policy, timeout},
            yaml::{Node, Value},
        },
        assemble::{Draft, Origin},
        places::Places,
    },
    backends::{join, service_backends},
    given, items,
    ports::service_ports,
};
use crate::model::{
    Algorithm, Distribution, Forwarding, OnRemoval, Service, ServiceName, ServiceType, TrafficPolicy,
};

/// Reads a service. What is wrong is noted, and there is a draft if it has a name all the same.
pub(super) fn service(node: &Node<'_>, places: &mut Places, report: &mut Report<'_>) -> Option<Draft> {
    let known = [
        "name",
        "namespace",
        "address",
        "addresses",
        "ports",
        "backends",
        "type",
        "externalIPs",
        "loadBalancerIPs",
        "loadBalancerSourceRanges",
        "externalTrafficPolicy",
        "internalTrafficPolicy",
        "sessionAffinity",
        "algorithm",
        "trafficDistribution",
        "onRemoval",
        "forwarding",
        "healthCheckNodePort",
    ];
    let [
        name_node,
        namespace,
        one,
        several,
        ports,
        backends,
        kind_node,
        external,
        balanced,
        sources,
        external_policy,
        internal_policy,
        affinity,
        algorithm,
        distribution,
        on_removal,
        forwarding,
        health_check,
    ] = fields(node, "a service", known, report)?;
    let name = service_name(node, name_node, namespace, report);
    let kind = kind_node.map_or(Some(ServiceType::ClusterIp), |node| report.take(service_type(node)));
    let mut service = Service {
        kind: kind.unwrap_or_default(),
        addresses: addresses(one, several, report),
        external_ips: outside_addresses(external, "externalIPs", "an external IP", report),
        load_balancer_ips: outside_addresses(balanced, "loadBalancerIPs", "a load balancer IP", report),
        source_ranges: source_ranges(sources, report),
        external_policy: given(external_policy, |node| policy(Some(node)), report),
        internal_policy: given(internal_policy, |node| policy(Some(node)), report),
        algorithm: given(algorithm, service_algorithm, report),
        distribution: given(distribution, service_distribution, report),
        on_removal: given(on_removal, service_on_removal, report),
        forwarding: given(forwarding, service_forwarding, report),
        ..Service::default()
    };
    service.health_check = given(health_check, |node| port(node).map(Some), report);
    service.affinity = affinity.and_then(|node| session_affinity(node, report));
    let read_ports = service_ports(node, ports, report);
    if let Some(kind) = kind {
        let ports = ports.and_then(|node| list(node, "ports").ok()).unwrap_or_default();
        node_ports_fit(kind, kind_node, ports, report);
        load_balancer_fits(kind, balanced, sources, report);
        health_check_fits(kind, service.external_policy, health_check, report);
    }
    let backends = service_backends(backends, places, report);
    service.name = name?;
    let place = report.place(name_node.unwrap_or(node).at);
    let mut draft = Draft::new(service.name.clone(), place, Origin::Ours);
    for backend in &backends {
        draft.saw_backend(backend.address, || report.place(backend.at));
    }
    draft.node_ports = read_ports
        .iter()
        .filter_map(|port| port.node_port)
        .map(|(number, at)| (number, report.place(at)))
        .collect();
    service.ports = join(read_ports, &backends, report);
    draft.service = service;
    Some(draft)
}

/// `name` and `namespace`, which is `default` where it is left out.
fn service_name(
    service: &Node<'_>,
    own: Option<&Node<'_>>,
    namespace: Option<&Node<'_>>,
    report: &mut Report<'_>,
) -> Option<ServiceName> {
    let namespace = match namespace {
        Some(node) => report.take(name(node, "a namespace's name")),
        None => Some("default".to_owned()),
    };
    let own = match own {
        Some(node) => report.take(name(node, "a service's name")),
        None => {
            report.say(service.at, "the service has no name; add `name: NAME`");
            None
        }
    };
    Some(ServiceName { namespace: namespace?, name: own? })
}

fn service_type(node: &Node<'_>) -> Result<ServiceType, Bad> {
    let known = [ServiceType::ClusterIp, ServiceType::NodePort, ServiceType::LoadBalancer];
    let names = known.map(|kind| kind.to_string());
    let known: Vec<(&str, ServiceType)> = names.iter().map(String::as_str).zip(known).collect();
    word(node, "a type of services", &known)
}

fn service_algorithm(node: &Node<'_>) -> Result<Algorithm, Bad> {
    word(node, "an algorithm", &[("maglev", Algorithm::Maglev), ("random", Algorithm::Random)])
}

fn service_distribution(node: &Node<'_>) -> Result<Distribution, Bad> {
    let known = [
        ("PreferSameZone", Distribution::SameZone),
        ("PreferSameNode", Distribution::SameNode),
        ("PreferClose", Distribution::SameZone),
    ];
    word(node, "a trafficDistribution", &known)
}

fn service_on_removal(node: &Node<'_>) -> Result<OnRemoval, Bad> {
    word(node, "an onRemoval", &[("keep", OnRemoval::Keep), ("reset", OnRemoval::Reset)])
}

fn service_forwarding(node: &Node<'_>) -> Result<Forwarding, Bad> {
    word(node, "a forwarding", &[("snat", Forwarding::Snat), ("dsr", Forwarding::Dsr)])
}

/// `{clientIP: {timeoutSeconds: 10800}}`, or one of Kubernetes' words.
fn session_affinity(node: &Node<'_>, report: &mut Report<'_>) -> Option<u32> {
    if let Value::Scalar(_) = &node.value {
        return report.take(keeps_clients(node))?.then_some(AFFINITY_TIMEOUT);
    }
    let [client_ip] = fields(node, "sessionAffinity", ["clientIP"], report)?;
    let Some(client_ip) = client_ip else {
        report.say(
            node.at,
            "sessionAffinity says nothing; write `sessionAffinity: {clientIP: {timeoutSeconds: 10800}}`",
        );
        return None;
    };
    let [seconds] = fields(client_ip, "clientIP", ["timeoutSeconds"], report)?;
    report.take(timeout(seconds))
}

fn addresses(one: Option<&Node<'_>>, several: Option<&Node<'_>>, report: &mut Report<'_>) -> Vec<IpAddr> {
    if let (Some(_), Some(several)) = (one, several) {
        report.say(several.at, "address and addresses are both given; put all into addresses");
    }
    let nodes = one.into_iter().chain(items(several, "addresses", report));
    let mut addresses: Vec<IpAddr> = Vec::new();
    for node in nodes {
        let Some(new) = report.take(address(node, "a service's address")) else { continue };
        match addresses.iter().find(|old| old.is_ipv4() == new.is_ipv4()) {
            Some(old) => {
                let text = format!(
                    "{new} and {old} are of one family; a service has one address of each: take one out"
                );
                report.say(node.at, text);
            }
            None => addresses.push(new),
        }
    }
    addresses
}

/// `externalIPs` or `loadBalancerIPs`: any number of each family.
fn outside_addresses(
    nodes: Option<&Node<'_>>,
    field: &str,
    what: &str,
    report: &mut Report<'_>,
) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for node in items(nodes, field, report) {
        let Some(new) = report.take(address(node, what)) else { continue };
        if addresses.contains(&new) {
            report.say(node.at, format!("{new} is given twice in {field}; take one out"));
        } else {
            addresses.push(new);
        }
    }
    addresses
}

fn source_ranges(ranges: Option<&Node<'_>>, report: &mut Report<'_>) -> Vec<IpNet> {
    let nodes = items(ranges, "loadBalancerSourceRanges", report);
    if let Some(ranges) = ranges
        && report.take(admit_source_ranges(ranges, nodes.len())).is_none()
    {
        return Vec::new();
    }
    nodes.iter().filter_map(|node| report.take(fields::range(node))).collect()
}

/// Notes node ports that the type does not have, and one that it lacks.
fn node_ports_fit(
    kind: ServiceType,
    kind_node: Option<&Node<'_>>,
    ports: &[Node<'_>],
    report: &mut Report<'_>,
) {
    let node_port = ports.iter().find_map(|port| port.get("nodePort"));
    match (kind, node_port, kind_node) {
        (ServiceType::ClusterIp, Some(node), _) => {
            let text = "a nodePort needs type NodePort or LoadBalancer; add `type: NodePort` to the service";
            report.say(node.at, text);
        }
        (ServiceType::NodePort, None, Some(node)) if !ports.is_empty() => {
            let text = "type is NodePort, but no port has a nodePort; add one, like `nodePort: 30080`";
            report.say(node.at, text);
        }
        _ => {}
    }
}

/// Notes a health check that no load balancer needs: without policy Local every node will do.
fn health_check_fits(
    kind: ServiceType,
    policy: TrafficPolicy,
    health_check: Option<&Node<'_>>,
    report: &mut Report<'_>,
) {
    if let Some(node) = health_check
        && (kind != ServiceType::LoadBalancer || policy != TrafficPolicy::Local)
    {
        let text = "healthCheckNodePort tells which nodes have backends; add `type: LoadBalancer` and \
                    `externalTrafficPolicy: Local` to the service";
        report.say(node.at, text);
    }
}

/// Notes addresses of a load balancer that the type does not have, and source ranges without any.
fn load_balancer_fits(
    kind: ServiceType,
    balanced: Option<&Node<'_>>,
    sources: Option<&Node<'_>>,
    report: &mut Report<'_>,
) {
    if let Some(node) = balanced
        && kind != ServiceType::LoadBalancer
    {
        let text = "loadBalancerIPs need type LoadBalancer; add `type: LoadBalancer` to the service";
        report.say(node.at, text);
    }
    if let (Some(node), None) = (sources, balanced) {
        let text = "loadBalancerSourceRanges hold for loadBalancerIPs, and there are none; add some, or take \
                    the ranges out";
        report.say(node.at, text);
    }
}
