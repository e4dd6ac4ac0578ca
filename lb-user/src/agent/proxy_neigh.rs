//! Addresses of services inside a bridge's own subnet: who looks for them there by ARP or a neighbour
//! solicitation is told the bridge's MAC, by the programs at its ports. This says for which. With `--announce` also
//! for load balancer and external IPs inside an uplink's subnet. And the uplinks' own MACs.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv6Addr},
};

use lb_common::abi::{NeighKey, ProxyNeighRow, ZONE_UPLINK};
use tracing::{error, info, warn};

use super::{
    groups::Groups,
    routes::{self, View},
    table::Table,
};
use crate::{
    maps::Maps,
    netlink::{Link, Location},
};

/// See the module.
pub struct ProxyNeigh {
    table: Table<NeighKey, ProxyNeighRow>,
    groups: Groups,
    /// Addresses that somebody else on the bridge or at the uplink has, by device: what is said about each.
    taken: BTreeMap<(u32, IpAddr), String>,
    /// The last write failed.
    failed: bool,
    /// How many addresses were said to be answered for.
    said: usize,
}

/// What becomes of services' addresses.
#[derive(Debug, Default, PartialEq)]
struct Found {
    /// Those to answer for.
    answered: HashMap<NeighKey, ProxyNeighRow>,
    /// Those that somebody else has: bridge or uplink, address and whose MAC.
    taken: BTreeMap<(u32, IpAddr), [u8; 6]>,
    /// IPv6 addresses to answer for at an uplink, which is to hear who asks.
    heard: BTreeSet<(u32, Ipv6Addr)>,
}

impl ProxyNeigh {
    /// What an agent before us has written.
    pub fn adopt(maps: &Maps) -> ProxyNeigh {
        ProxyNeigh {
            table: Table::adopt(&maps.proxy_neigh),
            groups: Groups::default(),
            taken: BTreeMap::new(),
            failed: false,
            said: 0,
        }
    }

    /// Answers for those of the `addresses` that lie in a bridge's subnet, for those `announced` that lie in an
    /// uplink's, and for no others. `owner`: whose an address is. Whether there is something new to say about what is wrong.
    pub fn update(
        &mut self,
        maps: &mut Maps,
        addresses: impl Iterator<Item = IpAddr>,
        announced: &BTreeSet<IpAddr>,
        view: &View,
        owner: impl Fn(IpAddr) -> String,
    ) -> bool {
        let Found { answered, taken, heard } = find(addresses, announced, view);
        let before = std::mem::take(&mut self.taken);
        for ((device, address), mac) in taken {
            let line = before.get(&(device, address)).cloned();
            let line = line.unwrap_or_else(|| {
                let on_bridge = view.bridges.contains(&device);
                let line = describe(address, &owner(address), mac, view.world.links.get(&device), on_bridge);
                warn!("{line}");
                line
            });
            self.taken.insert((device, address), line);
        }
        self.groups.update(&heard);
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

    fn write(&mut self, maps: &mut Maps, wanted: &HashMap<NeighKey, ProxyNeighRow>) {
        let written = self.table.update(&mut maps.proxy_neigh, wanted);
        // Said once, not with every try.
        if let (Err(problem), false) = (&written, self.failed) {
            error!(
                "writing which addresses are answered for on bridges and at uplinks: {problem}; trying again (the \
                 map has as many rows as --max-services)"
            );
        }
        self.failed = written.is_err();
        let asked = wanted.keys().filter(|key| key.is_asked()).count();
        if written.is_ok_and(|changed| changed) && asked + self.said > 0 {
            self.said = asked;
            info!("addresses of services answered for in the subnets of bridges and uplinks: {asked}");
        }
    }
}

fn find(addresses: impl Iterator<Item = IpAddr>, announced: &BTreeSet<IpAddr>, view: &View) -> Found {
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
                    let row = ProxyNeighRow::new(routes::mac(bridge.mac));
                    found.answered.insert(routes::key(address, bridge.ifindex), row);
                }
                // The host answers for its own.
                Location::Host | Location::Remote => {}
            }
        }
    }
    for &address in announced {
        announce(address, view, &mut found);
    }
    found
}

/// Says what becomes of an address at the first uplink whose subnet holds it.
fn announce(address: IpAddr, view: &View, found: &mut Found) {
    if view.world.locate(address, view.bridges) != Location::Remote {
        return;
    }
    let holds = |uplink: &&u32| {
        view.world.addresses.iter().any(|known| known.ifindex == **uplink && known.net.contains(&address))
    };
    let Some(uplink) = view.uplinks.iter().find(holds).and_then(|uplink| view.world.links.get(uplink)) else {
        return;
    };
    let at = (uplink.ifindex, address);
    if let Some(neighbour) = view.world.neighbours.get(&at) {
        found.taken.insert(at, neighbour.mac);
    } else if uplink.mac != [0; 6] {
        let key = routes::key_in(address, ZONE_UPLINK);
        found.answered.insert(key, ProxyNeighRow::new(routes::mac(uplink.mac)));
        if let IpAddr::V6(address) = address {
            found.heard.insert((uplink.ifindex, address));
        }
    }
}

/// The uplinks themselves, if they have MACs.
fn uplinks(view: &View) -> impl Iterator<Item = (NeighKey, ProxyNeighRow)> {
    let links = view.uplinks.iter().filter_map(|uplink| view.world.links.get(uplink));
    links
        .filter(|link| link.mac != [0; 6])
        .map(|link| (NeighKey::uplink(link.ifindex), ProxyNeighRow::new(routes::mac(link.mac))))
}

fn describe(address: IpAddr, owner: &str, mac: [u8; 6], device: Option<&Link>, on_bridge: bool) -> String {
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    let device = device.map_or("", |link| &link.name);
    if !on_bridge {
        return format!(
            "address {address} of {owner} is used by {mac} at uplink {device}: it is not announced; give the \
             service another address, or if nobody has it any more, `ip neigh del {address} dev {device}`"
        );
    }
    format!(
        "address {address} of {owner} is used by {mac} on bridge {device}: nobody is told that it is here; \
         give the service another address"
    )
}

#[cfg(test)]
mod tests {
    use lb_common::abi::bridge_zone;

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
            world.addresses.push(Address { ifindex, net: net.parse().expect("a subnet"), preferred: true });
        }
        world
    }

    fn find_in(world: &World, addresses: &[&str]) -> Found {
        let view = View {
            world,
            bridges: &[1],
            ports: &[],
            uplinks: &[],
            forward: Forward::Auto,
            node: (None, None),
        };
        find(addresses.iter().map(|address| address.parse().expect("an address")), &BTreeSet::new(), &view)
    }

    /// Uplinks 4 and 5 beside the bridges; some addresses are in the subnets of both.
    fn announced_in(world: &World, uplinks: &[u32], addresses: &[&str]) -> Found {
        let view =
            View { world, bridges: &[1], ports: &[], uplinks, forward: Forward::Auto, node: (None, None) };
        let announced = addresses.iter().map(|address| address.parse().expect("an address")).collect();
        find(std::iter::empty(), &announced, &view)
    }

    #[test]
    fn announced_at_the_uplink_whose_subnet_it_is() {
        let mut world = world();
        for (ifindex, mac) in [(4, BRIDGE), (5, POD), (6, [0; 6])] {
            let link = Link { ifindex, name: format!("if{ifindex}"), mac, ..Link::default() };
            world.links.insert(ifindex, link);
        }
        for (ifindex, net) in [
            (4, "192.168.1.11/24"),
            (4, "fd00:1::11/64"),
            (5, "192.168.0.11/16"),
            (5, "203.0.113.11/32"),
            (6, "192.0.2.11/24"),
        ] {
            world.addresses.push(Address { ifindex, net: net.parse().expect("a subnet"), preferred: true });
        }
        // The host's own, a bridge's, in nobody's subnet, at a device without a MAC.
        let others = ["192.168.1.11", "203.0.113.11", "10.244.1.200", "198.51.100.10", "192.0.2.12"];
        let found = announced_in(&world, &[4, 5, 6], &others);
        assert_eq!(found, Found { answered: uplink_rows(&[(4, BRIDGE), (5, POD)]), ..Found::default() });

        let inside = ["192.168.1.200", "192.168.2.200", "fd00:1::200"];
        let mut rows = uplink_rows(&[(4, BRIDGE), (5, POD)]);
        for (address, mac) in inside.iter().zip([BRIDGE, POD, BRIDGE]) {
            let key = routes::key_in(address.parse().expect("an address"), 0);
            rows.insert(key, ProxyNeighRow::new(routes::mac(mac)));
        }
        let found = announced_in(&world, &[4, 5, 6], &inside);
        let heard = BTreeSet::from([(4, "fd00:1::200".parse().expect("an address"))]);
        assert_eq!(found, Found { answered: rows, heard, ..Found::default() });

        // Somebody has one.
        let at: IpAddr = [192, 168, 1, 200].into();
        world.neighbours.insert((4, at), Neighbour { mac: POD, permanent: false });
        let found = announced_in(&world, &[4], &inside[..1]);
        let (answered, taken) = (uplink_rows(&[(4, BRIDGE)]), BTreeMap::from([((4, at), POD)]));
        assert_eq!(found, Found { answered, taken, ..Found::default() });
    }

    fn uplink_rows(uplinks: &[(u32, [u8; 6])]) -> HashMap<NeighKey, ProxyNeighRow> {
        let row = |(ifindex, mac): &(u32, [u8; 6])| {
            (NeighKey::uplink(*ifindex), ProxyNeighRow::new(routes::mac(*mac)))
        };
        uplinks.iter().map(row).collect()
    }

    #[test]
    fn only_what_lies_in_our_bridges_subnets_and_is_nobodys() {
        let mut world = world();
        // Outside, another's bridge, the host's own, and two of ours.
        let addresses =
            ["10.96.0.10", "10.244.3.200", "10.244.1.1", "fd00:244:1::1", "10.244.1.200", "fd00:244:1::200"];
        let found = find_in(&world, &addresses);
        assert!(found.taken.is_empty());
        let zone = u32::from(bridge_zone(1));
        let v4 = NeighKey::v4(std::net::Ipv4Addr::new(10, 244, 1, 200).into(), zone);
        let v6 =
            NeighKey::v6("fd00:244:1::200".parse::<std::net::Ipv6Addr>().expect("an address").into(), zone);
        let row = ProxyNeighRow::new(routes::mac(BRIDGE));
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
        let world = world();
        let describe = |on_bridge| {
            let device = world.links.get(&1);
            describe([10, 244, 1, 200].into(), "service default/web", POD, device, on_bridge)
        };
        let line = describe(true);
        assert_eq!(
            line,
            "address 10.244.1.200 of service default/web is used by 02:00:00:00:00:02 on bridge if1: nobody is \
             told that it is here; give the service another address"
        );
        let line = describe(false);
        assert_eq!(
            line,
            "address 10.244.1.200 of service default/web is used by 02:00:00:00:00:02 at uplink if1: it is not \
             announced; give the service another address, or if nobody has it any more, `ip neigh del \
             10.244.1.200 dev if1`"
        );
    }
}
