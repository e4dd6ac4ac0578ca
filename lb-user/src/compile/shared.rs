//! Frontends at the host's own addresses that several services ask for: which addresses those are is known on the node
//! alone, not where the services are checked against each other.

use std::collections::{BTreeSet, HashMap, HashSet};

use lb_common::abi::FrontendKind;

use super::{Frontend, NodeFacts, frontends};
use crate::model::{Model, ServiceName, ServicePort};

/// The frontends that more than one service asks for.
#[derive(Debug, Default)]
pub struct Shared {
    pub(super) owners: HashMap<Frontend, ServiceName>,
    /// Services that do not get one of them.
    pub losers: BTreeSet<ServiceName>,
}

impl Shared {
    /// The service that has a frontend, if it is another one than this.
    pub fn other_owner(&self, at: &Frontend, service: &ServiceName) -> Option<&ServiceName> {
        self.owners.get(at).filter(|owner| *owner != service)
    }
}

/// The frontends that more than one service asks for, and who gets them: who names the address before who has a port of
/// the node, a node port before a host port, and of two alike the first by name.
pub fn shared(model: &Model, node: &NodeFacts) -> Shared {
    let addresses: HashSet<_> = node.node_ports.iter().chain(&node.host_ports).collect();
    let mut owners: HashMap<Frontend, (u8, &ServiceName)> = HashMap::new();
    let (mut contested, mut losers) = (HashSet::new(), BTreeSet::new());
    for service in model.services.values() {
        let of_node = |port: &ServicePort| port.node_port.is_some() || port.host_port.is_some();
        let named = [&service.addresses, &service.external_ips, &service.load_balancer_ips];
        if !service.ports.iter().any(of_node) && !named.into_iter().flatten().any(|at| addresses.contains(at))
        {
            continue;
        }
        for &cluster_ip in &service.addresses {
            let all = service.ports.iter().flat_map(|port| frontends(service, port, cluster_ip, node));
            for frontend in all.filter(|frontend| addresses.contains(&frontend.at.address)) {
                let claim = (rank(frontend.kind), &service.name);
                let owner = owners.entry(frontend.at).or_insert(claim);
                if owner.1 != claim.1 {
                    contested.insert(frontend.at);
                    losers.insert(claim.max(*owner).1.clone());
                    *owner = claim.min(*owner);
                }
            }
        }
    }
    let owned = |at: &Frontend| owners.get(at).map(|(_, name)| (*at, (*name).clone()));
    Shared { owners: contested.iter().filter_map(owned).collect(), losers }
}

fn rank(kind: FrontendKind) -> u8 {
    match kind {
        FrontendKind::ClusterIp => 0,
        FrontendKind::LoadBalancer | FrontendKind::ExternalIp => 1,
        FrontendKind::NodePort => 2,
        FrontendKind::HostPort => 3,
        FrontendKind::Address | FrontendKind::Node => 4,
    }
}
