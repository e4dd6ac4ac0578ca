//! Ranges of the node's ports: `snatPorts`, which flows to other nodes have, and `nodePortRange`.

use std::str::FromStr as _;

use super::super::{
    super::{fields::text, problem::Bad, yaml::Node},
    assemble::FEWEST,
};
use crate::model::PortRange;

/// `snatPorts`: a range, or `none`.
pub(super) fn snat_ports(node: &Node<'_>) -> Result<Option<PortRange>, Bad> {
    if text(node, "snatPorts")? == "none" {
        return Ok(None);
    }
    let more = ", or none to let clients keep their source";
    let range = port_range(node, "snatPorts", PortRange::SNAT, more)?;
    let text = text(node, "snatPorts")?;
    let bad = |why: String| Bad::new(node.at, why);
    if range.first < 1024 {
        return Err(bad(format!(
            "{text} has ports below 1024, which servers are at; begin at 1024 or above"
        )));
    }
    if range.count() < FEWEST {
        let count = range.count();
        return Err(bad(format!(
            "{text} has only {count} ports, and each flow to a backend needs one; write at least {FEWEST}"
        )));
    }
    Ok(Some(range))
}

/// `nodePortRange`.
pub(super) fn node_port_range(node: &Node<'_>) -> Result<PortRange, Bad> {
    let range = port_range(node, "nodePortRange", PortRange::NODE, "")?;
    match range.first {
        0 => Err(Bad::new(node.at, format!("{range} has port 0, which is none; begin at 1 or above"))),
        _ => Ok(range),
    }
}

/// `FIRST-LAST`; `more` is what else could be written.
fn port_range(node: &Node<'_>, what: &str, example: PortRange, more: &str) -> Result<PortRange, Bad> {
    let text = text(node, what)?;
    let ends = text.split_once('-').and_then(|(first, last)| {
        let port = |text: &str| u16::from_str(text.trim()).ok();
        Some((port(first)?, port(last)?))
    });
    let (first, last) = ends.ok_or_else(|| {
        let text = format!("\"{text}\" is not a range of ports; write one like {example}{more}");
        Bad::new(node.at, text)
    })?;
    if last < first {
        return Err(Bad::new(node.at, format!("{text} has no port; write the smaller number first")));
    }
    Ok(PortRange { first, last })
}
