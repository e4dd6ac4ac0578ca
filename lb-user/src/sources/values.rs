//! Values that a Service has in our documents and in Kubernetes' objects alike.

use super::{
    fields::{number, word},
    problem::Bad,
    yaml::Node,
};
use crate::model::TrafficPolicy;

/// Source ranges that one service can have.
pub(super) const MAX_SOURCE_RANGES: usize = 10_000;

/// Seconds that a client keeps its backend where nothing else is said (`v1 ClientIPConfig`).
pub(super) const AFFINITY_TIMEOUT: u32 = 10_800;

/// `internalTrafficPolicy` or `externalTrafficPolicy`; left out: `Cluster`.
pub(super) fn policy(node: Option<&Node<'_>>) -> Result<TrafficPolicy, Bad> {
    let known = [("Cluster", TrafficPolicy::Cluster), ("Local", TrafficPolicy::Local)];
    node.map_or(Ok(TrafficPolicy::Cluster), |node| word(node, "a traffic policy", &known))
}

/// The word `sessionAffinity`: whether a client keeps its backend.
pub(super) fn keeps_clients(node: &Node<'_>) -> Result<bool, Bad> {
    word(node, "a session affinity", &[("None", false), ("ClientIP", true)])
}

/// `timeoutSeconds` of an affinity, 1 to 86,400; left out: [`AFFINITY_TIMEOUT`].
pub(super) fn timeout(node: Option<&Node<'_>>) -> Result<u32, Bad> {
    node.map_or(Ok(AFFINITY_TIMEOUT), |node| number(node, "a timeout in seconds", 1..=86_400))
}

/// A node port, of whatever range.
pub(super) fn node_port(node: &Node<'_>) -> Result<u16, Bad> {
    number(node, "a node port", 1..=u16::MAX)
}

/// Refuses more source ranges than a service can have; `node` holds them.
pub(super) fn admit_source_ranges(node: &Node<'_>, count: usize) -> Result<(), Bad> {
    if count <= MAX_SOURCE_RANGES {
        return Ok(());
    }
    let text = format!(
        "{count} source ranges, but a service can have at most {MAX_SOURCE_RANGES}; join them to larger ones"
    );
    Err(Bad::new(node.at, text))
}
