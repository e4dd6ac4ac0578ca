//! One VLAN tag: it stays, and the bridge delivers.

use lb_common::{
    abi::{Counter, NextHopKind},
    path::Egress::{Continue, Device},
};

use crate::{
    case::{Case, case},
    family::Net,
    packet::{tcp, udp},
    state::{BLUE, BRIDGE, ORANGE, OTHER_BRIDGE, RED},
    world::{BACKEND, CLIENT, VIP, web, web_by},
};

pub fn cases<F: Net>() -> Vec<Case<F>> {
    vec![client(), both(), backend(), fragments(), elsewhere(), at_uplinks()]
}

fn client<F: Net>() -> Case<F> {
    case("tagged: the client", web())
        .pod(RED, tcp(CLIENT, VIP).syn())
        .tagged()
        .opens(Continue, BACKEND)
        .pod(BLUE, tcp(BACKEND, CLIENT).syn_ack())
        .reply(Continue, VIP, CLIENT)
        .pod(RED, tcp(CLIENT, VIP))
        .tagged()
        .request(Continue, BACKEND)
        .also(Counter::Assured)
        .pod(RED, tcp(CLIENT, VIP))
        .tagged()
        .request(Continue, BACKEND)
        .pod(BLUE, tcp(BACKEND, CLIENT))
        .reply(Continue, VIP, CLIENT)
}

fn both<F: Net>() -> Case<F> {
    case("tagged: client and backend at one port", {
        web_by(BACKEND, BRIDGE.zone, RED.reached(NextHopKind::Peer))
    })
    .pod(RED, udp(CLIENT, VIP))
    .tagged()
    .opens(Device(RED.ifindex), BACKEND)
    .but(|packet| packet.link_to(RED.at))
    .pod(RED, udp(BACKEND, CLIENT))
    .tagged()
    .reply(Device(RED.ifindex), VIP, CLIENT)
}

fn backend<F: Net>() -> Case<F> {
    case("tagged: the backend", web_by(BACKEND, BRIDGE.zone, BLUE.reached(NextHopKind::Bridge)))
        .pod(RED, udp(CLIENT, VIP))
        .opens(Continue, BACKEND)
        .pod(BLUE, udp(BACKEND, CLIENT))
        .tagged()
        .reply(Continue, VIP, CLIENT)
}

fn fragments<F: Net>() -> Case<F> {
    let whole = udp(CLIENT, VIP).says(&[0xa5; 3000]);
    case("tagged: fragments", web())
        .pod(RED, whole.clone().piece(7, 0, 1480))
        .tagged()
        .opens(Continue, BACKEND)
        .pod(RED, whole.piece(7, 1480, 2960))
        .tagged()
        .request(Continue, BACKEND)
}

fn elsewhere<F: Net>() -> Case<F> {
    case("tagged: a backend on another bridge", {
        web_by("10.244.2.2:8080", OTHER_BRIDGE.zone, ORANGE.reached(NextHopKind::Bridge))
    })
    .pod(RED, udp(CLIENT, VIP))
    .tagged()
    .drops(Counter::Unreachable)
    .also(Counter::NewFlow)
}

fn at_uplinks<F: Net>() -> Case<F> {
    case("tagged: left alone at uplinks, and elsewhere what is not ours", web())
        .pod(RED, udp(CLIENT, "10.244.1.4:8080"))
        .tagged()
        .passes(Counter::NotOurs)
        .outside(udp("192.0.2.7:5555", VIP))
        .tagged()
}
