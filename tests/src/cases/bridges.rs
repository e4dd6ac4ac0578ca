//! Several bridges: their programs find the zone by the device. That they do all else as those of one is checked with
//! every packet of every case.

use lb_common::{
    abi::{Counter, NextHopKind, flow_bits::ANSWERED},
    path::{Egress::Peer, Hook},
};

use crate::{
    case::{Case, case},
    family::Net,
    packet::{tcp, udp, who_has},
    state::{BLUE, BRIDGE, ORANGE, OTHER_BRIDGE, RED, State, among_several, on},
    world::{BACKEND, CLIENT, VIP, web},
};

pub fn cases<F: Net>() -> Vec<Case<F>> {
    vec![moves(), has_no_row(), answers_by_another_bridge()]
}

/// Whichever bridge's zone the constant would be: it is none.
fn several<F: Net>(name: &str, state: State<F>) -> Case<F> {
    case(name, state).on(among_several(on(BRIDGE, NextHopKind::Peer)))
}

fn moves<F: Net>() -> Case<F> {
    const LATER: &str = "10.244.1.2:40002";
    let (here, there) = (on(BRIDGE, NextHopKind::Peer), on(OTHER_BRIDGE, NextHopKind::Peer));
    several("several bridges: a port that moves is in the other one's zone", web())
        .begins(tcp(CLIENT, VIP).syn())
        .change(|state| {
            state.shared.bridge_ports.insert(RED.ifindex, OTHER_BRIDGE.zone.into());
        })
        .pod(RED, tcp(LATER, VIP).syn())
        .opens(Peer(BLUE.ifindex), BACKEND)
        .pod(BLUE, tcp(BACKEND, LATER).syn_ack())
        .reply(Peer(RED.ifindex), VIP, LATER)
        .on(here)
        .row(tcp(CLIENT, VIP), 0, 1)
        .no_row(tcp(LATER, VIP))
        .on(there)
        .no_row(tcp(CLIENT, VIP))
        .row(tcp(LATER, VIP), ANSWERED, 1)
}

fn has_no_row<F: Net>() -> Case<F> {
    several(
        "several bridges: what a port without a row sends is left alone",
        web().answer("10.244.1.200:0", BRIDGE),
    )
    .begins(udp(CLIENT, VIP))
    .answers(udp(BACKEND, CLIENT))
    .change(|state| {
        state.shared.bridge_ports.remove(&RED.ifindex);
    })
    .pod(RED, udp(CLIENT, VIP))
    .passes(Counter::NotOurs)
    .pod(RED, udp("10.244.1.2:40002", VIP))
    .passes(Counter::NotOurs)
    .pod(RED, who_has("10.244.1.200:0", RED.at))
    .passes(Counter::NotOurs)
    .send(Hook::PortEgress, RED.ifindex, udp(BACKEND, CLIENT))
    .passes(Counter::NotOurs)
    // Others are served, and they reach it.
    .pod(BLUE, udp(BACKEND, CLIENT))
    .reply(Peer(RED.ifindex), VIP, CLIENT)
}

/// Blue is on both: it has orange's port, too.
fn answers_by_another_bridge<F: Net>() -> Case<F> {
    several("several bridges: a pod on two answers by either", web().other_port(BLUE, ORANGE.ifindex))
        .begins(tcp(CLIENT, VIP).syn())
        .pod(ORANGE, tcp(BACKEND, CLIENT).syn_ack())
        .reply(Peer(RED.ifindex), VIP, CLIENT)
        .asks(tcp(CLIENT, VIP))
        .assures()
        .pod(ORANGE, tcp(BACKEND, CLIENT))
        .reply(Peer(RED.ifindex), VIP, CLIENT)
        .answers(tcp(BACKEND, CLIENT))
        // Of no flow.
        .pod(ORANGE, tcp(BACKEND, "10.244.1.7:40000"))
        .passes(Counter::NoFrontend)
        // Another pod has that address there.
        .change(|state| state.shared.homes.clear())
        .pod(ORANGE, tcp(BACKEND, CLIENT))
        .passes(Counter::NoFrontend)
}
