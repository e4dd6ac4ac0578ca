//! Packets that are not ours.

use lb_common::{
    abi::{Counter, NextHopKind},
    path::Hook,
};

use crate::{
    case::{Case, case},
    family::Net,
    packet::{other, tcp, udp},
    state::{BLUE, BRIDGE, ORANGE, OTHER_BRIDGE, RED, on},
    world::{BACKEND, CLIENT, VIP, web},
};

pub fn cases<F: Net>() -> Vec<Case<F>> {
    vec![neighbours(), protocols(), not_ip(), zones(), every_hook()]
}

fn neighbours<F: Net>() -> Case<F> {
    case("pod to pod traffic is left alone", web())
        .pod(RED, tcp(CLIENT, "10.244.1.4:8080").syn())
        .passes(Counter::NotOurs)
        .pod(RED, udp(CLIENT, "10.96.0.12:80"))
        .passes(Counter::NotOurs)
        // To a backend's own address, and what it answers.
        .pod(RED, tcp(CLIENT, BACKEND).syn())
        .passes(Counter::Direct)
        .pod(BLUE, tcp(BACKEND, CLIENT).syn_ack())
        .passes(Counter::Direct)
        .pod(RED, tcp(CLIENT, BACKEND))
        .passes(Counter::Direct)
        .no_row(tcp(CLIENT, BACKEND))
}

fn protocols<F: Net>() -> Case<F> {
    let numbers = [0xfe, 1, 2, 4, 41, 47, 58, 89, 136];
    let case = case("other protocols to a VIP are left alone", web());
    numbers
        .into_iter()
        .fold(case, |case, number| case.pod(RED, other(number, CLIENT, VIP)).passes(Counter::Protocol))
}

fn not_ip<F: Net>() -> Case<F> {
    // ARP, a length (IEEE 802.3), LLDP, and a tag in the bytes.
    case("neither IPv4 nor IPv6: left alone, and but for ARP not even counted", web())
        .pod(RED, tcp(CLIENT, VIP).frame_bytes(12, &[0x08, 0x06]))
        .passes(Counter::NotOurs)
        .pod(RED, tcp(CLIENT, VIP).frame_bytes(12, &[0x00, 0x40]))
        .pod(RED, tcp(CLIENT, VIP).frame_bytes(12, &[0x88, 0xcc]))
        .pod(RED, tcp(CLIENT, VIP).tagged(7))
}

fn zones<F: Net>() -> Case<F> {
    let other = on(OTHER_BRIDGE, NextHopKind::Peer);
    case("the same addresses on another bridge are another flow", web())
        .begins(tcp(CLIENT, VIP).syn())
        .on(other)
        .no_row(tcp(CLIENT, VIP))
        .pod(ORANGE, tcp(BACKEND, CLIENT).syn_ack())
        .passes(Counter::NoFrontend)
        .on(on(BRIDGE, NextHopKind::Peer))
        .answers(tcp(BACKEND, CLIENT).syn_ack())
}

fn every_hook<F: Net>() -> Case<F> {
    Hook::TC.into_iter().fold(case("nothing of ours is touched at any hook", web()), |case, hook| {
        case.send(hook, RED.ifindex, tcp(CLIENT, "10.244.1.4:22"))
            .passes(Counter::NotOurs)
            .send(hook, RED.ifindex, other(1, CLIENT, VIP))
            .passes(Counter::Protocol)
    })
}
