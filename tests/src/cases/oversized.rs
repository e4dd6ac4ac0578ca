//! What is too big for the device that it leaves by: the host's stack fragments what may be fragmented.

use lb_common::{
    abi::{Counter, NextHopKind, Settings, ZONE_UPLINK},
    path::{
        Egress::{Continue, Neighbour, Peer},
        Hook,
    },
    wire::Protocol::{self, Tcp, Udp},
};

use super::snat;
use crate::{
    case::{Case, case},
    family::Net,
    packet::{Complaint, Wire, of, udp},
    state::{BLUE, BRIDGE, NARROW, OTHER_UPLINK, RED, State, UPLINK, on, outside},
    world::{
        BACKEND, CLIENT, FAR, NODE, OUTSIDER, REMOTE, SHOWN, VIP, allocating, on_node, remote, web, web_by,
    },
};

pub fn cases<F: Net>() -> Vec<Case<F>> {
    let mut cases = vec![of_the_host(), no_hops(), from_a_pod(), allocated(), allocated_back()];
    cases.extend([Tcp, Udp].map(back));
    if is_ipv4::<F>() {
        cases.extend([in_fragments(), fits_in_fragments(), in_fragments_to_a_pod(), own_router()]);
    }
    cases
}

fn is_ipv4<F: Net>() -> bool {
    F::TRANSPORT == 34
}

/// Some device is as narrow as the uplink.
fn narrow(settings: Settings) -> Settings {
    Settings { mtu_floor: NARROW, ..settings }
}

fn at_ports<F: Net>() -> Settings {
    let bridge = on(BRIDGE, NextHopKind::Peer);
    narrow(Settings { host4: on_node::<F>().host4, host6: on_node::<F>().host6, ..bridge })
}

/// So large that the uplink does not take it.
fn large(packet: Wire) -> Wire {
    packet.says(&[0xa5; NARROW as usize])
}

/// The last packet goes on translated to the host's stack, which only IPv4 lets fragment it.
fn to_stack<F: Net>(
    case: Case<F>,
    translated: impl FnOnce(Case<F>) -> Case<F>,
    returned: impl FnOnce(Case<F>) -> Case<F>,
) -> Case<F> {
    match is_ipv4::<F>() {
        true => translated(case).but(|packet| packet.link_to(BRIDGE.at)),
        false => returned(case),
    }
}

fn too_big<F: Net>(case: Case<F>, at: &str) -> Case<F> {
    case.returns(Counter::TooBig, Complaint::TooBig(NARROW), at)
}

/// A client outside has called the pod blue.
fn called<F: Net>(name: impl Into<String>, protocol: Protocol, state: State<F>) -> Case<F> {
    case(name, state)
        .outside(of(protocol, OUTSIDER, VIP))
        .opens(Peer(BLUE.ifindex), BACKEND)
        .on(at_ports::<F>())
}

fn back<F: Net>(protocol: Protocol) -> Case<F> {
    let answer = || large(of(protocol, BACKEND, OUTSIDER));
    let name = format!("oversized: a reply that may be fragmented, {protocol:?}");
    let case = called(name, protocol, web().owned(VIP)).pod(BLUE, answer().may_be_fragmented());
    let case = to_stack(case, |case| case.reply(Continue, VIP, OUTSIDER), |case| too_big(case, NODE));
    let case = too_big(case.pod(BLUE, answer()), NODE);
    // What fits goes on as ever.
    let case = case.pod(BLUE, of(protocol, BACKEND, OUTSIDER)).reply(Neighbour(UPLINK), VIP, OUTSIDER);
    // Nor does it matter once the client is known to be real.
    let case = case.outside(of(protocol, OUTSIDER, VIP)).request(Peer(BLUE.ifindex), BACKEND);
    let case = case.assures().pod(BLUE, answer().may_be_fragmented());
    to_stack(case, |case| case.reply(Continue, VIP, OUTSIDER), |case| too_big(case, NODE))
}

/// The stack takes nothing that comes in from an address of its own.
fn of_the_host<F: Net>() -> Case<F> {
    let case = called("oversized: a reply from an address of the host", Udp, web());
    too_big(case.pod(BLUE, large(udp(BACKEND, OUTSIDER)).may_be_fragmented()), NODE)
}

fn no_hops<F: Net>() -> Case<F> {
    let answer = large(udp(BACKEND, OUTSIDER)).may_be_fragmented().hops(1);
    let case = called("oversized: no hops left", Udp, web().owned(VIP)).pod(BLUE, answer);
    match is_ipv4::<F>() {
        true => case.returns(Counter::TtlExceeded, Complaint::TimeExceeded, NODE),
        false => too_big(case, NODE),
    }
}

/// To a backend behind the uplink.
fn from_a_pod<F: Net>() -> Case<F> {
    let case = case("oversized: a request that may be fragmented", web_by(REMOTE, ZONE_UPLINK, outside()))
        .on(at_ports::<F>())
        .pod(RED, large(udp(CLIENT, VIP)).may_be_fragmented());
    to_stack(case, |case| case.request(Continue, REMOTE), |case| too_big(case, VIP).accounted())
        .also(Counter::NewFlow)
}

/// Its backend sees the node.
fn allocated<F: Net>() -> Case<F> {
    let case = case("oversized: a request that has a port of the node's", remote().owned(VIP))
        .on(narrow(allocating::<F>()))
        .send(Hook::UplinkIngress, OTHER_UPLINK, large(udp(FAR, VIP)).may_be_fragmented());
    too_big(case, VIP).also(Counter::NewFlow).accounted()
}

/// By another uplink than the client's, which takes more.
fn allocated_back<F: Net>() -> Case<F> {
    let case = case("oversized: a reply to a port of the node's", remote().owned(VIP));
    let case = snat::opened(case.on(narrow(allocating::<F>())), udp(FAR, VIP), 0);
    let arrives = |case: Case<F>, packet| case.send(Hook::UplinkIngress, OTHER_UPLINK, large(packet));
    let case = arrives(case, udp(REMOTE, SHOWN).may_be_fragmented());
    let case = to_stack(case, |case| case.reply(Continue, VIP, FAR), |case| too_big(case, NODE));
    too_big(arrives(case, udp(REMOTE, SHOWN)), NODE)
}

const FIRST: (usize, usize) = (0, 1480);
const SECOND: (usize, usize) = (1480, 2960);
const LAST: (usize, usize) = (2960, 9999);

fn piece(of: &Wire, id: u16, (from, to): (usize, usize)) -> Wire {
    of.clone().piece(id, from, to)
}

/// One that fits, too: who puts them together waits for all.
fn in_fragments<F: Net>() -> Case<F> {
    let answer = udp(BACKEND, OUTSIDER).says(&[0xa5; 3000]);
    let case = called("oversized: all fragments of a reply go one way", Udp, web().owned(VIP));
    let case = [FIRST, LAST, SECOND].into_iter().fold(case, |case, part| {
        case.pod(BLUE, piece(&answer, 7, part))
            .reply(Continue, VIP, OUTSIDER)
            .but(|packet| packet.link_to(BRIDGE.at))
    });
    case.pod(BLUE, piece(&answer, 7, LAST)).passes(Counter::Fragment)
}

/// The first one says which way.
fn fits_in_fragments<F: Net>() -> Case<F> {
    let answer = udp(BACKEND, OUTSIDER).says(&[0xa5; 3000]);
    let parts = [(0, 1360), (1360, 2720), (2720, 9999)];
    let case = called("oversized: fragments that fit", Udp, web().owned(VIP));
    parts.into_iter().fold(case, |case, part| {
        case.pod(BLUE, piece(&answer, 7, part)).reply(Neighbour(UPLINK), VIP, OUTSIDER)
    })
}

fn in_fragments_to_a_pod<F: Net>() -> Case<F> {
    let request = udp(CLIENT, VIP).says(&[0xa5; 3000]);
    let case = case("oversized: fragments of a request", web_by(REMOTE, ZONE_UPLINK, outside()).owned(VIP));
    let case = case.on(at_ports::<F>()).pod(RED, piece(&request, 7, FIRST)).opens(Continue, REMOTE);
    let case = case.but(|packet| packet.link_to(BRIDGE.at));
    let case = case.pod(RED, piece(&request, 7, LAST)).request(Continue, REMOTE);
    case.but(|packet| packet.link_to(BRIDGE.at))
}

/// The pod's router is another host on its bridge; the packet is for this one's stack all the same.
fn own_router<F: Net>() -> Case<F> {
    called("oversized: a reply by way of another router", Udp, web().owned(VIP))
        .pod(BLUE, large(udp(BACKEND, OUTSIDER)).may_be_fragmented().link_to("10.244.1.254:0"))
        .reply(Continue, VIP, OUTSIDER)
        .but(|packet| packet.link_to(BRIDGE.at))
}
