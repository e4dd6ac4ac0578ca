//! What nobody takes: refused at once in the name of who was called, or dropped.

use lb_common::{
    abi::{BackendState, Cidr, Counter, NextHopKind, Settings},
    family::Address as _,
    path::Hook,
    wire::Protocol::{Sctp, Tcp, Udp},
};

use crate::{
    case::{Case, case},
    family::Net,
    packet::{other, sctp, tcp, udp},
    state::{BLUE, BRIDGE, RED, State, on, on_uplink},
    world::{BACKEND, CLIENT, OUTSIDER, VIP, web},
};

/// A port of the service's address that it does not have.
const OTHER_PORT: &str = "10.96.0.10:81";
/// An address of nobody, inside the ranges and outside of them.
const UNOWNED: &str = "10.96.0.99:80";
const FOREIGN: &str = "10.97.0.99:80";

pub fn cases<F: Net>() -> Vec<Case<F>> {
    vec![
        no_backend(),
        numbers(),
        never_a_reset_for_a_reset(),
        from_outside(),
        at_the_bridge(),
        other_port(),
        host_address(),
        replies_go_on(),
        unassigned(),
        unowned_from_outside(),
        other_protocols(),
    ]
}

fn nobody<F: Net>() -> State<F> {
    State::default().service(1, &[(Tcp, VIP), (Udp, VIP), (Sctp, VIP)], &[])
}

fn no_backend<F: Net>() -> Case<F> {
    case("no backend: TCP gets a reset, UDP and SCTP that the port is unreachable", nobody())
        .pod(RED, tcp(CLIENT, VIP).syn())
        .rejects(Counter::NoBackend)
        .pod(RED, udp(CLIENT, VIP))
        .rejects(Counter::NoBackend)
        .pod(RED, udp(CLIENT, VIP).says(b""))
        .rejects(Counter::NoBackend)
        .pod(RED, udp(CLIENT, VIP).says(&[0xa5; 1400]))
        .rejects(Counter::NoBackend)
        .pod(RED, sctp(CLIENT, VIP))
        .rejects(Counter::NoBackend)
        .no_row(udp(CLIENT, VIP))
}

fn numbers<F: Net>() -> Case<F> {
    case("a reset has the numbers that RFC 9293 asks for", nobody())
        .pod(RED, tcp(CLIENT, VIP))
        .rejects(Counter::NoBackend)
        .pod(RED, tcp(CLIENT, VIP).unacknowledged().says(b"seven b"))
        .rejects(Counter::NoBackend)
        .pod(RED, tcp(CLIENT, VIP).fin())
        .rejects(Counter::NoBackend)
        .pod(RED, tcp(CLIENT, VIP).says(&[0x5a; 1400]))
        .rejects(Counter::NoBackend)
        .pod(RED, tcp(CLIENT, VIP).says(b"an odd number of bytes!").padded(3))
        .rejects(Counter::NoBackend)
}

fn never_a_reset_for_a_reset<F: Net>() -> Case<F> {
    case("a reset gets no answer", nobody()).pod(RED, tcp(CLIENT, VIP).rst()).drops(Counter::NoBackend)
}

fn from_outside<F: Net>() -> Case<F> {
    case("no backend, a client outside", nobody())
        .outside(tcp(OUTSIDER, VIP).syn())
        .rejects(Counter::NoBackend)
        .outside(udp(OUTSIDER, VIP).hops(1))
        .rejects(Counter::NoBackend)
}

fn at_the_bridge<F: Net>() -> Case<F> {
    case("no backend, a port without a program", nobody())
        .send(Hook::BridgeIngress, BRIDGE.ifindex, tcp(CLIENT, VIP).syn())
        .rejects(Counter::NoBackend)
        .send(Hook::BridgeEgress, BRIDGE.ifindex, tcp(CLIENT, VIP).syn())
        .passes(Counter::WrongHook)
}

fn other_port<F: Net>() -> Case<F> {
    case("a port that the service does not have is refused", web().owned(VIP))
        .pod(RED, tcp(CLIENT, OTHER_PORT).syn())
        .rejects(Counter::NoPort)
        .pod(RED, udp(CLIENT, OTHER_PORT))
        .rejects(Counter::NoPort)
        // A protocol that the service does not have at this port.
        .pod(RED, sctp(CLIENT, VIP))
        .rejects(Counter::NoPort)
        .begins(tcp(CLIENT, VIP).syn())
}

fn host_address<F: Net>() -> Case<F> {
    case("another port of an address that is the host's own, too, is the host's", web())
        .pod(RED, tcp(CLIENT, OTHER_PORT).syn())
        .passes(Counter::NoFrontend)
        .pod(RED, udp(CLIENT, OTHER_PORT))
        .passes(Counter::NoFrontend)
}

fn replies_go_on<F: Net>() -> Case<F> {
    case("a flow goes on, draining or removed its backend, while new ones are refused", nobody())
        .change(|state| {
            *state =
                std::mem::take(state).backend(1, 1, BACKEND, BRIDGE.zone, BLUE.reached(NextHopKind::Peer));
            *state = std::mem::take(state).service(1, &[], &[1]);
        })
        .begins(tcp(CLIENT, VIP).syn())
        .change(|state| {
            state.set_state(1, BackendState::Removed);
            *state = std::mem::take(state).service(1, &[], &[]);
        })
        .asks(tcp(CLIENT, VIP))
        .answers(tcp(BACKEND, CLIENT))
        .pod(RED, tcp("10.244.1.2:40001", VIP).syn())
        .rejects(Counter::NoBackend)
}

/// The range of service addresses, 10.96.0.0/16.
pub fn with_cidr(settings: Settings) -> Settings {
    let (net, mask) = ("10.96.0.0".parse().expect("an address"), u32::MAX);
    let first = <lb_common::family::V4 as Net>::addr(net);
    let mut cidrs4 = settings.cidrs4;
    cidrs4[0] = Cidr { net: first, mask: lb_common::family::Addr4(mask.to_be() & 0xffffu16 as u32) };
    let sixth = <lb_common::family::V6 as Net>::addr(net);
    let mut cidrs6 = settings.cidrs6;
    // fd00:96::/32.
    let mask = lb_common::family::Addr6([u32::MAX, 0, 0, 0]);
    cidrs6[0] = Cidr { net: sixth.masked(mask), mask };
    Settings { cidrs4, cidrs6, ..settings }
}

fn unassigned<F: Net>() -> Case<F> {
    case("an address of the service ranges that no service has: dropped", web())
        .on(with_cidr(on(BRIDGE, NextHopKind::Peer)))
        .pod(RED, tcp(CLIENT, UNOWNED).syn())
        .drops(Counter::UnassignedVip)
        .pod(RED, udp(CLIENT, UNOWNED))
        .drops(Counter::UnassignedVip)
        .pod(RED, tcp(CLIENT, FOREIGN).syn())
        .passes(Counter::NotOurs)
        // A backend's own call there is no reply.
        .pod(BLUE, tcp(BACKEND, UNOWNED).syn())
        .drops(Counter::UnassignedVip)
        .begins(tcp(CLIENT, VIP).syn())
        .pod(RED, tcp(CLIENT, OTHER_PORT).syn())
        .drops(Counter::UnassignedVip)
        .send(Hook::BridgeEgress, BRIDGE.ifindex, udp(CLIENT, UNOWNED))
        .passes(Counter::NotOurs)
}

fn unowned_from_outside<F: Net>() -> Case<F> {
    case("the same from outside", web())
        .on(with_cidr(on_uplink()))
        .outside(udp(OUTSIDER, UNOWNED))
        .drops(Counter::UnassignedVip)
        .outside(udp(OUTSIDER, FOREIGN))
        .passes(Counter::NotOurs)
}

fn other_protocols<F: Net>() -> Case<F> {
    let on_vip = case("protocols that are not balanced are never refused", nobody().owned(VIP));
    [1, 47, 58]
        .into_iter()
        .fold(on_vip, |case, number| case.pod(RED, other(number, CLIENT, VIP)).passes(Counter::Protocol))
}
