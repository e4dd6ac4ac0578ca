//! Messages of ICMP and ICMPv6: errors about packets of flows reach the side that must hear them, echoes are
//! answered, and what can't travel on is returned.

use lb_common::{
    abi::{Counter, NextHopKind, Settings, ZONE_OF_CLIENT, ZONE_UPLINK},
    path::{
        Egress::{Continue, Neighbour, Peer},
        Hook,
    },
    wire::Protocol::{self, Sctp, Tcp, Udp},
};

use super::{clash, refused};
use crate::{
    case::{Case, case},
    family::Net,
    packet::{Complaint, Wire, echo, of, tcp, udp},
    state::{BLUE, BRIDGE, GREEN, NARROW, RED, State, UPLINK, host_process, on, on_uplink, outside},
    world::{BACKEND, CLIENT, FAR_ROUTER, NODE, OTHER_VIP, OUTSIDER, VIP, web, web_by},
};

use Complaint::{PortUnreachable, Problem, TimeExceeded, TooBig};

const REMOTE: &str = "172.16.5.9:8080";

pub fn cases<F: Net>() -> Vec<Case<F>> {
    let mut cases = vec![
        from_client_outside(),
        from_router_outside(),
        about_remote_backend(),
        hop_of_an_error(),
        from_host(),
        from_host_process(),
        by_stack(),
        hairpin(),
        forged_destination(),
        wrong_port(),
        of_no_flow(),
        of_a_direct_call(),
        quoted_headers(),
        changes_nothing(),
        no_checksum(),
        echoes(),
        echoes_elsewhere(),
        hops(),
        too_big(),
        too_big_back(),
        not_too_big(),
    ];
    for protocol in [Tcp, Udp, Sctp] {
        cases.extend([from_backend(protocol), from_client(protocol), cut(protocol)]);
    }
    for protocol in [Tcp, Udp] {
        cases.push(another_port(protocol));
    }
    cases
}

/// As [`web`] for one protocol, and the backend. SCTP keeps its port.
fn of_protocol<F: Net>(protocol: Protocol) -> (State<F>, &'static str) {
    let at = if protocol == Sctp { "10.244.1.3:80" } else { BACKEND };
    (web_by(at, BRIDGE.zone, BLUE.reached(NextHopKind::Peer)).service(1, &[(protocol, VIP)], &[1]), at)
}

fn from_backend<F: Net>(protocol: Protocol) -> Case<F> {
    let (rows, at) = of_protocol(protocol);
    let request = |to: &str| of(protocol, CLIENT, to);
    let told = |case: Case<F>, complaint| {
        case.pod(BLUE, request(at).error_from(complaint, at))
            .error(Peer(RED.ifindex), request(VIP).error_from(complaint, VIP), CLIENT)
            .pod(BLUE, request(at).error_from(complaint, FAR_ROUTER).quoting(8))
            .error(Peer(RED.ifindex), request(VIP).error_from(complaint, FAR_ROUTER).quoting(8), CLIENT)
    };
    let all = [PortUnreachable, TooBig(1280), TimeExceeded, Problem];
    let new = case(format!("errors about requests, {protocol:?}: from the backend and from a router"), rows)
        .pod(RED, request(VIP))
        .opens(Peer(BLUE.ifindex), at);
    let known = all
        .into_iter()
        .fold(new, told)
        .row(request(VIP), 0, 1)
        .answers(of(protocol, at, CLIENT))
        .pod(RED, request(VIP))
        .request(Peer(BLUE.ifindex), at)
        .also(Counter::Assured);
    all.into_iter().fold(known, told)
}

fn from_client<F: Net>(protocol: Protocol) -> Case<F> {
    let (rows, at) = of_protocol(protocol);
    let reply = |from: &str| of(protocol, from, CLIENT);
    let new = case(format!("errors about replies, {protocol:?}: from the client and from a router"), rows)
        .pod(RED, of(protocol, CLIENT, VIP))
        .opens(Peer(BLUE.ifindex), at);
    [PortUnreachable, TooBig(1280), TimeExceeded, Problem].into_iter().fold(new, |case, complaint| {
        case.pod(RED, reply(VIP).error_from(complaint, CLIENT))
            .error(Peer(BLUE.ifindex), reply(at).error_from(complaint, CLIENT), at)
            .pod(RED, reply(VIP).error_from(complaint, FAR_ROUTER).quoting(8))
            .error(Peer(BLUE.ifindex), reply(at).error_from(complaint, FAR_ROUTER).quoting(8), at)
    })
}

fn cut<F: Net>(protocol: Protocol) -> Case<F> {
    let (rows, at) = of_protocol(protocol);
    let error = |to: &str, from: &str| of(protocol, CLIENT, to).unreachable_from(from);
    let whole = error(at, at);
    let open = case(format!("errors of every length, {protocol:?}"), rows)
        .pod(RED, of(protocol, CLIENT, VIP))
        .opens(Peer(BLUE.ifindex), at);
    let lengths = F::TRANSPORT..whole.bytes::<F>().len();
    let cut =
        lengths.fold(open, |case, len| case.pod(BLUE, whole.clone().cut(len)).passes(Counter::Truncated));
    // ICMP's header, the network header and the first 8 bytes.
    let least = 8 + (F::TRANSPORT - 14) + 8;
    let shortened = (0..least).fold(cut, |case, len| {
        let case = case.pod(BLUE, whole.clone().shortened(len)).passes(Counter::Protocol);
        case.pod(BLUE, whole.clone().shortened(len).padded(80)).passes(Counter::Protocol)
    });
    // Half a checksum of TCP is none.
    (8..24).filter(|len| *len != 17).fold(shortened, |case, len| {
        case.pod(BLUE, error(at, at).quoting(len)).error(
            Peer(RED.ifindex),
            error(VIP, VIP).quoting(len),
            CLIENT,
        )
    })
}

fn from_client_outside<F: Net>() -> Case<F> {
    case("errors between a client outside and a pod", web())
        .outside(tcp(OUTSIDER, VIP).syn())
        .opens(Peer(BLUE.ifindex), BACKEND)
        .outside(tcp(VIP, OUTSIDER).unreachable_from(OUTSIDER))
        .error(Peer(BLUE.ifindex), tcp(BACKEND, OUTSIDER).unreachable_from(OUTSIDER), BACKEND)
        .pod(BLUE, tcp(OUTSIDER, BACKEND).unreachable_from(BACKEND))
        .error(Neighbour(UPLINK), tcp(OUTSIDER, VIP).unreachable_from(VIP), BRIDGE.at)
}

fn from_router_outside<F: Net>() -> Case<F> {
    let large = |from: &str| udp(from, OUTSIDER).says(&[0xa5; 1300]).error_from(TooBig(1280), FAR_ROUTER);
    case("path MTU: what a router outside says about a reply", web())
        .outside(udp(OUTSIDER, VIP))
        .opens(Peer(BLUE.ifindex), BACKEND)
        .outside(large(VIP).quoting(500))
        .error(Peer(BLUE.ifindex), large(BACKEND).quoting(500), BACKEND)
}

fn about_remote_backend<F: Net>() -> Case<F> {
    let error = |to: &str, complaint, at| tcp(CLIENT, to).error_from(complaint, at);
    case("errors about requests to a backend outside", web_by(REMOTE, ZONE_UPLINK, outside()))
        .pod(RED, tcp(CLIENT, VIP).syn())
        .opens(Neighbour(UPLINK), REMOTE)
        .outside(error(REMOTE, TooBig(1280), FAR_ROUTER))
        .error(Peer(RED.ifindex), error(VIP, TooBig(1280), FAR_ROUTER), CLIENT)
        .outside(error(REMOTE, PortUnreachable, REMOTE))
        .error(Peer(RED.ifindex), error(VIP, PortUnreachable, VIP), CLIENT)
}

fn hop_of_an_error<F: Net>() -> Case<F> {
    case("an error at the end of its hops is no cause for another", web())
        .outside(udp(OUTSIDER, VIP))
        .opens(Peer(BLUE.ifindex), BACKEND)
        .outside(udp(VIP, OUTSIDER).unreachable_from(OUTSIDER).hops(1))
        .drops(Counter::TtlExceeded)
}

fn from_host<F: Net>() -> Case<F> {
    let error = |to: &str| tcp(CLIENT, to).unreachable_from(BRIDGE.at);
    case("stack: what the host says about a request after its translation", web())
        .on(on(BRIDGE, NextHopKind::Stack))
        .pod(RED, tcp(CLIENT, VIP).syn())
        .opens(Continue, BACKEND)
        .send(Hook::BridgeEgress, BRIDGE.ifindex, error(BACKEND).link_to(CLIENT))
        .error(Continue, error(VIP), CLIENT)
        .send(Hook::PortEgress, RED.ifindex, error(VIP).link_to(CLIENT))
        .passes(Counter::Protocol)
        .send(Hook::PortEgress, RED.ifindex, error(BACKEND).link_to(CLIENT))
        .error(Continue, error(VIP), CLIENT)
        .send(Hook::BridgeEgress, BRIDGE.ifindex, tcp(VIP, CLIENT).unreachable_from(BRIDGE.at))
        .passes(Counter::WrongHook)
}

fn from_host_process<F: Net>() -> Case<F> {
    const API: &str = "10.244.1.1:6443";
    let request = |to: &str| udp(CLIENT, to).unreachable_from(to);
    let reply = |from: &str| udp(from, CLIENT).unreachable_from(CLIENT);
    let from_outside = |to: &str| udp(OUTSIDER, to).unreachable_from(to);
    case("errors between a client and a process of the host", web_by(API, ZONE_OF_CLIENT, host_process()))
        .pod(RED, udp(CLIENT, VIP))
        .opens(Continue, API)
        .send(Hook::BridgeEgress, BRIDGE.ifindex, request(API).link_to(CLIENT))
        .error(Continue, request(VIP), CLIENT)
        .pod(RED, reply(VIP))
        .error(Continue, reply(API), BRIDGE.at)
        .outside(udp(OUTSIDER, VIP))
        .opens(Continue, API)
        .send(Hook::UplinkEgress, UPLINK, from_outside(API).link_to(OUTSIDER))
        .error(Continue, from_outside(VIP), OUTSIDER)
}

fn by_stack<F: Net>() -> Case<F> {
    let request = |to: &str| tcp(CLIENT, to).unreachable_from(to);
    let reply = |from: &str| tcp(from, CLIENT).unreachable_from(CLIENT);
    case("stack: errors of pods go through the host's stack", web())
        .on(on(BRIDGE, NextHopKind::Stack))
        .pod(RED, tcp(CLIENT, VIP).syn())
        .opens(Continue, BACKEND)
        .pod(BLUE, request(BACKEND))
        .passes(Counter::LeftToStack)
        .send(Hook::PortEgress, RED.ifindex, request(BACKEND).link_from(BRIDGE.at).link_to(CLIENT))
        .error(Continue, request(VIP), CLIENT)
        .pod(RED, reply(VIP))
        .error(Continue, reply(BACKEND), BRIDGE.at)
}

fn hairpin<F: Net>() -> Case<F> {
    const SELF: &str = "10.244.1.2:8080";
    const SEEN: &str = "10.96.0.10:40000";
    case("hairpin: what a pod says about its own packets", {
        web_by(SELF, BRIDGE.zone, RED.reached(NextHopKind::Peer))
    })
    .pod(RED, udp(CLIENT, VIP))
    .opens(Peer(RED.ifindex), SELF)
    .shown(SEEN)
    .pod(RED, udp(SEEN, SELF).unreachable_from(SELF))
    .error(Peer(RED.ifindex), udp(CLIENT, VIP).unreachable_from(VIP), CLIENT)
    .pod(RED, udp(VIP, CLIENT).unreachable_from(CLIENT))
    .error(Peer(RED.ifindex), udp(SELF, SEEN).unreachable_from(SEEN), SELF)
}

fn another_port<F: Net>(protocol: Protocol) -> Case<F> {
    let other = &*clash::other_port::<F>(protocol, OTHER_VIP);
    let request = |from: &str, to: &str| of(protocol, from, to).unreachable_from(to);
    let reply = |from: &str, to: &str| of(protocol, from, to).unreachable_from(CLIENT);
    case(format!("errors of a flow with another port at its backend, {protocol:?}"), clash::only_blue(&[2]))
        .begins(of(protocol, CLIENT, VIP))
        .begins(of(protocol, CLIENT, OTHER_VIP))
        .shown(other)
        .pod(BLUE, request(other, BACKEND))
        .error(Peer(RED.ifindex), request(CLIENT, OTHER_VIP), CLIENT)
        .pod(RED, reply(OTHER_VIP, CLIENT))
        .error(Peer(BLUE.ifindex), reply(BACKEND, other), BACKEND)
        .pod(BLUE, request(CLIENT, BACKEND))
        .error(Peer(RED.ifindex), request(CLIENT, VIP), CLIENT)
}

fn forged_destination<F: Net>() -> Case<F> {
    let error = tcp(CLIENT, BACKEND).unreachable_from(BACKEND);
    case("an error to somebody else than whose packet it quotes is left alone", web())
        .begins(tcp(CLIENT, VIP).syn())
        .pod(BLUE, error.clone().destination(GREEN.at))
        .passes(Counter::Protocol)
        .pod(BLUE, error)
        .error(Peer(RED.ifindex), tcp(CLIENT, VIP).unreachable_from(VIP), CLIENT)
}

fn wrong_port<F: Net>() -> Case<F> {
    case("an error in the name of one end from another pod's port is dropped", web())
        .begins(tcp(CLIENT, VIP).syn())
        .pod(GREEN, tcp(CLIENT, BACKEND).unreachable_from(BACKEND))
        .drops(Counter::SpoofedSource)
        .pod(GREEN, tcp(VIP, CLIENT).unreachable_from(CLIENT))
        .drops(Counter::SpoofedSource)
}

fn of_no_flow<F: Net>() -> Case<F> {
    case("errors about what is no flow's are left alone", web())
        .pod(BLUE, tcp(CLIENT, BACKEND).unreachable_from(BACKEND))
        .passes(Counter::Protocol)
        .pod(RED, tcp(VIP, CLIENT).unreachable_from(CLIENT))
        .passes(Counter::Protocol)
        .pod(RED, echo(CLIENT, VIP).unreachable_from(VIP))
        .passes(Counter::Protocol)
}

fn of_a_direct_call<F: Net>() -> Case<F> {
    case("errors about a direct call of a backend are left alone", web())
        .pod(RED, udp(CLIENT, BACKEND))
        .passes(Counter::Direct)
        .pod(BLUE, udp(CLIENT, BACKEND).unreachable_from(BACKEND))
        .passes(Counter::Protocol)
}

fn changes_nothing<F: Net>() -> Case<F> {
    case("errors keep no flow alive", web())
        .begins(udp(CLIENT, VIP))
        .wait(20)
        .pod(BLUE, udp(CLIENT, BACKEND).unreachable_from(BACKEND))
        .error(Peer(RED.ifindex), udp(CLIENT, VIP).unreachable_from(VIP), CLIENT)
        .pod(RED, udp(VIP, CLIENT).unreachable_from(CLIENT))
        .error(Peer(BLUE.ifindex), udp(BACKEND, CLIENT).unreachable_from(CLIENT), BACKEND)
        .row(udp(CLIENT, VIP), 0, 1)
        .wait(20)
        .pod(BLUE, udp(CLIENT, BACKEND).unreachable_from(BACKEND))
        .passes(Counter::Protocol)
        .pod(RED, udp(VIP, CLIENT).unreachable_from(CLIENT))
        .passes(Counter::Protocol)
}

/// Something between its network header and what that is followed by.
fn with_header<F: Net>(packet: Wire) -> Wire {
    const DESTINATION_OPTIONS: u8 = 60;
    if F::TRANSPORT == 34 {
        packet.options(4)
    } else {
        packet.extensions(&[(DESTINATION_OPTIONS, vec![0, 1, 4, 0, 0, 0, 0])])
    }
}

fn quoted_headers<F: Net>() -> Case<F> {
    let error = |packet: Wire| packet.unreachable_from(FAR_ROUTER);
    let open = case("errors that quote options, extension headers or fragments", web())
        .begins(udp(CLIENT, VIP))
        .pod(BLUE, error(with_header::<F>(udp(CLIENT, BACKEND))))
        .passes(Counter::Protocol)
        .pod(BLUE, error(udp(CLIENT, BACKEND).piece(7, 8, 26)))
        .passes(Counter::Protocol)
        .pod(BLUE, with_header::<F>(error(udp(CLIENT, BACKEND))))
        .passes(Counter::Protocol);
    if F::TRANSPORT != 34 {
        return open;
    }
    open.pod(BLUE, error(udp(CLIENT, BACKEND).piece(7, 0, 16))).error(
        Peer(RED.ifindex),
        error(udp(CLIENT, VIP).piece(7, 0, 16)),
        CLIENT,
    )
}

fn no_checksum<F: Net>() -> Case<F> {
    let error = |to: &str| udp(CLIENT, to).no_checksum().unreachable_from(to);
    case("errors about UDP without a checksum", web())
        .begins(udp(CLIENT, VIP))
        .pod(BLUE, error(BACKEND))
        .error(Peer(RED.ifindex), error(VIP), CLIENT)
}

fn echoes<F: Net>() -> Case<F> {
    case("echo: a service's address answers, wherever it is called", web().owned(VIP))
        .pod(RED, echo(CLIENT, VIP))
        .echoes()
        .pod(RED, echo(CLIENT, VIP).says(b"").padded(10))
        .echoes()
        .pod(RED, echo(CLIENT, VIP).says(&[0xa5; 1401]).hops(1))
        .echoes()
        .send(Hook::BridgeIngress, BRIDGE.ifindex, echo(CLIENT, VIP))
        .echoes()
        .send(Hook::BridgeEgress, BRIDGE.ifindex, echo(BRIDGE.at, VIP))
        .passes(Counter::Protocol)
        .outside(echo(OUTSIDER, VIP))
        .echoes()
}

fn echoes_elsewhere<F: Net>() -> Case<F> {
    case("echo: others' addresses, nobody's address, fragments", web())
        .on(refused::with_cidr(on(BRIDGE, NextHopKind::Peer)))
        .pod(RED, echo(CLIENT, BACKEND))
        .passes(Counter::Protocol)
        .pod(RED, echo(CLIENT, "10.96.0.99:0"))
        .drops(Counter::UnassignedVip)
        .pod(RED, echo(CLIENT, VIP).echoed())
        .passes(Counter::Protocol)
        .change(|state| *state = std::mem::take(state).owned(VIP))
        .pod(RED, echo(CLIENT, VIP).piece(7, 0, 16))
        .passes(Counter::Protocol)
        .pod(RED, echo(CLIENT, VIP).shortened(6).padded(20))
        .passes(Counter::Truncated)
        .pod(RED, echo(CLIENT, VIP))
        .echoes()
}

/// The node has an address to speak from.
fn as_node(settings: Settings) -> Settings {
    let at = *crate::family::socket(NODE).ip();
    let host4 = <lb_common::family::V4 as Net>::addr(at);
    Settings { host4, host6: <lb_common::family::V6 as Net>::addr(at), ..settings }
}

fn hops<F: Net>() -> Case<F> {
    case("a request at the end of its hops is returned by the frontend, a reply by the node", web())
        .on(as_node(on_uplink()))
        .outside(udp(OUTSIDER, VIP).hops(1))
        .returns(Counter::TtlExceeded, TimeExceeded, VIP)
        .also(Counter::NewFlow)
        .accounted()
        .outside(tcp(OUTSIDER, VIP).hops(1))
        .returns(Counter::TtlExceeded, TimeExceeded, VIP)
        .also(Counter::NewFlow)
        .accounted()
        .on(as_node(on(BRIDGE, NextHopKind::Peer)))
        .pod(BLUE, udp(BACKEND, OUTSIDER).hops(1))
        .returns(Counter::TtlExceeded, TimeExceeded, NODE)
        .pod(BLUE, tcp(BACKEND, OUTSIDER).hops(1))
        .returns(Counter::TtlExceeded, TimeExceeded, NODE)
}

/// Some device is as narrow as the uplink.
fn narrow(settings: Settings) -> Settings {
    Settings { mtu_floor: NARROW, ..settings }
}

/// As many bytes as make a packet of UDP so large.
fn filling<F: Net>(size: u32) -> Vec<u8> {
    vec![0xa5; size as usize - (F::TRANSPORT - 14) - 8]
}

fn too_big<F: Net>() -> Case<F> {
    let [most, more] = [filling::<F>(NARROW), filling::<F>(NARROW + 1)];
    case("a request larger than the device that it would leave by is returned", {
        web_by(REMOTE, ZONE_UPLINK, outside())
    })
    .on(as_node(narrow(on(BRIDGE, NextHopKind::Peer))))
    .pod(RED, udp(CLIENT, VIP).says(&most))
    .opens(Neighbour(UPLINK), REMOTE)
    .pod(RED, udp(CLIENT, VIP).says(&more))
    .returns(Counter::TooBig, TooBig(NARROW), VIP)
    .accounted()
    .pod(RED, tcp(CLIENT, VIP).says(&more))
    .returns(Counter::TooBig, TooBig(NARROW), VIP)
    .also(Counter::NewFlow)
    .accounted()
}

fn too_big_back<F: Net>() -> Case<F> {
    let more = filling::<F>(NARROW + 1);
    let error = |to: &str| udp(OUTSIDER, to).says(&more).unreachable_from(to);
    case("a reply larger than the device that it would leave by is returned; an error is not", web())
        .outside(udp(OUTSIDER, VIP))
        .opens(Peer(BLUE.ifindex), BACKEND)
        .on(as_node(narrow(on(BRIDGE, NextHopKind::Peer))))
        .pod(BLUE, udp(BACKEND, OUTSIDER).says(&more))
        .returns(Counter::TooBig, TooBig(NARROW), NODE)
        .pod(BLUE, error(BACKEND))
        .error(Neighbour(UPLINK), error(VIP), BRIDGE.at)
}

fn not_too_big<F: Net>() -> Case<F> {
    let more = filling::<F>(NARROW + 1);
    case(
        "a pod takes every size, a device what it takes, and where all are alike nothing is looked at",
        web(),
    )
    .on(narrow(on(BRIDGE, NextHopKind::Peer)))
    .begins(udp(CLIENT, VIP).says(&more))
    .answers(udp(BACKEND, CLIENT).says(&more))
    .on(narrow(on(BRIDGE, NextHopKind::Bridge)))
    .send(Hook::BridgeIngress, BRIDGE.ifindex, tcp(CLIENT, VIP).says(&more))
    .opens(Peer(BLUE.ifindex), BACKEND)
    .pod(BLUE, tcp(BACKEND, CLIENT).says(&more))
    .reply(Continue, VIP, CLIENT)
    .outside(udp(OUTSIDER, VIP))
    .opens(Peer(BLUE.ifindex), BACKEND)
    .on(on(BRIDGE, NextHopKind::Peer))
    .pod(BLUE, udp(BACKEND, OUTSIDER).says(&more))
    .reply(Neighbour(UPLINK), VIP, OUTSIDER)
}
