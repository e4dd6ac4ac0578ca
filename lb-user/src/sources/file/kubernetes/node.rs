//! `v1 Node`: its zone, its addresses, its pods' networks.

use std::net::IpAddr;

use super::{
    super::super::{
        fields::{address, name, range, text},
        problem::Bad,
        yaml,
    },
    items, label, object_name,
};
use crate::model::Node;

/// The label that says in which zone a node is.
const ZONE: &str = "topology.kubernetes.io/zone";

/// What is used of a Node, with its name.
pub(super) fn node(node: &yaml::Node<'_>) -> Result<(String, Node), Bad> {
    let own_name = object_name(node)?.name;
    let zone = label(node, ZONE).map(|node| name(node, "a zone")).transpose()?;
    let mut pod_cidrs = Vec::new();
    if let Some(spec) = node.get("spec") {
        pod_cidrs = items(spec, "podCIDRs")?.iter().map(range).collect::<Result<_, _>>()?;
        if let (true, Some(one)) = (pod_cidrs.is_empty(), spec.get("podCIDR")) {
            pod_cidrs.push(range(one)?);
        }
    }
    let addresses = internal_addresses(node)?;
    Ok((own_name.clone(), Node { name: Some(own_name), addresses, pod_cidrs, zone }))
}

/// The addresses of type InternalIP, in their order.
fn internal_addresses(node: &yaml::Node<'_>) -> Result<Vec<IpAddr>, Bad> {
    let mut internal = Vec::new();
    let Some(status) = node.get("status") else { return Ok(internal) };
    for item in items(status, "addresses")? {
        let (Some(kind), Some(own)) = (item.get("type"), item.get("address")) else { continue };
        if text(kind, "type")? == "InternalIP" {
            internal.push(address(own, "a node's address")?);
        }
    }
    Ok(internal)
}
