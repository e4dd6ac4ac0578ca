//! `v1 Service`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    super::{
        super::{
            fields::{list, port, protocol, text, word},
            problem::{Bad, Place, Report},
            values::{
                AFFINITY_TIMEOUT, MAX_SOURCE_RANGES, admit_source_ranges, keeps_clients, node_port, policy,
                timeout,
            },
            yaml::Node,
        },
        assemble::{Draft, Origin},
    },
    family,
    ip::{address, range},
    items_or_none, object_name, port_name,
};
use crate::model::{Protocol, Service, ServicePort, ServiceType, TrafficPolicy};

/// The annotation that says what `loadBalancerSourceRanges` says where that is left out.
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// A service that has something to serve; `None` for headless ones and mere names of others. What is wrong is left out
/// and reported alone, but for the cluster IPs: without one there is no service.
///
/// `trafficDistribution` is not read: it tells the controller of the slices which hints to write, and those
/// are what counts, as for kube-proxy. `loadBalancerIP` only asks for an address, the status says which ones there are.
pub(super) fn service(node: &Node<'_>, report: &mut Report<'_>) -> Result<Option<Draft>, Bad> {
    let name = object_name(node)?;
    let object = format!("Service {name}");
    let spec = node.get("spec").ok_or_else(|| Bad::new(node.at, "it has no spec; write one with ports"))?;
    let kind = spec.get("type").and_then(|node| report.part("the type", &object, service_type(node)));
    let Some(kind) = kind.unwrap_or(Some(ServiceType::ClusterIp)) else { return Ok(None) };
    let own = node.get("metadata").and_then(|metadata| metadata.get("name"));
    let place = report.place(own.unwrap_or(node).at);
    let Some(addresses) = cluster_ips(spec, &object, report)? else { return Ok(None) };

    let created = node.get("metadata").and_then(|metadata| metadata.get("creationTimestamp"));
    let created =
        created.and_then(|node| report.part("creationTimestamp", &object, text(node, "creationTimestamp")));
    let origin = created.map_or(Origin::Undated, |time| Origin::Created(time.to_owned()));
    let mut draft = Draft::new(name.clone(), place, origin);
    let families = items_or_none(spec, "ipFamilies", &object, report).iter();
    draft.families = families.filter_map(|node| report.part("a family", &object, family(node))).collect();
    let mut policy = |what| {
        spec.get(what).and_then(|node| report.part(what, &object, policy(Some(node)))).unwrap_or_default()
    };
    let mut service = Service {
        kind,
        addresses,
        internal_policy: policy("internalTrafficPolicy"),
        external_policy: policy("externalTrafficPolicy"),
        ..Service::default()
    };
    service.external_ips = external_ips(spec, &object, report);
    service.affinity = session_affinity(spec, &object, report);
    service.ports = service_ports(spec, kind, &draft.place, &object, report)?;
    if kind == ServiceType::LoadBalancer {
        service.load_balancer_ips = load_balancer_ips(node, &object, report);
        (service.source_ranges, draft.ranges_left_out) = source_ranges(node, spec, &object, report);
        service.health_check = health_check(spec, service.external_policy, &object, report);
    }
    service.name = name;
    draft.service = service;
    Ok(Some(draft))
}

/// The type; `None` for one that is no more than another name.
fn service_type(node: &Node<'_>) -> Result<Option<ServiceType>, Bad> {
    let known = [
        ("ClusterIP", Some(ServiceType::ClusterIp)),
        ("NodePort", Some(ServiceType::NodePort)),
        ("LoadBalancer", Some(ServiceType::LoadBalancer)),
        ("ExternalName", None),
    ];
    word(node, "a type of services", &known)
}

/// One address of each family at most, none if they are to be given; `None` for a headless service.
///
/// # Errors
/// None of those that are there can be had.
fn cluster_ips(spec: &Node<'_>, object: &str, report: &mut Report<'_>) -> Result<Option<Vec<IpAddr>>, Bad> {
    let several = items_or_none(spec, "clusterIPs", object, report);
    let nodes = several.iter().chain(spec.get("clusterIP").filter(|_| several.is_empty()));
    let mut addresses: Vec<IpAddr> = Vec::new();
    let mut wrong = Vec::new();
    for node in nodes {
        let read = match text(node, "a cluster IP") {
            Ok("None") => return Ok(None),
            Ok("") => continue,
            text => text.and_then(|_| address(node, "a service's address")),
        };
        let new = read.and_then(|new| match addresses.iter().find(|old| old.is_ipv4() == new.is_ipv4()) {
            Some(old) => {
                let text = format!("{new} and {old} are of one family; a service has one address of each");
                Err(Bad::new(node.at, text))
            }
            None => Ok(new),
        });
        match new {
            Ok(new) => addresses.push(new),
            Err(bad) => wrong.push(bad),
        }
    }
    let mut wrong = wrong.into_iter();
    if addresses.is_empty()
        && let Some(first) = wrong.next()
    {
        return Err(first);
    }
    for bad in wrong {
        report.part::<()>("a cluster IP", object, Err(bad));
    }
    Ok(Some(addresses))
}

/// `spec.externalIPs`.
fn external_ips(spec: &Node<'_>, object: &str, report: &mut Report<'_>) -> Vec<IpAddr> {
    let nodes = items_or_none(spec, "externalIPs", object, report).iter();
    nodes.filter_map(|node| outside(node, "an external IP", object, report)).collect()
}

/// `status.loadBalancer.ingress`: those addresses whose traffic comes here as it was sent, which is what a
/// left-out `ipMode` means, too (KEP-1860).
fn load_balancer_ips(node: &Node<'_>, object: &str, report: &mut Report<'_>) -> Vec<IpAddr> {
    let Some(status) = node.get("status").and_then(|status| status.get("loadBalancer")) else {
        return Vec::new();
    };
    let mut addresses = Vec::new();
    for item in items_or_none(status, "ingress", object, report) {
        let mode = item.get("ipMode").and_then(|node| report.part("an ipMode", object, text(node, "ipMode")));
        let own = item.get("ip").filter(|_| mode != Some("Proxy"));
        addresses.extend(own.and_then(|node| outside(node, "a load balancer IP", object, report)));
    }
    addresses
}

/// An address besides the cluster IPs, or `None` with a problem noted.
fn outside(node: &Node<'_>, what: &str, object: &str, report: &mut Report<'_>) -> Option<IpAddr> {
    report.part(what, object, address(node, what))
}

/// `spec.loadBalancerSourceRanges`, else those of the annotation; and whether some of them were left out, which lets
/// nobody in who would not be let in with them.
fn source_ranges(
    node: &Node<'_>,
    spec: &Node<'_>,
    object: &str,
    report: &mut Report<'_>,
) -> (Vec<IpNet>, bool) {
    let field = spec.get("loadBalancerSourceRanges");
    let annotations = node.get("metadata").and_then(|metadata| metadata.get("annotations"));
    let annotation = annotations.and_then(|annotations| annotations.get(SOURCE_RANGES));
    let read = match (field.map(|field| (field, list(field, "loadBalancerSourceRanges"))), annotation) {
        (Some((field, Ok(nodes))), _) if !nodes.is_empty() => {
            let read = nodes.iter().map(|node| range(node, text(node, "a source range")?));
            Ok((field, read.collect::<Vec<_>>()))
        }
        (Some((_, Err(bad))), _) => Err(bad),
        (_, Some(node)) => text(node, "a list of source ranges").map(|text| {
            let texts = text.split(',').filter(|text| !text.trim().is_empty());
            (node, texts.map(|text| range(node, text.trim())).collect())
        }),
        (_, None) => return (Vec::new(), false),
    };
    let Some((node, mut read)) = report.part("the source ranges", object, read) else {
        return (Vec::new(), true);
    };
    let mut left_out = false;
    if let Err(bad) = admit_source_ranges(node, read.len()) {
        report.part::<()>("what is more than that of the source ranges", object, Err(bad));
        read.truncate(MAX_SOURCE_RANGES);
        left_out = true;
    }
    let count = read.len();
    let ranges: Vec<IpNet> =
        read.into_iter().filter_map(|range| report.part("a source range", object, range)).collect();
    left_out |= ranges.len() < count;
    (ranges, left_out)
}

/// `sessionAffinity` with its timeout.
fn session_affinity(spec: &Node<'_>, object: &str, report: &mut Report<'_>) -> Option<u32> {
    let keeps = spec
        .get("sessionAffinity")
        .and_then(|node| report.part("sessionAffinity", object, keeps_clients(node)));
    if keeps != Some(true) {
        return None;
    }
    let config = spec.get("sessionAffinityConfig").and_then(|config| config.get("clientIP"));
    let given = config.and_then(|config| config.get("timeoutSeconds"));
    Some(report.part("timeoutSeconds", object, timeout(given)).unwrap_or(AFFINITY_TIMEOUT))
}

/// `healthCheckNodePort`, of services that have it: those whose clients outside are held to this node's backends.
fn health_check(
    spec: &Node<'_>,
    policy: TrafficPolicy,
    object: &str,
    report: &mut Report<'_>,
) -> Option<u16> {
    let node = spec.get("healthCheckNodePort").filter(|node| !is_zero(node))?;
    let port = report.part("healthCheckNodePort", object, node_port(node))?;
    (policy == TrafficPolicy::Local).then_some(port)
}

/// The ports; those that are wrong are left out and reported.
fn service_ports(
    spec: &Node<'_>,
    kind: ServiceType,
    place: &Place,
    object: &str,
    report: &mut Report<'_>,
) -> Result<Vec<ServicePort>, Bad> {
    let nodes = spec.get("ports").map(|node| list(node, "ports")).transpose()?.unwrap_or_default();
    if nodes.is_empty() {
        let at = place.at.unwrap_or(spec.at);
        return Err(Bad::new(at, "it has no ports; add spec.ports"));
    }
    let mut ports: Vec<ServicePort> = Vec::new();
    for node in nodes {
        let number = node.get("port").ok_or_else(|| Bad::new(node.at, "it has no number; add port"));
        let Some(number) = report.part("a port", object, number.and_then(port)) else { continue };
        let what = format!("port {number}");
        let read = node.get("protocol").map_or(Ok(Protocol::Tcp), protocol).and_then(|protocol| {
            if ports.iter().any(|old| (old.port, old.protocol) == (number, protocol)) {
                return Err(Bad::new(node.at, format!("{number}/{protocol} is given twice; take one out")));
            }
            Ok((port_name(node)?, protocol))
        });
        let Some((name, protocol)) = report.part(&what, object, read) else { continue };
        let own = node.get("nodePort").filter(|node| kind != ServiceType::ClusterIp && !is_zero(node));
        let node_port =
            own.and_then(|node| report.part(&format!("the node port of {what}"), object, node_port(node)));
        ports.push(ServicePort { name, port: number, node_port, protocol, ..ServicePort::default() });
    }
    Ok(ports)
}

/// Whether a number says that there is none.
fn is_zero(node: &Node<'_>) -> bool {
    text(node, "a number").is_ok_and(|text| text == "0")
}
