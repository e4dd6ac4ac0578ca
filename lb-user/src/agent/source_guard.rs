//! SourceGuard: at which port of a bridge each neighbour's address is, so that the programs let nobody else call
//! in its name, and which other ports its pod has. See [`SourceGuardRow`] for which addresses have a row.

use std::collections::HashMap;

use lb_common::abi::{NeighKey, SourceGuardRow, bridge_zone, other_port};
use tracing::{debug, error};

use super::{
    routes::{self, View},
    table::Table,
};
use crate::{
    maps::Maps,
    netlink::{Link, LinkKind},
};

/// See the module.
pub struct SourceGuard {
    table: Table<NeighKey, SourceGuardRow>,
    /// The last write failed.
    failed: bool,
}

impl SourceGuard {
    /// What an agent before us has written.
    pub fn adopt(maps: &Maps) -> SourceGuard {
        SourceGuard { table: Table::adopt(&maps.source_guard), failed: false }
    }

    /// Follows what the kernel knows of neighbours and ports.
    pub fn update(&mut self, maps: &mut Maps, view: &View) {
        let written = self.table.update(&mut maps.source_guard, &find(view));
        // Said once, not with every try.
        if let (Err(problem), false) = (&written, self.failed) {
            error!(
                "writing at which ports the bridges' neighbours are: {problem}; trying again (the map has twice \
                 as many rows as --max-services; whoever has none may be called for by others)"
            );
        }
        self.failed = written.is_err();
        if written.is_ok_and(|changed| changed) {
            debug!("neighbours whose port is known: {}", self.table.len());
        }
    }

    /// Whether a write has failed and should be tried again.
    pub fn failed(&self) -> bool {
        self.failed
    }
}

fn find(view: &View) -> HashMap<NeighKey, SourceGuardRow> {
    let world = view.world;
    let pods = pods(view);
    let mut source_guard = HashMap::new();
    for ((bridge, address), neighbour) in &world.neighbours {
        let at = (*bridge, neighbour.mac);
        let port = world.fdb.get(&at).and_then(|port| world.links.get(port));
        let Some(port) = port.filter(|port| view.bridges.contains(bridge) && port.master == Some(*bridge))
        else {
            continue;
        };
        let mut row = SourceGuardRow { ifindex: port.ifindex, mac: routes::mac(neighbour.mac), zone: 0 };
        // What is only remembered does not count: whoever has the address now must not be taken for a stranger.
        if !world.forgotten.neighbours.contains(&(*bridge, *address)) && !world.forgotten.fdb.contains(&at) {
            source_guard.insert(routes::key(*address, *bridge), row);
        }
        row.zone = bridge_zone(*bridge);
        let ports = netns(port).and_then(|pod| pods.get(&pod)).into_iter().flatten();
        for other in ports.filter(|other| **other != port.ifindex) {
            let key = routes::key_by(*address, other_port(*other));
            // The same address at two ports of a pod with three: the same one each time.
            let known = source_guard.entry(key).or_insert(row);
            if row.ifindex < known.ifindex {
                *known = row;
            }
        }
    }
    source_guard
}

/// The ports of our bridges by the network namespace that they lead to: those of one are one pod's.
fn pods(view: &View) -> HashMap<i32, Vec<u32>> {
    let mut pods: HashMap<i32, Vec<u32>> = HashMap::new();
    for port in view.bridges.iter().flat_map(|bridge| view.world.ports(*bridge)) {
        if let Some(pod) = netns(port) {
            pods.entry(pod).or_default().push(port.ifindex);
        }
    }
    pods
}

/// The network namespace that a port leads to, if it is another one.
fn netns(port: &Link) -> Option<i32> {
    match port.kind {
        LinkKind::Veth { other_netns } => other_netns,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::{
        agent::options::Forward,
        netlink::{Link, Neighbour, World},
    };

    const RED: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const BLUE: [u8; 6] = [2, 0, 0, 0, 0, 3];

    /// Bridge 1, ours, with ports 2 (red) and 3 (blue); bridge 4, another's, with port 5.
    fn world() -> World {
        let mut world = World::default();
        for (ifindex, master) in [(1, None), (2, Some(1)), (3, Some(1)), (4, None), (5, Some(4))] {
            world.links.insert(ifindex, Link { ifindex, master, ..Link::default() });
        }
        world.fdb = [((1, RED), 2), ((1, BLUE), 3), ((4, RED), 5)].into();
        for (bridge, address, mac) in [
            (1, "10.244.1.2", RED),
            (1, "fd00:244:1::2", RED),
            (1, "10.244.1.3", BLUE),
            // Behind no port, and on what we do not serve.
            (1, "10.244.1.9", [2, 0, 0, 0, 0, 9]),
            (4, "10.244.4.2", RED),
            (5, "10.244.1.5", BLUE),
        ] {
            world.neighbours.insert((bridge, ip(address)), Neighbour { mac, permanent: false });
        }
        world
    }

    fn ip(address: &str) -> IpAddr {
        address.parse().expect("an address")
    }

    fn find_in(world: &World) -> HashMap<NeighKey, SourceGuardRow> {
        find(&View {
            world,
            bridges: &[1],
            ports: &[],
            uplinks: &[],
            forward: Forward::Auto,
            node: (None, None),
        })
    }

    fn source_guard<const N: usize>(rows: [(&str, u32, [u8; 6]); N]) -> HashMap<NeighKey, SourceGuardRow> {
        let row = |(address, ifindex, mac)| {
            (routes::key(ip(address), 1), SourceGuardRow { ifindex, mac: routes::mac(mac), zone: 0 })
        };
        rows.map(row).into()
    }

    #[test]
    fn neighbours_behind_ports_of_our_bridges() {
        let all = [("10.244.1.2", 2, RED), ("fd00:244:1::2", 2, RED), ("10.244.1.3", 3, BLUE)];
        assert_eq!(find_in(&world()), source_guard(all));
    }

    #[test]
    fn ports_of_one_network_namespace_are_one_pods() {
        let mut world = world();
        for (ifindex, master, netns) in [
            (2, 1, Some(7)),
            (3, 1, Some(8)),
            (6, 1, Some(7)),
            (5, 4, Some(7)),
            (8, 7, Some(7)),
            (9, 1, None),
        ] {
            let kind = LinkKind::Veth { other_netns: netns };
            world.links.insert(ifindex, Link { ifindex, master: Some(master), kind, ..Link::default() });
        }
        fn find_on_both(world: &World) -> HashMap<NeighKey, SourceGuardRow> {
            let (bridges, forward, node) = (&[1, 7], Forward::Auto, (None, None));
            find(&View { world, bridges, ports: &[], uplinks: &[], forward, node })
        }
        let other = |source_guard: &HashMap<NeighKey, SourceGuardRow>, address, port| {
            let row = source_guard.get(&routes::key_by(ip(address), other_port(port)));
            row.map(|row| (row.ifindex, row.zone))
        };
        let at_red = Some((2, bridge_zone(1)));
        let rows = find_on_both(&world);
        for (address, port, expected) in [
            ("10.244.1.2", 6, at_red),
            ("fd00:244:1::2", 6, at_red),
            // On another bridge of ours, on one that is not, its own port, another pod's and the host's.
            ("10.244.1.2", 8, at_red),
            ("10.244.1.2", 5, None),
            ("10.244.1.2", 2, None),
            ("10.244.1.2", 3, None),
            ("10.244.1.2", 9, None),
            ("10.244.1.3", 2, None),
        ] {
            assert_eq!(other(&rows, address, port), expected, "{address} at {port}");
        }
        // A backend's port is remembered, too.
        world.forgotten.fdb.insert((1, RED));
        let rows = find_on_both(&world);
        assert_eq!(other(&rows, "10.244.1.2", 6), at_red);
        assert!(!rows.contains_key(&routes::key(ip("10.244.1.2"), 1)));
    }

    #[test]
    fn what_goes_takes_its_rows_along() {
        let blue = [("10.244.1.3", 3, BLUE)];

        let mut without_port = world();
        without_port.links.remove(&2);
        assert_eq!(find_in(&without_port), source_guard(blue), "a port that is gone");

        let mut left = world();
        left.links.entry(2).and_modify(|port| port.master = None);
        assert_eq!(find_in(&left), source_guard(blue), "a port that has left the bridge");

        let mut moved = world();
        moved.fdb.insert((1, RED), 3);
        let both = [("10.244.1.2", 3, RED), ("fd00:244:1::2", 3, RED), blue[0]];
        assert_eq!(find_in(&moved), source_guard(both), "a MAC behind another port");

        let mut forgotten = world();
        forgotten.forgotten.fdb.insert((1, RED));
        forgotten.forgotten.neighbours.insert((1, ip("10.244.1.3")));
        assert!(find_in(&forgotten).is_empty(), "remembered is not known");
    }
}
