//! Our own documents: short, for people without Kubernetes.
//!
//! ```yaml
//! serviceCIDRs: [10.96.0.0/12]
//! services:
//!   - name: web
//!     address: 10.96.0.10
//!     ports: [{port: 80, targetPort: 8080, protocol: TCP}]
//!     backends: [{address: 10.244.1.2}, {address: 10.244.1.3, weight: 2}]
//! ```

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    super::{
        fields::{address, fields, list, name, number, port, protocol, text},
        problem::{Bad, Position, Report},
        yaml::Node,
    },
    assemble::{Draft, Drafts, MAX_BACKENDS, Origin},
};
use crate::model::{Conditions, Endpoint, Protocol, ServiceName, ServicePort, refused::Refusal};

/// Reads one document into `drafts`.
pub(super) fn document(node: &Node<'_>, drafts: &mut Drafts, report: &mut Report<'_>) {
    let known = ["serviceCIDRs", "hashSeed", "services"];
    let Some([cidrs, seed, services]) = fields(node, "the config", known, report) else { return };
    for node in items(cidrs, "serviceCIDRs", report) {
        if let Some(range) = report.take(range(node)) {
            drafts.add_range(range);
        }
    }
    if let Some(node) = seed
        && let Some(seed) = report.take(hash_seed(node))
    {
        match &drafts.hash_seed {
            Some((other, place)) if *other != seed => {
                report.say(node.at, format!("hashSeed differs from the one at {place}; keep one"));
            }
            _ => drafts.hash_seed = Some((seed, report.place(node.at))),
        }
    }
    for node in items(services, "services", report) {
        drafts.services.extend(service(node, report));
    }
}

/// The items of a list that may be left out.
fn items<'n, 't>(node: Option<&'n Node<'t>>, what: &str, report: &mut Report<'_>) -> &'n [Node<'t>] {
    node.and_then(|node| report.take(list(node, what))).unwrap_or_default()
}

fn range(node: &Node<'_>) -> Result<IpNet, Bad> {
    let text = text(node, "a range")?;
    let range: IpNet = text.parse().map_err(|_| {
        Bad::new(node.at, format!("\"{text}\" is not a range of addresses; write one like 10.96.0.0/12"))
    })?;
    if range != range.trunc() {
        let whole = range.trunc();
        return Err(Bad::new(node.at, format!("{range} has bits set behind its prefix; write {whole}")));
    }
    let ends = [range.network(), range.broadcast()];
    match ends.into_iter().find_map(|end| Refusal::of(end).map(|refusal| (end, refusal))) {
        None => Ok(range),
        Some((end, refusal)) => {
            let advice = "use a range of private addresses that nothing else has";
            Err(Bad::new(node.at, format!("{range} cannot be used: {end} is {refusal}; {advice}")))
        }
    }
}

fn hash_seed(node: &Node<'_>) -> Result<u64, Bad> {
    let text = text(node, "hashSeed")?;
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let hex = digits.len() <= 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(digits, 16).ok().filter(|_| hex).ok_or_else(|| {
        Bad::new(
            node.at,
            format!("\"{text}\" is not a hashSeed; write 1 to 16 hexadecimal digits, like 5eed0001"),
        )
    })
}

/// A port of a service, before the backends are known.
struct Port {
    name: String,
    port: u16,
    target: u16,
    protocol: Protocol,
    at: Position,
}

struct Backend {
    address: IpAddr,
    port: Option<u16>,
    weight: u16,
    at: Position,
}

fn service(node: &Node<'_>, report: &mut Report<'_>) -> Option<Draft> {
    let known = ["name", "namespace", "address", "addresses", "ports", "backends"];
    let [name_node, namespace, one, several, ports, backends] = fields(node, "a service", known, report)?;
    let namespace = match namespace {
        Some(node) => report.take(name(node, "a namespace's name")),
        None => Some("default".to_owned()),
    };
    let own_name = match name_node {
        Some(node) => report.take(name(node, "a service's name")),
        None => {
            report.say(node.at, "the service has no name; add `name: NAME`");
            None
        }
    };
    let addresses = addresses(one, several, report);
    let ports = service_ports(node, ports, report);
    let backends = service_backends(backends, report);
    let name = ServiceName { namespace: namespace?, name: own_name? };
    let place = report.place(name_node.unwrap_or(node).at);
    let mut draft = Draft::new(name, place, Origin::Ours);
    draft.addresses = addresses;
    for backend in &backends {
        draft.saw_backend(backend.address, || report.place(backend.at));
    }
    draft.ports = join(ports, &backends, report);
    Some(draft)
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

fn service_ports(service: &Node<'_>, ports: Option<&Node<'_>>, report: &mut Report<'_>) -> Vec<Port> {
    let nodes = items(ports, "ports", report);
    if nodes.is_empty() {
        report.say(service.at, "the service has no ports; add `ports: [{port: 80}]`");
    }
    let mut read: Vec<Port> = Vec::new();
    for node in nodes {
        let Some(new) = service_port(node, report) else { continue };
        match read.iter().find(|old| (old.port, old.protocol) == (new.port, new.protocol)) {
            Some(old) => {
                let first = report.place(old.at);
                let text = format!(
                    "port {}/{} is given twice in this service, first at {first}; take one out",
                    new.port, new.protocol
                );
                report.say(node.at, text);
            }
            None => read.push(new),
        }
    }
    read
}

fn service_port(node: &Node<'_>, report: &mut Report<'_>) -> Option<Port> {
    let known = ["name", "port", "targetPort", "protocol"];
    let [name_node, number, target, transport] = fields(node, "a port", known, report)?;
    let name = name_node.map_or(Some(String::new()), |node| report.take(name(node, "a port's name")));
    let target = target.map(|node| report.take(port(node)));
    let protocol = transport.map_or(Some(Protocol::Tcp), |node| report.take(protocol(node)));
    let Some(number) = number else {
        report.say(node.at, "the port has no number; add `port: 80`");
        return None;
    };
    let port = report.take(port(number))?;
    Some(Port { name: name?, port, target: target.unwrap_or(Some(port))?, protocol: protocol?, at: node.at })
}

fn service_backends(backends: Option<&Node<'_>>, report: &mut Report<'_>) -> Vec<Backend> {
    let nodes = items(backends, "backends", report);
    let count = nodes.len();
    if let Some(list) = backends
        && count > MAX_BACKENDS
    {
        let text =
            format!("{count} backends in one service, but at most {MAX_BACKENDS} are possible; split it");
        report.say(list.at, text);
        return Vec::new();
    }
    let read: Vec<Backend> = nodes.iter().filter_map(|node| backend(node, report)).collect();
    if let Some(list) = backends
        && !read.is_empty()
        && read.iter().all(|backend| backend.weight == 0)
    {
        let text =
            "every backend has weight 0, so none would get a connection; give one a weight of 1 or more";
        report.say(list.at, text);
    }
    read
}

fn backend(node: &Node<'_>, report: &mut Report<'_>) -> Option<Backend> {
    let [ip, own_port, weight] = fields(node, "a backend", ["address", "port", "weight"], report)?;
    let own_port = own_port.map(|node| report.take(port(node)));
    let weight = weight.map_or(Some(1), |node| report.take(number(node, "a weight", 0..=u16::MAX)));
    let Some(ip) = ip else {
        report.say(node.at, "the backend has no address; add `address: 10.244.1.2`");
        return None;
    };
    let address = report.take(address(ip, "a backend"))?;
    let port = match own_port {
        Some(port) => Some(port?),
        None => None,
    };
    Some(Backend { address, port, weight: weight?, at: ip.at })
}

/// Every port with its endpoints. A backend that is there twice is reported once.
fn join(ports: Vec<Port>, backends: &[Backend], report: &mut Report<'_>) -> Vec<ServicePort> {
    let mut twice = None;
    let mut joined = Vec::with_capacity(ports.len());
    for port in ports {
        let at_port = |backend: &Backend| (backend.address, backend.port.unwrap_or(port.target));
        let mut order: Vec<&Backend> = backends.iter().collect();
        order.sort_by_key(|backend| at_port(backend));
        let pair = order.windows(2).find(|pair| at_port(pair[0]) == at_port(pair[1]));
        twice = twice.or(pair.map(|pair| (pair[0].at, pair[1].at, at_port(pair[0]))));
        let endpoints = order.iter().map(|backend| {
            let (address, port) = at_port(backend);
            Endpoint { address, port, weight: backend.weight, conditions: Conditions::default(), place: None }
        });
        let endpoints = endpoints.collect();
        joined.push(ServicePort {
            name: port.name,
            port: port.port,
            protocol: port.protocol,
            endpoints,
            ..ServicePort::default()
        });
    }
    if let Some((first, second, (address, port))) = twice {
        let first = report.place(first);
        let text =
            format!("backend {address} port {port} is given twice, first at {first}; use weight instead");
        report.say(second, text);
    }
    joined
}
