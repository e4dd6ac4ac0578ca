//! `snatPorts`: which ports of the node flows to other nodes have.

use std::str::FromStr as _;

use super::super::super::{fields::text, problem::Bad, yaml::Node};
use crate::model::PortRange;

/// The fewest ports: with less, a handful of clients is all that a backend gets.
const FEWEST: u32 = 64;

/// `snatPorts`: a range, or `none`.
pub(super) fn snat_ports(node: &Node<'_>) -> Result<Option<PortRange>, Bad> {
    let text = text(node, "snatPorts")?;
    if text == "none" {
        return Ok(None);
    }
    let bad = |why: String| Bad::new(node.at, why);
    let ends = text.split_once('-').and_then(|(first, last)| {
        let port = |text: &str| u16::from_str(text.trim()).ok();
        Some((port(first)?, port(last)?))
    });
    let (first, last) = ends.ok_or_else(|| {
        bad(format!(
            "\"{text}\" is not a range of ports; write one like {}, or none to let clients keep their source",
            PortRange::SNAT
        ))
    })?;
    if last < first {
        return Err(bad(format!("{text} has no port; write the smaller number first")));
    }
    if first < 1024 {
        return Err(bad(format!(
            "{text} has ports below 1024, which servers are at; begin at 1024 or above"
        )));
    }
    let range = PortRange { first, last };
    if range.count() < FEWEST {
        let count = range.count();
        return Err(bad(format!(
            "{text} has only {count} ports, and each flow to a backend needs one; write at least {FEWEST}"
        )));
    }
    Ok(Some(range))
}
