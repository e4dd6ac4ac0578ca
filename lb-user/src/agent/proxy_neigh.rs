//! Addresses of services inside a bridge's own subnet: who looks for them there by ARP or a neighbour
//! solicitation is told the bridge's MAC, by the programs at its ports. This says for which. With `--announce` also
//! for load balancer and external IPs inside an uplink's subnet, whose neighbours are told when this node takes one over.
//! And the uplinks' own MACs.
//!
//! At an uplink, who has an address goes on with it: one that somebody else is known to have is not announced, and one
//! that is announced stays so when somebody else is heard to have it, too. So two nodes that announce the same address
//! both go on, and both say so.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv6Addr},
};

use lb_common::abi::{NeighKey, ProxyNeighRow, ZONE_UPLINK};
use tracing::{error, info, warn};

use super::{
    announcer::{Announced, Announcer, At, Heard, Other},
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
    announcer: Announcer,
    /// Where the neighbours at uplinks have addresses from us; `None`: from an agent before us, as the rows say.
    told: Option<Announced>,
    /// What the announcer had found out by the last update.
    heard: Heard,
    /// Addresses that somebody else has: what is said about each.
    claims: BTreeMap<(Claim, Other), String>,
    /// What keeps the neighbours from being told.
    unheard: Vec<String>,
    /// The last write failed.
    failed: bool,
    /// How many addresses were said to be answered for.
    said: usize,
}

/// How somebody else comes to have an address of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    /// On a bridge, where it is not answered for.
    Bridge,
    /// At an uplink, where it is not announced.
    Uplink,
    /// At an uplink, where it is announced, too.
    Both,
}

/// What becomes of services' addresses.
#[derive(Debug, Default, PartialEq)]
struct Found {
    /// Those to answer for.
    answered: HashMap<NeighKey, ProxyNeighRow>,
    /// Those that somebody else has.
    claims: BTreeSet<(Claim, Other)>,
    /// Those whose neighbours are to know that they are here.
    announced: Announced,
    /// IPv6 addresses to answer for at an uplink, which is to hear who asks.
    heard: BTreeSet<(u32, Ipv6Addr)>,
}

impl ProxyNeigh {
    /// What an agent before us has written.
    pub fn adopt(maps: &Maps) -> ProxyNeigh {
        ProxyNeigh {
            table: Table::adopt(&maps.proxy_neigh),
            groups: Groups::default(),
            announcer: Announcer::default(),
            told: None,
            heard: Heard::default(),
            claims: BTreeMap::new(),
            unheard: Vec::new(),
            failed: false,
            said: 0,
        }
    }

    /// Answers for those of the `addresses` that lie in a bridge's subnet, for those `announced` that lie in an
    /// uplink's, and for no others. `owner`: whose an address is. Whether there is something new to say about what is
    /// wrong.
    pub fn update(
        &mut self,
        maps: &mut Maps,
        addresses: impl Iterator<Item = IpAddr>,
        announced: &BTreeSet<IpAddr>,
        view: &View,
        owner: impl Fn(IpAddr) -> String,
    ) -> bool {
        self.heard = self.announcer.heard();
        let others = &self.heard.others;
        let Found { answered, claims, announced, heard } =
            find(addresses, announced, others, |key| self.table.get(key).is_some(), view);
        let before = std::mem::take(&mut self.claims);
        for claim in claims {
            let (how, (device, address, mac)) = claim;
            let line = before.get(&claim).cloned();
            let line = line.unwrap_or_else(|| {
                let line = describe(how, address, &owner(address), mac, view.world.links.get(&device));
                warn!("{line}");
                line
            });
            self.claims.insert(claim, line);
        }
        self.groups.update(&heard);
        let untold = self.untold(&announced);
        self.write(maps, &answered);
        let unheard = self.announce(announced, untold, view);
        let changed = self.claims != before || self.unheard != unheard;
        self.unheard = unheard;
        changed
    }

    /// Those of which the neighbours are to be told.
    fn untold(&self, announced: &Announced) -> Vec<IpAddr> {
        let is_known = |address: &IpAddr, at: &At| match &self.told {
            Some(told) => told.get(address).is_some_and(|told| told.is_same(at)),
            None => self.table.get(&routes::key_in(*address, ZONE_UPLINK)) == Some(&row(at.mac)),
        };
        let new = announced.iter().filter(|(address, at)| !is_known(address, at));
        new.map(|(address, _)| *address).collect()
    }

    /// Tells the neighbours, once what they will ask is answered; what is in the way.
    fn announce(&mut self, announced: Announced, untold: Vec<IpAddr>, view: &View) -> Vec<String> {
        if self.failed {
            return std::mem::take(&mut self.unheard);
        }
        let device = |device: &u32| view.world.links.get(device).map_or("", |link| &link.name);
        let failed = self.heard.failed.iter();
        let mut unheard: Vec<String> = failed.map(|(at, why)| unheard(device(at), why)).collect();
        if let Err(error) = self.announcer.follow(&announced, untold) {
            unheard.push(unheard_of(&error));
        } else {
            self.told = Some(announced);
        }
        for line in unheard.iter().filter(|line| !self.unheard.contains(line)) {
            warn!("{line}");
        }
        unheard
    }

    /// What is wrong.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        self.claims.values().chain(&self.unheard).cloned()
    }

    /// Whether to update: a write has failed, or others were heard to have addresses, or not to have them any more.
    pub fn is_due(&self) -> bool {
        self.failed || self.announcer.heard() != self.heard
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

/// `others` were heard to have addresses at uplinks; `has`: whether something is answered already.
fn find(
    addresses: impl Iterator<Item = IpAddr>,
    announced: &BTreeSet<IpAddr>,
    others: &BTreeSet<Other>,
    has: impl Fn(&NeighKey) -> bool,
    view: &View,
) -> Found {
    let of_bridges = view.world.addresses.iter().filter(|known| view.bridges.contains(&known.ifindex));
    let subnets: Vec<_> =
        of_bridges.filter_map(|known| Some((known.net, view.world.links.get(&known.ifindex)?))).collect();
    let mut found = Found { answered: uplinks(view).collect(), ..Found::default() };
    for address in addresses {
        for (_, bridge) in subnets.iter().filter(|(net, _)| net.contains(&address)) {
            match view.world.locate(address, &[bridge.ifindex]) {
                Location::Port { mac, .. } => {
                    found.claims.insert((Claim::Bridge, (bridge.ifindex, address, mac)));
                }
                Location::BridgeUnknown { .. } => {
                    found.answered.insert(routes::key(address, bridge.ifindex), row(bridge.mac));
                }
                // The host answers for its own.
                Location::Host | Location::Remote => {}
            }
        }
    }
    for &address in announced {
        announce(address, &has, view, &mut found);
    }
    // Other devices of this host are nobody else.
    let is_own = |mac| view.world.links.values().any(|link| link.mac == mac);
    for other in others.iter().filter(|(_, _, mac)| !is_own(*mac)) {
        if found.announced.get(&other.1).is_some_and(|at| at.device == other.0) {
            found.claims.insert((Claim::Both, *other));
        }
    }
    found
}

fn row(mac: [u8; 6]) -> ProxyNeighRow {
    ProxyNeighRow::new(routes::mac(mac))
}

/// Says what becomes of an address at the first uplink whose subnet holds it.
fn announce(address: IpAddr, has: impl Fn(&NeighKey) -> bool, view: &View, found: &mut Found) {
    if view.world.locate(address, view.bridges) != Location::Remote {
        return;
    }
    let subnet = |uplink: &u32| {
        let mut known = view.world.addresses.iter().filter(|known| known.ifindex == *uplink);
        let known = known.find(|known| known.net.contains(&address))?;
        Some((view.world.links.get(uplink)?, known.net.addr()))
    };
    let Some((uplink, own)) = view.uplinks.iter().find_map(subnet) else { return };
    let device = uplink.ifindex;
    let key = routes::key_in(address, ZONE_UPLINK);
    let neighbour = view.world.neighbours.get(&(device, address));
    if let Some(neighbour) = neighbour {
        let how = if has(&key) { Claim::Both } else { Claim::Uplink };
        found.claims.insert((how, (device, address, neighbour.mac)));
    }
    if uplink.mac == [0; 6] || neighbour.is_some() && !has(&key) {
        return;
    }
    found.answered.insert(key, row(uplink.mac));
    if let IpAddr::V6(address) = address {
        found.heard.insert((device, address));
    }
    // What comes back is told anew.
    if uplink.up {
        found.announced.insert(address, At { device, mac: uplink.mac, own });
    }
}

/// The uplinks themselves, if they have MACs.
fn uplinks(view: &View) -> impl Iterator<Item = (NeighKey, ProxyNeighRow)> {
    let links = view.uplinks.iter().filter_map(|uplink| view.world.links.get(uplink));
    links.filter(|link| link.mac != [0; 6]).map(|link| (NeighKey::uplink(link.ifindex), row(link.mac)))
}

fn describe(how: Claim, address: IpAddr, owner: &str, mac: [u8; 6], device: Option<&Link>) -> String {
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    let device = device.map_or("", |link| &link.name);
    let used = format!("address {address} of {owner} is used by {mac}");
    match how {
        Claim::Bridge => format!(
            "{used} on bridge {device}: nobody is told that it is here; give the service another address"
        ),
        Claim::Uplink => format!(
            "{used} at uplink {device}: it is not announced; give the service another address, or if nobody has it any \
             more, `ip neigh del {address} dev {device}`"
        ),
        Claim::Both => format!(
            "{used} at uplink {device}, and announced by this node, too: each neighbour goes to the one that it heard \
             last; if that is another node with --announce, stop one of them, else give the service another address \
             (and if nobody has it any more, `ip neigh del {address} dev {device}`)"
        ),
    }
}

fn unheard(device: &str, why: &str) -> String {
    format!(
        "neighbours at uplink {device} are not told of addresses that this node takes over, as frames can't be sent \
         there: {why} (CAP_NET_RAW is needed); they find them when they ask again"
    )
}

fn unheard_of(error: &std::io::Error) -> String {
    format!(
        "neighbours at uplinks are not told of addresses that this node takes over: starting a thread: {error}"
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
        let addresses = addresses.iter().map(|address| address.parse().expect("an address"));
        find(addresses, &BTreeSet::new(), &BTreeSet::new(), |_| false, &view)
    }

    /// Uplinks 4 and 5 beside the bridges; some addresses are in the subnets of both.
    fn announced_in(world: &World, uplinks: &[u32], addresses: &[&str]) -> Found {
        let view =
            View { world, bridges: &[1], ports: &[], uplinks, forward: Forward::Auto, node: (None, None) };
        let announced = addresses.iter().map(|address| address.parse().expect("an address")).collect();
        find(std::iter::empty(), &announced, &BTreeSet::new(), |_| false, &view)
    }

    #[test]
    fn announced_at_the_uplink_whose_subnet_it_is() {
        let mut world = world();
        for (ifindex, mac) in [(4, BRIDGE), (5, POD), (6, [0; 6])] {
            let link = Link { ifindex, name: format!("if{ifindex}"), mac, up: true, ..Link::default() };
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
        let owns = [(4, BRIDGE, "192.168.1.11"), (5, POD, "192.168.0.11"), (4, BRIDGE, "fd00:1::11")];
        let at = owns.map(|(device, mac, own)| At { device, mac, own: own.parse().expect("an address") });
        let addresses = inside.map(|address| address.parse().expect("an address"));
        let announced: Announced = addresses.into_iter().zip(at).collect();
        let all = Found { answered: rows, heard, announced, ..Found::default() };
        assert_eq!(found, all);

        // An uplink that is down answers, and says nothing by itself.
        world.links.get_mut(&4).expect("an uplink").up = false;
        let found = announced_in(&world, &[4, 5, 6], &inside);
        assert_eq!((found.answered, found.announced.len()), (all.answered, 1));
        world.links.get_mut(&4).expect("an uplink").up = true;

        // Somebody has one.
        let at: IpAddr = [192, 168, 1, 200].into();
        world.neighbours.insert((4, at), Neighbour { mac: POD, permanent: false });
        let found = announced_in(&world, &[4], &inside[..1]);
        let answered = uplink_rows(&[(4, BRIDGE)]);
        let claims = BTreeSet::from([(Claim::Uplink, (4, at, POD))]);
        assert_eq!(found, Found { answered, claims, ..Found::default() });
    }

    /// Who announces an address goes on; others are named, but for this host's own devices.
    #[test]
    fn announced_by_two() {
        const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 9];
        let mut world = world();
        let link = Link { ifindex: 4, name: "if4".to_owned(), mac: BRIDGE, up: true, ..Link::default() };
        world.links.insert(4, link);
        let net = "192.168.1.11/24".parse().expect("a subnet");
        world.addresses.push(Address { ifindex: 4, net, preferred: true });
        let address: IpAddr = [192, 168, 1, 200].into();
        let key = routes::key_in(address, ZONE_UPLINK);
        let others = BTreeSet::from([(4, address, OTHER), (4, address, POD), (9, address, OTHER)]);
        let announced = BTreeSet::from([address]);
        let find = |others: &BTreeSet<Other>, world: &World| {
            let view = View {
                world,
                bridges: &[1],
                ports: &[],
                uplinks: &[4],
                forward: Forward::Auto,
                node: (None, None),
            };
            super::find(std::iter::empty(), &announced, others, |known| *known == key, &view)
        };
        let found = find(&others, &world);
        assert_eq!(found.claims, BTreeSet::from([(Claim::Both, (4, address, OTHER))]));
        assert!(found.answered.contains_key(&key) && found.announced.contains_key(&address));

        // What the kernel knows of the other changes nothing.
        world.neighbours.insert((4, address), Neighbour { mac: OTHER, permanent: false });
        assert_eq!(find(&others, &world), found);
        assert_eq!(find(&BTreeSet::new(), &world), found);
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
        assert!(found.claims.is_empty());
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
        assert_eq!(found.claims, BTreeSet::from([(Claim::Bridge, (1, address, POD))]));
    }

    #[test]
    fn words_for_people() {
        let world = world();
        let describe =
            |how| describe(how, [10, 244, 1, 200].into(), "service default/web", POD, world.links.get(&1));
        let used = "address 10.244.1.200 of service default/web is used by 02:00:00:00:00:02";
        assert_eq!(
            describe(Claim::Bridge),
            format!("{used} on bridge if1: nobody is told that it is here; give the service another address")
        );
        assert_eq!(
            describe(Claim::Uplink),
            format!(
                "{used} at uplink if1: it is not announced; give the service another address, or if nobody has it any \
                 more, `ip neigh del 10.244.1.200 dev if1`"
            )
        );
        let both = describe(Claim::Both);
        assert!(
            both.starts_with(&format!("{used} at uplink if1, and announced by this node, too: ")),
            "{both}"
        );
    }
}
