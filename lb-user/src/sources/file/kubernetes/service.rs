//! `v1 Service`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    super::{
        super::{
            fields::{address, list, port, protocol, text, word},
            problem::{Bad, Place, Report},
            values::{admit_source_ranges, keeps_clients, node_port, policy, timeout},
            yaml::Node,
        },
        assemble::{Draft, Origin},
    },
    family, items, object_name, port_name,
};
use crate::model::{Protocol, Service, ServiceName, ServicePort, ServiceType};

/// The annotation that says what `loadBalancerSourceRanges` says where that is left out.
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// A service that has something to serve; `None` for headless ones and mere names of others.
///
/// `trafficDistribution` is not read: it tells the controller of the slices which hints to write, and those
/// are what counts, as for kube-proxy. Of no meaning here is `healthCheckNodePort`; `loadBalancerIP` only asks
/// for an address, the status says which ones there are.
pub(super) fn service(node: &Node<'_>, report: &mut Report<'_>) -> Result<Option<Draft>, Bad> {
    let name = object_name(node)?;
    let spec = node.get("spec").ok_or_else(|| Bad::new(node.at, "it has no spec; write one with ports"))?;
    let Some(kind) = service_type(spec)? else { return Ok(None) };
    let own = node.get("metadata").and_then(|metadata| metadata.get("name"));
    let place = report.place(own.unwrap_or(node).at);
    let Some(addresses) = cluster_ips(spec)? else { return Ok(None) };

    let created = node.get("metadata").and_then(|metadata| metadata.get("creationTimestamp"));
    let origin = match created.map(|node| text(node, "creationTimestamp")).transpose()? {
        Some(time) => Origin::Created(time.to_owned()),
        None => Origin::Undated,
    };
    let mut draft = Draft::new(name.clone(), place, origin);
    draft.families = items(spec, "ipFamilies")?.iter().map(family).collect::<Result<_, _>>()?;
    let mut service = Service {
        kind,
        addresses,
        external_ips: external_ips(spec, &name, report)?,
        internal_policy: policy(spec.get("internalTrafficPolicy"))?,
        external_policy: policy(spec.get("externalTrafficPolicy"))?,
        affinity: session_affinity(spec)?,
        ports: service_ports(spec, kind, &draft.place, &name, report)?,
        ..Service::default()
    };
    if kind == ServiceType::LoadBalancer {
        service.load_balancer_ips = load_balancer_ips(node, &name, report)?;
        service.source_ranges = source_ranges(node, spec)?;
    }
    service.name = name;
    draft.service = service;
    Ok(Some(draft))
}

/// The type; `None` for one that is no more than another name.
fn service_type(spec: &Node<'_>) -> Result<Option<ServiceType>, Bad> {
    let known = [
        ("ClusterIP", Some(ServiceType::ClusterIp)),
        ("NodePort", Some(ServiceType::NodePort)),
        ("LoadBalancer", Some(ServiceType::LoadBalancer)),
        ("ExternalName", None),
    ];
    spec.get("type").map_or(Ok(Some(ServiceType::ClusterIp)), |node| word(node, "a type of services", &known))
}

/// One address of each family at most, none if they are to be given; `None` for a headless service.
fn cluster_ips(spec: &Node<'_>) -> Result<Option<Vec<IpAddr>>, Bad> {
    let mut nodes: Vec<&Node<'_>> = items(spec, "clusterIPs")?.iter().collect();
    if nodes.is_empty() {
        nodes.extend(spec.get("clusterIP"));
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    for node in nodes {
        match text(node, "a cluster IP")? {
            "None" => return Ok(None),
            "" => continue,
            _ => {}
        }
        let new = address(node, "a service's address")?;
        if let Some(old) = addresses.iter().find(|old| old.is_ipv4() == new.is_ipv4()) {
            let text = format!("{new} and {old} are of one family; a service has one address of each");
            return Err(Bad::new(node.at, text));
        }
        addresses.push(new);
    }
    Ok(Some(addresses))
}

/// `spec.externalIPs`; one that is nobody's to serve is left out and reported.
fn external_ips(spec: &Node<'_>, service: &ServiceName, report: &mut Report<'_>) -> Result<Vec<IpAddr>, Bad> {
    let nodes = items(spec, "externalIPs")?;
    Ok(nodes.iter().filter_map(|node| outside(node, "an external IP", service, report)).collect())
}

/// `status.loadBalancer.ingress`: those addresses whose traffic comes here as it was sent, which is what a
/// left-out `ipMode` means, too (KEP-1860).
fn load_balancer_ips(
    node: &Node<'_>,
    service: &ServiceName,
    report: &mut Report<'_>,
) -> Result<Vec<IpAddr>, Bad> {
    let mut addresses = Vec::new();
    let Some(status) = node.get("status").and_then(|status| status.get("loadBalancer")) else {
        return Ok(addresses);
    };
    for item in items(status, "ingress")? {
        let proxied = item.get("ipMode").map(|node| text(node, "ipMode")).transpose()? == Some("Proxy");
        let own = item.get("ip").filter(|_| !proxied);
        addresses.extend(own.and_then(|node| outside(node, "a load balancer IP", service, report)));
    }
    Ok(addresses)
}

/// An address besides the cluster IPs, or `None` with a problem noted.
fn outside(node: &Node<'_>, what: &str, service: &ServiceName, report: &mut Report<'_>) -> Option<IpAddr> {
    let read = address(node, what);
    let named = |bad: Bad| Bad::new(bad.at, format!("{what} of Service {service} is left out: {}", bad.text));
    report.take(read.map_err(named))
}

/// `spec.loadBalancerSourceRanges`, else those of the annotation. None can be left out: that would let more
/// clients in.
fn source_ranges(node: &Node<'_>, spec: &Node<'_>) -> Result<Vec<IpNet>, Bad> {
    let nodes = items(spec, "loadBalancerSourceRanges")?;
    if let (false, Some(list)) = (nodes.is_empty(), spec.get("loadBalancerSourceRanges")) {
        admit_source_ranges(list, nodes.len())?;
        return nodes.iter().map(|node| source_range(node, text(node, "a source range")?)).collect();
    }
    let annotations = node.get("metadata").and_then(|metadata| metadata.get("annotations"));
    let Some(node) = annotations.and_then(|annotations| annotations.get(SOURCE_RANGES)) else {
        return Ok(Vec::new());
    };
    let texts: Vec<&str> = text(node, "a list of source ranges")?
        .split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .collect();
    admit_source_ranges(node, texts.len())?;
    texts.into_iter().map(|text| source_range(node, text)).collect()
}

/// A range as Kubernetes takes it: bits behind the prefix do not count.
fn source_range(node: &Node<'_>, text: &str) -> Result<IpNet, Bad> {
    let range = text.trim().parse::<IpNet>();
    range.map(|range| range.trunc()).map_err(|_| {
        Bad::new(node.at, format!("\"{text}\" is not a range of addresses; write one like 198.51.100.0/24"))
    })
}

/// `sessionAffinity` with its timeout.
fn session_affinity(spec: &Node<'_>) -> Result<Option<u32>, Bad> {
    if !spec.get("sessionAffinity").map_or(Ok(false), keeps_clients)? {
        return Ok(None);
    }
    let config = spec.get("sessionAffinityConfig").and_then(|config| config.get("clientIP"));
    timeout(config.and_then(|config| config.get("timeoutSeconds"))).map(Some)
}

/// The ports; those of a protocol that is not known are left out and reported.
fn service_ports(
    spec: &Node<'_>,
    kind: ServiceType,
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
        let mut left_out = |what: String, bad: Bad| {
            report.say(bad.at, format!("{what} of Service {service} is left out: {}", bad.text));
        };
        let protocol = match node.get("protocol").map(protocol).transpose() {
            Ok(given) => given.unwrap_or(Protocol::Tcp),
            Err(bad) => {
                left_out(format!("port {new}"), bad);
                continue;
            }
        };
        if ports.iter().any(|old| (old.port, old.protocol) == (new, protocol)) {
            return Err(Bad::new(node.at, format!("port {new}/{protocol} is given twice; take one out")));
        }
        let own = node.get("nodePort").filter(|node| kind != ServiceType::ClusterIp && !is_zero(node));
        let node_port = own.map(node_port).transpose().unwrap_or_else(|bad| {
            left_out(format!("the node port of port {new}"), bad);
            None
        });
        let name = port_name(node)?;
        ports.push(ServicePort { name, port: new, node_port, protocol, ..ServicePort::default() });
    }
    Ok(ports)
}

/// Whether a number says that there is none.
fn is_zero(node: &Node<'_>) -> bool {
    text(node, "a number").is_ok_and(|text| text == "0")
}
