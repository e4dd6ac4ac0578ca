//! Our own documents: short, for people without Kubernetes.
//!
//! ```yaml
//! node: {name: node1, addresses: [192.168.1.11], podCIDRs: [10.244.1.0/24], zone: a}  # else found on the host
//! nodes:                             # the others, for forwarding: dsr
//!   - {name: node2, addresses: [192.168.1.12, "fd00:1::12"]}  # podCIDRs, zone
//! serviceCIDRs: [10.96.0.0/12]
//! nodePortAddresses: [primary]       # or addresses and ranges
//! hashSeed: 7f3a                     # the same on every node; else random
//! lifetimes: {tcpEstablished: 5d, udpAnswered: 180s}  # and tcpClosing, tcpUnanswered, udpUnanswered, sctp
//! snatPorts: 10000-29999             # or none
//! nodePortRange: 30000-32767
//! services:
//!   - name: web                      # namespace: default
//!     type: LoadBalancer             # or ClusterIP, NodePort
//!     addresses: [10.96.0.10, "fd00:96::10"]  # or one address:, or none: given from serviceCIDRs
//!     externalIPs: [203.0.113.10]
//!     loadBalancerIPs: [198.51.100.10]
//!     loadBalancerSourceRanges: [198.51.100.0/24]
//!     externalTrafficPolicy: Local   # or Cluster
//!     internalTrafficPolicy: Cluster # or Local
//!     sessionAffinity: {clientIP: {timeoutSeconds: 10800}}  # or ClientIP, None
//!     algorithm: maglev              # or random
//!     trafficDistribution: PreferSameZone  # or PreferSameNode, PreferClose
//!     onRemoval: keep                # or reset
//!     forwarding: snat               # or dsr
//!     healthCheckNodePort: 31000     # with LoadBalancer and Local
//!     ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30080, protocol: TCP}]  # or hostPort
//!     backends:
//!       - {address: 10.244.1.2, port: 8080, weight: 1, node: node1, zone: a, ready: true}
//!       - {address: 10.244.1.3, serving: true, terminating: true}
//! ```

mod backends;
mod lifetimes;
mod node;
mod port_ranges;
mod ports;
mod service;

use ipnet::IpNet;

use super::{
    super::{
        fields::{self, fields, list, text},
        problem::{Bad, Report},
        yaml::Node,
    },
    assemble::Drafts,
    places::Places,
};
use crate::model::refused::Refusal;

/// Reads one document into `drafts`.
pub(super) fn document(node: &Node<'_>, drafts: &mut Drafts, places: &mut Places, report: &mut Report<'_>) {
    let known = [
        "node",
        "nodes",
        "serviceCIDRs",
        "nodePortAddresses",
        "hashSeed",
        "lifetimes",
        "snatPorts",
        "nodePortRange",
        "services",
    ];
    let Some([own, nodes, cidrs, node_ports, seed, lifetimes, snat, node_port_range, services]) =
        fields(node, "the config", known, report)
    else {
        return;
    };
    if let Some(own) = own {
        let read = self::node::node(own, report);
        once(&mut drafts.node, read, own, "node", report);
    }
    for item in items(nodes, "nodes", report) {
        let Some((name, node)) = self::node::named(item, report) else { continue };
        if drafts.nodes.get(&name).is_some_and(|known| *known != node) {
            report.say(item.at, format!("node {name} is given twice, and differently; keep one"));
        }
        drafts.nodes.insert(name, node);
    }
    for node in items(cidrs, "serviceCIDRs", report) {
        if let Some(range) = report.take(range(node)) {
            report.take(drafts.add_range(range).map_err(|text| Bad::new(node.at, text)));
        }
    }
    for node in items(node_ports, "nodePortAddresses", report) {
        if let Some(address) = report.take(self::node::node_port_address(node)) {
            drafts.add_node_port_address(address);
        }
    }
    if let Some(node) = seed {
        let read = report.take(hash_seed(node));
        once(&mut drafts.hash_seed, read, node, "hashSeed", report);
    }
    if let Some(node) = lifetimes {
        let read = self::lifetimes::lifetimes(node, report);
        once(&mut drafts.lifetimes, read, node, "lifetimes", report);
    }
    if let Some(node) = snat {
        let read = report.take(self::port_ranges::snat_ports(node));
        once(&mut drafts.snat_ports, read, node, "snatPorts", report);
    }
    if let Some(node) = node_port_range {
        let read = report.take(self::port_ranges::node_port_range(node));
        once(&mut drafts.node_port_range, read, node, "nodePortRange", report);
    }
    for node in items(services, "services", report) {
        drafts.services.extend(service::service(node, places, report));
    }
}

/// Keeps what several documents may say, but only alike.
fn once<T: PartialEq>(
    known: &mut Option<(T, super::super::problem::Place)>,
    new: Option<T>,
    node: &Node<'_>,
    what: &str,
    report: &mut Report<'_>,
) {
    match (&known, new) {
        (_, None) => {}
        (Some((old, place)), Some(new)) if *old != new => {
            report.say(node.at, format!("{what} differs from the one at {place}; keep one"));
        }
        (_, Some(new)) => *known = Some((new, report.place(node.at))),
    }
}

/// The items of a list that may be left out.
fn items<'n, 't>(node: Option<&'n Node<'t>>, what: &str, report: &mut Report<'_>) -> &'n [Node<'t>] {
    node.and_then(|node| report.take(list(node, what))).unwrap_or_default()
}

/// A value that may be left out. What is wrong is noted; then it does not matter what it is.
fn given<T: Default>(
    node: Option<&Node<'_>>,
    read: impl FnOnce(&Node<'_>) -> Result<T, Bad>,
    report: &mut Report<'_>,
) -> T {
    node.and_then(|node| report.take(read(node))).unwrap_or_default()
}

/// A range that services or pods have their addresses from.
fn range(node: &Node<'_>) -> Result<IpNet, Bad> {
    let range = fields::range(node)?;
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
