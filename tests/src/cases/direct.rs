//! One client port to a service and to the pod behind it: at that pod it is one connection.

use lb_common::{
    abi::{BackendState, Counter, Lifetimes, NextHopKind},
    path::{Egress::Peer, slot_hash},
    wire::Protocol::{self, Tcp, Udp},
};

use super::{assured, clash::other_port};
use crate::{
    case::{Case, case},
    family::Net,
    packet::{first, of, tcp, udp},
    state::{BLUE, BRIDGE, RED, on},
    world::{BACKEND, CLIENT, VIP, web},
};

pub fn cases<F: Net>() -> Vec<Case<F>> {
    let mut cases = vec![stale(), lost_row(), both_again(), call_again(), both_again_after_resets()];
    cases.extend([draining(), call_expires()]);
    for protocol in [Tcp, Udp] {
        cases.extend([service_first(protocol), direct_first(protocol), forgotten(protocol), over(protocol)]);
        cases.push(another_backend_by_now(protocol));
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

/// A flow and a call from one port of the client's, both made.
fn both<F: Net>(name: &str) -> Case<F> {
    let other = &*called_from::<F>(Tcp);
    assured(name, web(), Tcp)
        .begins(tcp(CLIENT, BACKEND).syn())
        .shown(other)
        .pod(BLUE, tcp(BACKEND, other).syn_ack())
        .reply(Peer(RED.ifindex), BACKEND, CLIENT)
        .asks(tcp(CLIENT, BACKEND))
        .assures()
        .shown(other)
}

/// Both sides have closed both.
fn both_closed<F: Net>(name: &str) -> Case<F> {
    let other = &*called_from::<F>(Tcp);
    both(name)
        .asks(tcp(CLIENT, VIP).fin())
        .answers(tcp(BACKEND, CLIENT).fin())
        .asks(tcp(CLIENT, BACKEND).fin())
        .shown(other)
        .pod(BLUE, tcp(BACKEND, other).fin())
        .reply(Peer(RED.ifindex), BACKEND, CLIENT)
}

/// The pair once more, as the first time.
fn pair_again<F: Net>(case: Case<F>) -> Case<F> {
    let other = &*called_from::<F>(Tcp);
    case.begins(tcp(CLIENT, VIP).syn())
        .answers(tcp(BACKEND, CLIENT).syn_ack())
        .begins(tcp(CLIENT, BACKEND).syn())
        .shown(other)
        .pod(BLUE, tcp(BACKEND, other).syn_ack())
        .reply(Peer(RED.ifindex), BACKEND, CLIENT)
        .asks(tcp(CLIENT, BACKEND))
        .shown(other)
        .asks(tcp(CLIENT, VIP))
}

fn both_again<F: Net>() -> Case<F> {
    pair_again(both_closed("direct: a flow and a call that are over, both once more"))
}

fn both_again_after_resets<F: Net>() -> Case<F> {
    let case = both("direct: a flow and a call that were reset, both once more");
    let case = case.asks(tcp(CLIENT, VIP).rst()).asks(tcp(CLIENT, BACKEND).rst());
    pair_again(case.shown(&called_from::<F>(Tcp)).wait(Lifetimes::SECONDS.tcp_closing - 1))
}

/// The call begins first: now it has its own port, and the flow another.
fn call_again<F: Net>() -> Case<F> {
    let before = &*called_from::<F>(Tcp);
    let other = &*other_port::<F>(Tcp, VIP);
    both_closed("direct: a flow and a call that are over, the call first")
        .pod(RED, tcp(CLIENT, BACKEND).syn())
        .passes(Counter::Direct)
        .no_row(tcp(CLIENT, BACKEND))
        .pod(BLUE, tcp(BACKEND, CLIENT).syn_ack())
        .passes(Counter::Direct)
        // What the backend sends once more of the first call makes no row of it anew.
        .pod(BLUE, tcp(BACKEND, before).fin())
        .passes(Counter::NoFrontend)
        .pod(RED, tcp(CLIENT, BACKEND))
        .passes(Counter::Direct)
        .begins(tcp(CLIENT, VIP).syn())
        .shown(other)
        .pod(BLUE, tcp(BACKEND, other).syn_ack())
        .reply(Peer(RED.ifindex), VIP, CLIENT)
        .pod(RED, tcp(CLIENT, BACKEND))
        .passes(Counter::Direct)
}

/// Who is called by its own address is called whether its service sends it flows or not.
fn draining<F: Net>() -> Case<F> {
    both_closed("direct: a call of a backend that takes no new flows, beside one of its flows")
        .begins(tcp(CLIENT, VIP).syn())
        .answers(tcp(BACKEND, CLIENT).syn_ack())
        .change(|state| state.set_state(1, BackendState::Draining))
        .begins(tcp(CLIENT, BACKEND).syn())
        .shown(&called_from::<F>(Tcp))
        .answers(tcp(BACKEND, CLIENT))
}

/// UDP has no end but the time that nothing is heard.
fn call_expires<F: Net>() -> Case<F> {
    let other = &*called_from::<F>(Udp);
    assured("direct: a call that has expired beside a flow, and then both", web(), Udp)
        .begins(udp(CLIENT, BACKEND))
        .shown(other)
        .wait(Lifetimes::SECONDS.udp_unanswered + 1)
        .asks(udp(CLIENT, VIP))
        .begins(udp(CLIENT, BACKEND))
        .shown(other)
        .answers(udp(BACKEND, CLIENT))
        .wait(Lifetimes::SECONDS.udp_answered + 1)
        .pod(RED, udp(CLIENT, BACKEND))
        .passes(Counter::Direct)
        .pod(BLUE, udp(BACKEND, CLIENT))
        .passes(Counter::Direct)
        .begins(udp(CLIENT, VIP))
        .shown(&other_port::<F>(Udp, VIP))
}

/// The row of the flow's backend was given to another one: no call is led there.
fn another_backend_by_now<F: Net>(protocol: Protocol) -> Case<F> {
    case(format!("direct: a call beside a flow whose backend is no more, {protocol:?}"), web())
        .begins(first(protocol, CLIENT, VIP))
        .change(|state| {
            let row = state.side.backends.get_mut(&1).expect("blue");
            (row.addr, row.word.generation) = (F::addr([10, 244, 1, 4].into()), 2);
        })
        .pod(RED, first(protocol, CLIENT, BACKEND))
        .passes(Counter::Direct)
        .pod(BLUE, of(protocol, BACKEND, CLIENT))
        .passes(Counter::Direct)
}
