//! One client port to a service and to the pod behind it: at that pod it is one connection.

use lb_common::{
    abi::{Counter, Lifetimes, NextHopKind},
    path::{Egress::Peer, slot_hash},
    wire::Protocol::{self, Tcp, Udp},
};

use super::{assured, clash::other_port};
use crate::{
    case::{Case, case},
    family::Net,
    packet::{first, of, tcp},
    state::{BLUE, BRIDGE, RED, on},
    world::{BACKEND, CLIENT, VIP, web},
};

pub fn cases<F: Net>() -> Vec<Case<F>> {
    let mut cases = vec![stale(), lost_row()];
    for protocol in [Tcp, Udp] {
        cases.extend([service_first(protocol), direct_first(protocol), forgotten(protocol), over(protocol)]);
    }
    cases
}

/// The client's port on the backend's side for its direct call.
fn called_from<F: Net>(protocol: Protocol) -> String {
    let seed = on(BRIDGE, NextHopKind::Peer).hash_seed;
    let hash = slot_hash(&of(protocol, CLIENT, BACKEND).key::<F>(BRIDGE.zone), seed);
    format!("10.244.1.2:{}", 40_000 ^ ((1 + hash % 31) as u16 * 33))
}

fn service_first<F: Net>(protocol: Protocol) -> Case<F> {
    let other = &*called_from::<F>(protocol);
    case(format!("direct: a call beside a live flow has another port there, {protocol:?}"), web())
        .begins(first(protocol, CLIENT, VIP))
        .begins(first(protocol, CLIENT, BACKEND))
        .shown(other)
        .pod(BLUE, of(protocol, BACKEND, other))
        .reply(Peer(RED.ifindex), BACKEND, CLIENT)
        .answers(of(protocol, BACKEND, CLIENT))
        .asks(of(protocol, CLIENT, BACKEND))
        .assures()
        .shown(other)
}

fn direct_first<F: Net>(protocol: Protocol) -> Case<F> {
    let other = &*other_port::<F>(protocol, VIP);
    case(format!("direct: a flow beside a direct call has another port there, {protocol:?}"), web())
        .pod(RED, first(protocol, CLIENT, BACKEND))
        .passes(Counter::Direct)
        .pod(BLUE, of(protocol, BACKEND, CLIENT))
        .passes(Counter::Direct)
        .begins(first(protocol, CLIENT, VIP))
        .shown(other)
        .answers(of(protocol, BACKEND, other))
        .pod(BLUE, of(protocol, BACKEND, CLIENT))
        .passes(Counter::Direct)
        .pod(RED, of(protocol, CLIENT, BACKEND))
        .passes(Counter::Direct)
}

fn forgotten<F: Net>(protocol: Protocol) -> Case<F> {
    let life =
        if protocol == Tcp { Lifetimes::SECONDS.tcp_unanswered } else { Lifetimes::SECONDS.udp_unanswered };
    case(format!("direct: a call that nobody goes on with is forgotten, {protocol:?}"), web())
        .pod(RED, first(protocol, CLIENT, BACKEND))
        .passes(Counter::Direct)
        .wait(life + 1)
        .begins(first(protocol, CLIENT, VIP))
        .answers(of(protocol, BACKEND, CLIENT))
}

fn over<F: Net>(protocol: Protocol) -> Case<F> {
    let life =
        if protocol == Tcp { Lifetimes::SECONDS.tcp_unanswered } else { Lifetimes::SECONDS.udp_answered };
    case(format!("direct: answers are no longer those of a flow that has expired, {protocol:?}"), web())
        .begins(first(protocol, CLIENT, VIP))
        .answers(of(protocol, BACKEND, CLIENT))
        .wait(life + 1)
        .pod(RED, first(protocol, CLIENT, BACKEND))
        .passes(Counter::Direct)
        .pod(BLUE, of(protocol, BACKEND, CLIENT))
        .passes(Counter::Direct)
}

/// What a client says of an answer that came with the backend's address does not end its flow.
fn lost_row<F: Net>() -> Case<F> {
    assured("direct: the reset of an answer that was not translated", web(), Tcp)
        .loses(tcp(BACKEND, CLIENT))
        .pod(BLUE, tcp(BACKEND, CLIENT))
        .passes(Counter::NoFrontend)
        .pod(RED, tcp(CLIENT, BACKEND).rst())
        .drops(Counter::StrayReset)
        .wait(1)
        .asks(tcp(CLIENT, VIP))
        .also(Counter::Rebuilt)
        // What is still on its way when the row is there again.
        .pod(RED, tcp(CLIENT, BACKEND).rst())
        .drops(Counter::StrayReset)
        .answers(tcp(BACKEND, CLIENT))
        // A call that was made is ended as it likes.
        .pod(RED, tcp("10.244.1.2:40001", BACKEND).syn())
        .passes(Counter::Direct)
        .pod(RED, tcp("10.244.1.2:40001", BACKEND).rst())
        .passes(Counter::Direct)
}

fn stale<F: Net>() -> Case<F> {
    assured("direct: a SYN after a flow that was reset", web(), Tcp)
        .asks(tcp(CLIENT, VIP).rst())
        .pod(RED, tcp(CLIENT, BACKEND).syn())
        .passes(Counter::Direct)
        .pod(BLUE, tcp(BACKEND, CLIENT).syn_ack())
        .passes(Counter::Direct)
        .begins(tcp(CLIENT, VIP).syn())
        .shown(&other_port::<F>(Tcp, VIP))
}
