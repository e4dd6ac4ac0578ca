//! Several uplinks: what goes to a client outside is sent back to where its packets come from.

use lb_common::{
    abi::{Counter, NextHopKind, Settings, ZONE_UPLINK},
    path::{
        Egress::{Device, Neighbour, Peer},
        Hook,
    },
    wire::Protocol::{self, Tcp, Udp},
};

use crate::{
    case::{Case, case},
    family::Net,
    packet::{Complaint::TooBig, Wire, first, of, udp},
    state::{BLUE, BRIDGE, OTHER_UPLINK, ROUTER, State, UPLINK, on, outside},
    world::{BACKEND, NODE, OTHER_NODE, REMOTE, SHOWN, VIP, on_node, web, web_by},
};

/// A client behind routers.
const FAR: &str = "198.51.100.7:40000";
/// The router behind [`OTHER_UPLINK`].
const OTHER_ROUTER: &str = "192.168.2.1:0";
const OTHER_OWN: &str = "192.168.2.11:0";

pub fn cases<F: Net>() -> Vec<Case<F>> {
    let mut cases =
        vec![without_mac(), with_one(), follows(), error(), allocated(), passed_on(), passed_on_and_lost()];
    cases.extend([follows_and_is_made_anew(), allocated_follows()]);
    cases.extend([Tcp, Udp].map(back));
    cases.extend([Tcp, Udp].map(assured_elsewhere));
    cases
}

fn several(settings: Settings) -> Settings {
    Settings { several_uplinks: 1, ..settings }
}

fn at_uplink<F: Net>() -> Settings {
    several(on_node::<F>())
}

fn uplinks<F: Net>(state: State<F>) -> State<F> {
    state.uplink(UPLINK, NODE).uplink(OTHER_UPLINK, OTHER_OWN)
}

/// A flow to blue that has begun behind [`ROUTER`].
fn begun<F: Net>(name: impl Into<String>, state: State<F>, protocol: Protocol) -> Case<F> {
    case(name, state)
        .on(at_uplink::<F>())
        .outside(first(protocol, FAR, VIP).link_from(ROUTER))
        .opens(Peer(BLUE.ifindex), BACKEND)
}

/// Blue sends to the client.
fn sends<F: Net>(case: Case<F>, packet: Wire) -> Case<F> {
    case.on(several(on(BRIDGE, NextHopKind::Peer))).pod(BLUE, packet)
}

/// Blue answers, by that uplink and router.
fn answers<F: Net>(case: Case<F>, protocol: Protocol, ifindex: u32, own: &str, router: &str) -> Case<F> {
    sends(case, of(protocol, BACKEND, FAR))
        .reply(Device(ifindex), VIP, FAR)
        .but(|packet| packet.routed().link_from(own).link_to(router))
        .on(at_uplink::<F>())
}

fn asks<F: Net>(case: Case<F>, ifindex: u32, packet: Wire) -> Case<F> {
    case.send(Hook::UplinkIngress, ifindex, packet).request(Peer(BLUE.ifindex), BACKEND)
}

fn back<F: Net>(protocol: Protocol) -> Case<F> {
    let name =
        format!("several uplinks: a reply goes to the router that the request came from, {protocol:?}");
    let case = answers(begun(name, uplinks(web()), protocol), protocol, UPLINK, NODE, ROUTER);
    let case = asks(case, UPLINK, of(protocol, FAR, VIP).link_from(ROUTER)).assures();
    answers(case, protocol, UPLINK, NODE, ROUTER)
}

/// By the kernel's next hop.
fn routed<F: Net>(case: Case<F>) -> Case<F> {
    sends(case, udp(BACKEND, FAR)).reply(Neighbour(UPLINK), VIP, FAR).on(at_uplink::<F>())
}

fn without_mac<F: Net>() -> Case<F> {
    routed(begun("several uplinks: one without a MAC", web(), Udp))
}

fn with_one<F: Net>() -> Case<F> {
    begun("one uplink: the kernel finds the next hop", uplinks(web()), Udp)
        .pod(BLUE, udp(BACKEND, FAR))
        .reply(Neighbour(UPLINK), VIP, FAR)
}

fn follows<F: Net>() -> Case<F> {
    let case = begun("several uplinks: replies follow a client that comes by another", uplinks(web()), Udp);
    let case = answers(case, Udp, UPLINK, NODE, ROUTER);
    let elsewhere = || udp(FAR, VIP).link_from(OTHER_ROUTER);
    let case = asks(case, OTHER_UPLINK, elsewhere()).assures();
    // Once a tick.
    let case = asks(case.wait(1), OTHER_UPLINK, elsewhere());
    let case = answers(case, Udp, OTHER_UPLINK, OTHER_OWN, OTHER_ROUTER);
    // Another router behind the same one.
    let case = asks(case.wait(1), OTHER_UPLINK, udp(FAR, VIP).link_from(ROUTER));
    answers(case, Udp, OTHER_UPLINK, OTHER_OWN, ROUTER)
}

/// The packet that shows that the client hears comes by another: what the rows become then leads there.
fn assured_elsewhere<F: Net>(protocol: Protocol) -> Case<F> {
    let name = format!("several uplinks: a client is assured by what comes by another, {protocol:?}");
    let case = answers(begun(name, uplinks(web()), protocol), protocol, UPLINK, NODE, ROUTER);
    let case = asks(case, OTHER_UPLINK, of(protocol, FAR, VIP).link_from(OTHER_ROUTER)).assures();
    answers(case, protocol, OTHER_UPLINK, OTHER_OWN, OTHER_ROUTER)
}

fn follows_and_is_made_anew<F: Net>() -> Case<F> {
    let case =
        begun("several uplinks: the replies' row is made anew by what comes by another", uplinks(web()), Udp);
    let case = answers(case, Udp, UPLINK, NODE, ROUTER);
    let case = asks(case, UPLINK, udp(FAR, VIP).link_from(ROUTER)).assures();
    let case = sends(case, udp(BACKEND, FAR)).reply(Device(UPLINK), VIP, FAR);
    let case = case.but(|packet| packet.routed().link_from(NODE).link_to(ROUTER));
    let case = case.loses(udp(BACKEND, FAR)).on(at_uplink::<F>()).wait(1);
    let case = asks(case, OTHER_UPLINK, udp(FAR, VIP).link_from(OTHER_ROUTER)).also(Counter::Rebuilt);
    answers(case, Udp, OTHER_UPLINK, OTHER_OWN, OTHER_ROUTER)
}

fn error<F: Net>() -> Case<F> {
    let case = begun("several uplinks: an error about a request", uplinks(web()), Udp);
    sends(case, udp(FAR, BACKEND).error_from(TooBig(1280), BACKEND))
        .error(Device(UPLINK), udp(FAR, VIP).error_from(TooBig(1280), VIP), FAR)
        .but(|packet| packet.routed().link_from(NODE).link_to(ROUTER))
}

/// The reply comes by the other uplink.
fn allocated<F: Net>() -> Case<F> {
    allocated_by("several uplinks: a reply to an allocated port")
}

fn allocated_by<F: Net>(name: &str) -> Case<F> {
    let settings = Settings { snat_first: 10_000, snat_ports: 4, ..at_uplink::<F>() };
    case(name, uplinks(web_by(REMOTE, ZONE_UPLINK, outside())))
        .on(settings)
        .send(Hook::UplinkIngress, OTHER_UPLINK, udp(FAR, VIP).link_from(OTHER_ROUTER))
        .opens(Neighbour(UPLINK), REMOTE)
        .shown(SHOWN)
        .outside(udp(REMOTE, SHOWN).link_from(ROUTER))
        .reply(Device(OTHER_UPLINK), VIP, FAR)
        .but(|packet| packet.routed().link_from(OTHER_OWN).link_to(OTHER_ROUTER))
}

/// Assured by what comes by the backend's uplink.
fn allocated_follows<F: Net>() -> Case<F> {
    allocated_by("several uplinks: a client with an allocated port is assured by what comes by another")
        .send(Hook::UplinkIngress, UPLINK, udp(FAR, VIP).link_from(ROUTER))
        .request(Neighbour(UPLINK), REMOTE)
        .shown(SHOWN)
        .assures()
        .outside(udp(REMOTE, SHOWN).link_from(ROUTER))
        .reply(Device(UPLINK), VIP, FAR)
        .but(|packet| packet.routed().link_from(NODE).link_to(ROUTER))
}

fn arrives<F: Net>(case: Case<F>) -> Case<F> {
    case.outside(udp(FAR, VIP).link_from(OTHER_NODE).inside(OTHER_NODE, NODE))
        .request(Peer(BLUE.ifindex), BACKEND)
        .also(Counter::Decapsulated)
        .but(|_| udp(FAR, BACKEND).routed().link_from(OTHER_NODE).link_to(BLUE.at))
}

/// The other node has the request's MAC, the client has not.
fn passed_on<F: Net>() -> Case<F> {
    let case = case("several uplinks: what another node has passed on", uplinks(web()).owned(VIP));
    let case = routed(arrives(case.on(at_uplink::<F>())).also(Counter::NewFlow));
    let case = routed(arrives(case).assures());
    routed(arrives(case.wait(1)))
}

fn passed_on_and_lost<F: Net>() -> Case<F> {
    let case = case("several uplinks: so, and its row was lost", uplinks(web()).owned(VIP));
    let case = routed(arrives(case.on(at_uplink::<F>())).also(Counter::NewFlow));
    let case = arrives(case).assures();
    let case = case.on(several(on(BRIDGE, NextHopKind::Peer))).loses(udp(BACKEND, FAR));
    let case = arrives(case.on(at_uplink::<F>()).wait(1)).also(Counter::Rebuilt);
    routed(case)
}
