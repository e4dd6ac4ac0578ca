//! `v1 Node`: its zone, its addresses, its pods' networks.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    super::super::{
        fields::{name, text},
        problem::{Bad, Report},
        yaml,
    },
    ip::{address, range},
    items_or_none, label, object_name,
};
use crate::model::Node;

/// The label that says in which zone a node is.
const ZONE: &str = "topology.kubernetes.io/zone";

/// What is used of a Node, with its name. What is wrong is left out and reported alone.
pub(super) fn node(node: &yaml::Node<'_>, report: &mut Report<'_>) -> Result<(String, Node), Bad> {
    let own_name = object_name(node)?.name;
    let object = format!("Node {own_name}");
    let zone = label(node, ZONE).and_then(|node| report.part("the zone", &object, name(node, "a zone")));
    let pod_cidrs = pod_cidrs(node, &object, report);
    let addresses = internal_addresses(node, &object, report);
    Ok((own_name.clone(), Node { name: Some(own_name), addresses, pod_cidrs, zone }))
}

/// `podCIDRs`, or where that is left out `podCIDR`.
fn pod_cidrs(node: &yaml::Node<'_>, object: &str, report: &mut Report<'_>) -> Vec<IpNet> {
    let Some(spec) = node.get("spec") else { return Vec::new() };
    let several = items_or_none(spec, "podCIDRs", object, report);
    let nodes = several.iter().chain(spec.get("podCIDR").filter(|_| several.is_empty()));
    let read = |node| range(node, text(node, "a range")?);
    nodes.filter_map(|node| report.part("a podCIDR", object, read(node))).collect()
}

/// The addresses of type InternalIP, in their order.
fn internal_addresses(node: &yaml::Node<'_>, object: &str, report: &mut Report<'_>) -> Vec<IpAddr> {
    let Some(status) = node.get("status") else { return Vec::new() };
    let mut internal = Vec::new();
    for item in items_or_none(status, "addresses", object, report) {
        let (Some(kind), Some(own)) = (item.get("type"), item.get("address")) else { continue };
        let read = text(kind, "type").and_then(|kind| match kind {
            "InternalIP" => address(own, "a node's address").map(Some),
            _ => Ok(None),
        });
        internal.extend(report.part("an address", object, read).flatten());
    }
    internal
}
