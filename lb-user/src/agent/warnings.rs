//! What stands in the way on this host: nothing is refused for it.

use std::net::IpAddr;

use tracing::warn;

use super::{
    dsr, ephemeral::Ephemeral, node, ports::Ports, program_config::ProgramConfig, publish::Publisher, snat,
    wanted_neighbours::WantedNeighbours,
};
use crate::netlink::World;

/// Says what stands in the way of backends outside, and what XDP costs, once, and keeps it for `lb status`.
pub fn say(
    publisher: &mut Publisher,
    facts: &ProgramConfig,
    wanted: &WantedNeighbours,
    ports: &Ports,
    world: &World,
) {
    let view = &ports.view(world);
    let mut said = snat::warnings(facts, view, Ephemeral::now().as_ref(), |family| publisher.remote(family));
    said.extend(dsr::warnings(&publisher.model, view));
    said.extend(node::warning(&publisher.model, view));
    said.extend(wanted.warnings(view));
    said.extend(ports.warnings(world));
    for line in said.iter().filter(|line| !publisher.view.warnings.contains(line)) {
        warn!("{line}");
    }
    let host = [facts.host.0.map(IpAddr::from), facts.host.1.map(IpAddr::from)];
    let host: Vec<IpAddr> = host.into_iter().flatten().collect();
    if (&said, &host) != (&publisher.view.warnings, &publisher.view.node_addresses) {
        (publisher.view.warnings, publisher.view.node_addresses) = (said, host);
        publisher.view_changed();
    }
}
