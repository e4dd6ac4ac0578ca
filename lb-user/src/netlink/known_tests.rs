use netlink_packet_route::neighbour::NeighbourAttribute;

use super::*;
use crate::netlink::{LinkKind, Neighbour, Via};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 8];
const BRIDGE: u32 = 1;
const UPLINK: u32 = 9;

fn ip(address: &str) -> IpAddr {
    address.parse().expect("an address")
}

fn pod() -> At {
    (BRIDGE, ip("10.244.1.2"))
}

/// Bridge 1 (10.244.1.1/24) with ports 2 and 3, uplink 9 (192.168.1.11/24).
fn links() -> (BTreeMap<u32, Link>, Vec<Address>) {
    let mut links = BTreeMap::new();
    for (ifindex, master) in [(BRIDGE, None), (2, Some(BRIDGE)), (3, Some(BRIDGE)), (UPLINK, None)] {
        let kind = if ifindex == BRIDGE { LinkKind::Bridge } else { LinkKind::Physical };
        let mac = [2, 0, 0, 0, 1, ifindex as u8];
        links.insert(ifindex, Link { ifindex, kind, master, mac, up: true, ..Link::default() });
    }
    let net = |ifindex, net: &str| Address { ifindex, net: net.parse().expect("a subnet"), preferred: true };
    (links, vec![net(BRIDGE, "10.244.1.1/24"), net(UPLINK, "192.168.1.11/24")])
}

/// Wants to know of these backends.
fn known(backends: &[&str]) -> Known {
    let mut known = Known::default();
    let (links, addresses) = links();
    known.devices(links, addresses);
    let backends = backends.iter().map(|address| ip(address)).collect();
    known.want(Wants { bridges: vec![BRIDGE], uplinks: vec![UPLINK], backends, ..Wants::default() });
    known
}

fn entry(state: NeighbourState, mac: [u8; 6]) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.state = state;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    message
}

/// The pod as wanted and found behind port 2.
fn found() -> Known {
    let mut known = known(&["10.244.1.2"]);
    assert_eq!(known.neighbours(&Changed::default()), [pod()]);
    known.set_neighbour(pod(), Some(&entry(NeighbourState::Reachable, MAC)));
    assert_eq!(known.macs(&Changed::default()), [(BRIDGE, MAC)]);
    known.set_mac((BRIDGE, MAC), Some(2));
    known.changed = false;
    known
}

fn location(known: &Known) -> Location {
    known.world.locate(pod().1, &[BRIDGE])
}

#[test]
fn only_what_is_wanted_is_asked_and_held() {
    let mut known = known(&["10.244.1.2", "10.244.2.2", "10.244.2.3", "192.168.1.11", "fd00::2"]);
    let remote = [ip("10.244.2.2"), ip("10.244.2.3"), ip("fd00::2")];
    assert_eq!(known.routes(&Changed::default()), remote);
    assert_eq!(known.routes(&Changed::default()), [] as [IpAddr; 0], "known already");
    let prefix = |net: &str| Changed::Some([net.parse().expect("a prefix")].into());
    assert_eq!(known.routes(&prefix("10.244.2.2/31")), remote[..2]);
    assert_eq!(known.routes(&prefix("0.0.0.0/0")), remote[..2]);
    assert_eq!(known.routes(&prefix("10.0.0.0/16")), [] as [IpAddr; 0]);
    assert_eq!(known.routes(&Changed::All), remote);

    let router = ip("192.168.1.12");
    known.set_route(remote[0], Some(Hop { ifindex: UPLINK, via: Via::Router(router) }));
    let mut asked = known.neighbours(&Changed::Some([(UPLINK, ip("192.168.1.13"))].into()));
    asked.sort();
    assert_eq!(asked, [pod(), (UPLINK, router)]);
    // At our bridges who calls is of interest, too; elsewhere nobody else is.
    let caller = (BRIDGE, ip("10.244.1.77"));
    assert_eq!(known.neighbours(&Changed::Some([caller].into())), [caller]);
    known.set_neighbour(caller, Some(&entry(NeighbourState::Stale, OTHER)));
    known.set_neighbour((UPLINK, ip("192.168.1.13")), Some(&entry(NeighbourState::Stale, OTHER)));
    assert_eq!(known.world.neighbours.keys().collect::<Vec<_>>(), [&caller]);
    // Of the forwarding table of a bridge that a pod has filled, only MACs of neighbours.
    let flood = (0..=255).map(|last| (BRIDGE, [2, 9, 9, 9, 9, last])).chain([(BRIDGE, OTHER)]).collect();
    known.macs(&Changed::default());
    assert_eq!(known.macs(&Changed::Some(flood)), [(BRIDGE, OTHER)]);

    known.want(Wants { bridges: vec![BRIDGE], ..Wants::default() });
    known.routes(&Changed::default());
    assert!(known.world.routes.is_empty());
}

#[test]
fn frontends_are_asked_for_where_a_subnet_holds_them() {
    let mut known = known(&[]);
    let frontends = ["10.244.1.200", "192.168.1.200", "10.96.0.10"].map(ip);
    known.want(Wants {
        bridges: vec![BRIDGE],
        uplinks: vec![UPLINK],
        frontends: frontends.into(),
        ..Wants::default()
    });
    let mut asked = known.neighbours(&Changed::default());
    asked.sort();
    assert_eq!(asked, [(BRIDGE, frontends[0]), (UPLINK, frontends[1])]);
}

#[test]
fn ageing_forgets_nobody_who_is_wanted() {
    let mut known = found();
    let before = known.world.clone();
    known.set_neighbour(pod(), None);
    known.set_mac((BRIDGE, MAC), None);
    assert!(known.changed && known.world.forgotten.fdb.contains(&(BRIDGE, MAC)));
    assert!(known.world.forgotten.neighbours.contains(&pod()));
    assert_eq!(location(&known), Location::Port { bridge: BRIDGE, port: 2, mac: MAC });
    known.set_neighbour(pod(), Some(&entry(NeighbourState::Reachable, MAC)));
    known.set_mac((BRIDGE, MAC), Some(2));
    assert_eq!(known.world, before, "seen again");

    known.set_mac((BRIDGE, MAC), Some(3));
    assert_eq!(location(&known), Location::Port { bridge: BRIDGE, port: 3, mac: MAC }, "moved");
}

#[test]
fn who_was_asked_and_does_not_answer_is_forgotten() {
    let mut known = found();
    known.set_neighbour(pod(), Some(&entry(NeighbourState::Failed, MAC)));
    assert_eq!(location(&known), Location::BridgeUnknown { bridge: BRIDGE });
    assert!(known.world.failed.contains(&pod()));
}

#[test]
fn who_only_calls_is_known_as_long_as_the_kernel_knows() {
    let mut known = known(&[]);
    let caller = (BRIDGE, ip("10.244.1.77"));
    known.neighbours(&Changed::Some([caller].into()));
    known.set_neighbour(caller, Some(&entry(NeighbourState::Reachable, MAC)));
    known.macs(&Changed::default());
    known.set_mac((BRIDGE, MAC), Some(2));
    known.set_mac((BRIDGE, MAC), None);
    assert!(known.world.fdb.is_empty());
    known.set_mac((BRIDGE, MAC), Some(2));
    known.set_neighbour(caller, None);
    known.macs(&Changed::default());
    assert!(known.world.neighbours.is_empty() && known.world.fdb.is_empty());
}

#[test]
fn who_leaves_with_the_port_is_forgotten() {
    let mut known = found();
    known.set_neighbour(pod(), None);
    let (mut links, addresses) = links();
    links.remove(&2);
    assert!(!known.devices(links, addresses), "no route leads over a port");
    assert_eq!(known.unplugged(), [(BRIDGE, MAC)]);
    known.set_mac((BRIDGE, MAC), None);
    assert_eq!(location(&known), Location::BridgeUnknown { bridge: BRIDGE });
    assert!(known.world.neighbours.is_empty() && known.world.fdb.is_empty());
    assert_eq!(known.world.forgotten, Default::default());
}

#[test]
fn who_is_asked_again_has_not_answered() {
    let mut known = known(&["10.244.1.2"]);
    known.neighbours(&Changed::default());
    let failed = |known: &mut Known, state: Option<NeighbourState>| {
        let message = state.map(|state| {
            let mut message = NeighbourMessage::default();
            message.header.state = state;
            message
        });
        known.set_neighbour(pod(), message.as_ref());
        known.world.failed.contains(&pod())
    };
    assert!(!failed(&mut known, Some(NeighbourState::Incomplete)), "asked for the first time");
    assert!(failed(&mut known, Some(NeighbourState::Failed)));
    assert!(failed(&mut known, Some(NeighbourState::Incomplete)));
    assert!(!failed(&mut known, None), "not in the kernel's table any more");
}

#[test]
fn routes_are_asked_again_where_devices_or_addresses_changed() {
    let mut known = known(&["10.244.2.2"]);
    known.routes(&Changed::default());
    known.set_route(ip("10.244.2.2"), Some(Hop { ifindex: UPLINK, via: Via::Link }));
    let (links, addresses) = links();
    assert!(!known.devices(links.clone(), addresses.clone()), "nothing has changed");
    let mut plugged = links.clone();
    plugged.insert(4, Link { ifindex: 4, master: Some(BRIDGE), up: true, ..Link::default() });
    assert!(!known.devices(plugged, addresses.clone()), "a port");
    let mut down = links.clone();
    down.entry(UPLINK).and_modify(|link| link.up = false);
    assert!(known.devices(down, addresses.clone()), "an uplink is down");
    assert!(known.devices(links, addresses[..1].to_vec()), "an address is gone");
    let neighbour = Neighbour { mac: MAC, permanent: false };
    assert_eq!(questions::known(&entry(NeighbourState::Stale, MAC)), Some(neighbour));
}
