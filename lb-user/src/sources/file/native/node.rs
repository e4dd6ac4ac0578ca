//! `node` and `nodePortAddresses`: what the config says about the node it is read on.

use super::{
    super::super::{
        fields::{self, address, fields, name, text},
        problem::{Bad, Report},
        yaml,
    },
    given, items, range,
};
use crate::model::{Node, NodePortAddress};

/// `node`; what it leaves out is found on the host.
pub(super) fn node(node: &yaml::Node<'_>, report: &mut Report<'_>) -> Option<Node> {
    let known = ["name", "addresses", "podCIDRs", "zone"];
    let [own_name, addresses, pods, zone] = fields(node, "node", known, report)?;
    let addresses = items(addresses, "addresses", report).iter();
    let pods = items(pods, "podCIDRs", report).iter();
    Some(Node {
        name: given(own_name, |node| name(node, "a node's name").map(Some), report),
        addresses: addresses.filter_map(|node| report.take(address(node, "a node's address"))).collect(),
        pod_cidrs: pods.filter_map(|node| report.take(range(node))).collect(),
        zone: given(zone, |node| name(node, "a zone").map(Some), report),
    })
}

/// An item of `nodes`, with its name.
pub(super) fn named(item: &yaml::Node<'_>, report: &mut Report<'_>) -> Option<(String, Node)> {
    let node = node(item, report)?;
    let name = node.name.clone();
    if name.is_none() {
        report.say(item.at, "the node has no name; add `name: NAME`, as backends' `node` has it");
    }
    name.map(|name| (name, node))
}

/// An item of `nodePortAddresses`: `primary`, an address or a range.
pub(super) fn node_port_address(node: &yaml::Node<'_>) -> Result<NodePortAddress, Bad> {
    let text = text(node, "an address for node ports")?;
    if text == "primary" {
        Ok(NodePortAddress::Primary)
    } else if text.contains('/') {
        fields::range(node).map(NodePortAddress::Range)
    } else {
        address(node, "an address for node ports").map(|address| NodePortAddress::Range(address.into()))
    }
}
