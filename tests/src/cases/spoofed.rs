//! A pod in the name of another, and one that has really moved.

use lb_common::{
    abi::{
        Counter, NextHopKind,
        flow_bits::{ANSWERED, ASSURED, REPLY},
    },
    path::Egress::{Continue, Peer},
    wire::Protocol::Tcp,
};

use super::assured;
use crate::{
    case::{Case, case},
    family::Net,
    packet::{tcp, udp},
    state::{BLUE, BRIDGE, GREEN, Port, RED, State, on},
    world::{BACKEND, CLIENT, VIP, web, web_by},
};

pub fn cases<F: Net>() -> Vec<Case<F>> {
    vec![
        new_flow(),
        live_flow(),
        at_home(),
        reply_of_another(),
        backend_moves(),
        client_moves(),
        client_of_a_recreated_pod(),
        vip_as_source(),
        answers_by_its_other_port(),
        calls_by_its_other_port(),
    ]
}

fn new_flow<F: Net>() -> Case<F> {
    case("spoofed: a call in another's name", web().home(RED))
        .pod(GREEN, tcp(CLIENT, VIP).syn())
        .drops(Counter::SpoofedSource)
        .no_row(tcp(CLIENT, VIP))
        // Nobody knows whose address that is.
        .pod(GREEN, tcp("10.244.1.9:40000", VIP).syn())
        .opens(Peer(BLUE.ifindex), BACKEND)
}

fn live_flow<F: Net>() -> Case<F> {
    let case = assured("spoofed: packets of another's flow", web().home(RED), Tcp);
    let packets = [tcp(CLIENT, VIP), tcp(CLIENT, VIP).syn(), tcp(CLIENT, VIP).rst(), tcp(CLIENT, VIP).fin()];
    let case = packets.into_iter().fold(case, |case, packet| {
        // With red's MAC, or its own.
        case.pod(GREEN, packet.clone())
            .drops(Counter::SpoofedSource)
            .pod(GREEN, packet.link_from(GREEN.at))
            .drops(Counter::SpoofedSource)
    });
    case.row(tcp(CLIENT, VIP), ASSURED | ANSWERED, 1).answers(tcp(BACKEND, CLIENT))
}

fn at_home<F: Net>() -> Case<F> {
    case("moved: the agent knows where to", web().home(RED))
        .begins(udp(CLIENT, VIP))
        .pod(GREEN, udp(CLIENT, VIP))
        .drops(Counter::SpoofedSource)
        .change(|state| *state = std::mem::take(state).home(Port { ifindex: GREEN.ifindex, ..RED }))
        .pod(GREEN, udp(CLIENT, VIP))
        .request(Peer(BLUE.ifindex), BACKEND)
        .also(Counter::Moved)
        .pod(RED, udp(CLIENT, VIP))
        .drops(Counter::SpoofedSource)
}

fn reply_of_another<F: Net>() -> Case<F> {
    case("spoofed: a pod answers for another", web())
        .begins(tcp(CLIENT, VIP).syn())
        .pod(GREEN, tcp(BACKEND, CLIENT).rst())
        .drops(Counter::SpoofedSource)
        .row(tcp(BACKEND, CLIENT), REPLY, 1)
        .answers(tcp(BACKEND, CLIENT).syn_ack())
        .asks(tcp(CLIENT, VIP))
        .assures()
        .pod(GREEN, tcp(BACKEND, CLIENT).fin())
        .drops(Counter::SpoofedSource)
        .answers(tcp(BACKEND, CLIENT))
}

/// The agent has learnt that blue is where green was.
fn moved<F: Net>(state: &mut State<F>) {
    let row = state.shared.next_hops.get_mut(&1).expect("the case's way");
    row.ifindex = GREEN.ifindex;
}

fn backend_moves<F: Net>() -> Case<F> {
    case("moved: a backend that is at another port now", {
        web_by(BACKEND, BRIDGE.zone, BLUE.reached(NextHopKind::Bridge))
    })
    .on(on(BRIDGE, NextHopKind::Bridge))
    .pod(RED, udp(CLIENT, VIP))
    .opens(Continue, BACKEND)
    .change(moved)
    .pod(GREEN, udp(BACKEND, CLIENT))
    .reply(Continue, VIP, CLIENT)
    .pod(BLUE, udp(BACKEND, CLIENT))
    .drops(Counter::SpoofedSource)
}

fn client_moves<F: Net>() -> Case<F> {
    case("moved: a client that is at another port now keeps its backend and its answers", web())
        .begins(udp(CLIENT, VIP))
        .answers(udp(BACKEND, CLIENT))
        .pod(GREEN, udp(CLIENT, VIP))
        .request(Peer(BLUE.ifindex), BACKEND)
        .also(Counter::Moved)
        .row(udp(CLIENT, VIP), ANSWERED, 1)
        .pod(BLUE, udp(BACKEND, CLIENT))
        .reply(Peer(GREEN.ifindex), VIP, CLIENT)
        .pod(GREEN, udp(CLIENT, VIP))
        .request(Peer(BLUE.ifindex), BACKEND)
        .assures()
}

fn client_of_a_recreated_pod<F: Net>() -> Case<F> {
    assured("moved: a pod made anew with its address begins where the old one stood", web(), Tcp)
        .pod(GREEN, tcp(CLIENT, VIP).syn().link_from(GREEN.at))
        .request(Peer(BLUE.ifindex), BACKEND)
        .also(Counter::Moved)
        .pod(BLUE, tcp(BACKEND, CLIENT).syn_ack())
        .reply(Peer(GREEN.ifindex), VIP, CLIENT)
        .but(|packet| packet.link_to(GREEN.at))
}

/// It can only reach itself that way.
fn vip_as_source<F: Net>() -> Case<F> {
    case("spoofed: a VIP as source", web())
        .pod(RED, udp(VIP, "10.244.1.4:5353"))
        .passes(Counter::NotOurs)
        .begins(udp(VIP, VIP))
}

/// Blue has green's port, too.
fn answers_by_its_other_port<F: Net>() -> Case<F> {
    case("other port: a backend answers by any port of its pod", web().other_port(BLUE, GREEN.ifindex))
        .begins(tcp(CLIENT, VIP).syn())
        .pod(GREEN, tcp(BACKEND, CLIENT).syn_ack())
        .reply(Peer(RED.ifindex), VIP, CLIENT)
        .asks(tcp(CLIENT, VIP))
        .assures()
        .pod(GREEN, tcp(BACKEND, CLIENT))
        .reply(Peer(RED.ifindex), VIP, CLIENT)
        .pod(RED, tcp(BACKEND, CLIENT))
        .drops(Counter::SpoofedSource)
        // It is at a third one now.
        .change(|state| {
            let row = state.shared.next_hops.get_mut(&1).expect("the case's way");
            row.ifindex = RED.ifindex;
        })
        .pod(GREEN, tcp(BACKEND, CLIENT))
        .drops(Counter::SpoofedSource)
}

/// Red has green's port, too.
fn calls_by_its_other_port<F: Net>() -> Case<F> {
    case("other port: a client calls by any port of its pod", web().home(RED).other_port(RED, GREEN.ifindex))
        .pod(GREEN, udp(CLIENT, VIP))
        .opens(Peer(BLUE.ifindex), BACKEND)
        .pod(BLUE, udp(BACKEND, CLIENT))
        .reply(Peer(GREEN.ifindex), VIP, CLIENT)
        .pod(RED, udp(CLIENT, VIP))
        .request(Peer(BLUE.ifindex), BACKEND)
        .also(Counter::Moved)
        .pod(GREEN, udp(CLIENT, VIP))
        .request(Peer(BLUE.ifindex), BACKEND)
        .also(Counter::Moved)
        .pod(BLUE, udp(CLIENT, VIP))
        .drops(Counter::SpoofedSource)
}
