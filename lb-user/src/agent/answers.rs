//! Addresses of services inside a bridge's own subnet: who looks for them there by ARP or a neighbour
//! solicitation is told the bridge's MAC, by the programs at its ports. This says for which. And the uplinks' own
//! MACs, where there are several.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use lb_common::abi::{AnswerKey, AnswerRow};
use tracing::{error, info, warn};

use super::{
    table::Table,
    ways::{self, View},
};
use crate::{
    maps::Maps,
    netlink::{Link, Location},
};

/// See the module.
pub struct Answers {
    table: Table<AnswerKey, AnswerRow>,
    /// Addresses that somebody else on the bridge has, by bridge: what is said about each.
    taken: BTreeMap<(u32, IpAddr), String>,
    /// The last write failed.
    failed: bool,
}

/// What becomes of services' addresses.
#[derive(Debug, Default, PartialEq)]
struct Found {
    /// Those to answer for.
    answered: HashMap<AnswerKey, AnswerRow>,
    /// Those that somebody else has: bridge, address and whose MAC.
    taken: BTreeMap<(u32, IpAddr), [u8; 6]>,
}

impl Answers {
    /// What an agent before us has written.
    pub fn adopt(maps: &Maps) -> Answers {
        Answers { table: Table::adopt(&maps.answers), taken: BTreeMap::new(), failed: false }
    }

    /// Answers for those of the `addresses` that lie in a bridge's subnet, and for no others. `owner`: whose
    /// an address is. Whether there is something new to say about what is wrong.
    pub fn update(
        &mut self,
        maps: &mut Maps,
        addresses: impl Iterator<Item = IpAddr>,
        view: &View,
        owner: impl Fn(IpAddr) -> String,
    ) -> bool {
        let Found { answered, taken } = find(addresses, view);
        let before = std::mem::take(&mut self.taken);
        for ((bridge, address), mac) in taken {
            let line = before.get(&(bridge, address)).cloned();
            let line = line.unwrap_or_else(|| {
                let line = describe(address, &owner(address), mac, view.world.links.get(&bridge));
                warn!("{line}");
                line
            });
            self.taken.insert((bridge, address), line);
        }
        self.write(maps, &answered);
        self.taken != before
    }

    /// What is wrong.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        self.taken.values().cloned()
    }

    /// Whether a write has failed and should be tried again.
    pub fn failed(&self) -> bool {
        self.failed
    }

    fn write(&mut self, maps: &mut Maps, wanted: &HashMap<AnswerKey, AnswerRow>) {
        let written = self.table.update(&mut maps.answers, wanted);
        // Said once, not with every try.
        if let (Err(problem), false) = (&written, self.failed) {
            error!(
                "writing which addresses are answered for on the bridges: {problem}; trying again (the map \
                 has as many rows as --max-services)"
            );
        }
        self.failed = written.is_err();
        if written.is_ok_and(|changed| changed) {
            let asked = wanted.keys().filter(|key| key.is_asked()).count();
            info!("addresses of services answered for in the bridges' own subnets: {asked}");
        }
    }
}

fn find(addresses: impl Iterator<Item = IpAddr>, view: &View) -> Found {
    let of_bridges = view.world.addresses.iter().filter(|known| view.bridges.contains(&known.ifindex));
    let subnets: Vec<_> =
        of_bridges.filter_map(|known| Some((known.net, view.world.links.get(&known.ifindex)?))).collect();
    let mut found = Found { answered: uplinks(view).collect(), ..Found::default() };
    for address in addresses {
        for (_, bridge) in subnets.iter().filter(|(net, _)| net.contains(&address)) {
            match view.world.locate(address, &[bridge.ifindex]) {
                Location::Port { mac, .. } => {
                    found.taken.insert((bridge.ifindex, address), mac);
                }
                Location::BridgeUnknown { .. } => {
                    let row = AnswerRow::new(ways::mac(bridge.mac));
                    found.answered.insert(ways::key(address, bridge.ifindex), row);
                }
                // The host answers for its own.
                Location::Host | Location::Remote => {}
            }
        }
    }
    found
}

/// The uplinks themselves, if there are several and they have MACs.
fn uplinks(view: &View) -> impl Iterator<Item = (AnswerKey, AnswerRow)> {
    let several = view.uplinks.len() > 1;
    let links =
        view.uplinks.iter().filter(move |_| several).filter_map(|uplink| view.world.links.get(uplink));
    links
        .filter(|link| link.mac != [0; 6])
        .map(|link| (AnswerKey::uplink(link.ifindex), AnswerRow::new(ways::mac(link.mac))))
}

fn describe(address: IpAddr, owner: &str, mac: [u8; 6], bridge: Option<&Link>) -> String {
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    let bridge = bridge.map_or("", |link| &link.name);
    format!(
        "address {address} of {owner} is used by {mac} on bridge {bridge}: nobody is told that it is here; \
         give the service another address"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::options::Forward,
        netlink::{Address, LinkKind, Neighbour, World},
    };

    const BRIDGE: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const POD: [u8; 6] = [2, 0, 0, 0, 0, 2];

    fn world() -> World {
        let mut world = World::default();
        for (ifindex, kind, master, mac) in [
            (1, LinkKind::Bridge, None, BRIDGE),
            (2, LinkKind::Veth { other_netns: Some(0) }, Some(1), POD),
            (3, LinkKind::Bridge, None, POD),
        ] {
            let link = Link { ifindex, name: format!("if{ifindex}"), kind, master, mac, ..Link::default() };
            world.links.insert(ifindex, link);
        }
        for (ifindex, net) in [(1, "10.244.1.1/24"), (1, "fd00:244:1::1/64"), (3, "10.244.3.1/24")] {
            world.addresses.push(Address { ifindex, net: net.parse().expect("a subnet") });
        }
        world
    }

    fn find_in(world: &World, addresses: &[&str]) -> Found {
        let view = View { world, bridges: &[1], uplinks: &[], forward: Forward::Auto };
        find(addresses.iter().map(|address| address.parse().expect("an address")), &view)
    }

    #[test]
    fn only_what_lies_in_our_bridges_subnets_and_is_nobodys() {
        let mut world = world();
        // Outside, another's bridge, the host's own, and two of ours.
        let addresses =
            ["10.96.0.10", "10.244.3.200", "10.244.1.1", "fd00:244:1::1", "10.244.1.200", "fd00:244:1::200"];
        let found = find_in(&world, &addresses);
        assert!(found.taken.is_empty());
        let zone = u32::from(ways::zone(1));
        let v4 = AnswerKey::v4(std::net::Ipv4Addr::new(10, 244, 1, 200).into(), zone);
        let v6 =
            AnswerKey::v6("fd00:244:1::200".parse::<std::net::Ipv6Addr>().expect("an address").into(), zone);
        let row = AnswerRow::new(ways::mac(BRIDGE));
        assert_eq!(found.answered, HashMap::from([(v4, row), (v6, row)]));

        // A pod has one of them.
        let address: IpAddr = [10, 244, 1, 200].into();
        world.neighbours.insert((1, address), Neighbour { mac: POD, permanent: false });
        assert_eq!(find_in(&world, &addresses), found, "an old entry of who is not there any more");
        world.fdb.insert((1, POD), 2);
        let found = find_in(&world, &addresses);
        assert_eq!(found.answered, HashMap::from([(v6, row)]));
        assert_eq!(found.taken, BTreeMap::from([((1, address), POD)]));
    }

    #[test]
    fn words_for_people() {
        let line = describe([10, 244, 1, 200].into(), "service default/web", POD, world().links.get(&1));
        assert_eq!(
            line,
            "address 10.244.1.200 of service default/web is used by 02:00:00:00:00:02 on bridge if1: nobody is \
             told that it is here; give the service another address"
        );
    }
}
