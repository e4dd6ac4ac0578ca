//! A pod that is chosen for its own call.

use lb_common::{
    abi::{NextHopKind, flow_bits::HAIRPIN},
    path::Egress::{self, Device, Neighbour, Peer},
    wire::Protocol,
};

use crate::{
    case::{Case, case},
    family::Net,
    packet::of,
    state::{BRIDGE, RED, on},
    world::{CLIENT, VIP, web_by},
};

/// Red's own server.
const SELF: &str = "10.244.1.2:8080";
/// Red's client, as its server sees it: at the frontend's address.
const SEEN: &str = "10.96.0.10:40000";

pub fn cases<F: Net>() -> Vec<Case<F>> {
    let modes = [
        // The way back to the client, the way to the backend, and what becomes of both.
        (NextHopKind::Peer, NextHopKind::Peer, Peer(RED.ifindex), Peer(RED.ifindex)),
        (NextHopKind::Bridge, NextHopKind::Bridge, Device(RED.ifindex), Device(RED.ifindex)),
        (NextHopKind::Stack, NextHopKind::Peer, Peer(RED.ifindex), Device(RED.ifindex)),
        (NextHopKind::Stack, NextHopKind::Bridge, Device(RED.ifindex), Device(RED.ifindex)),
        (NextHopKind::Bridge, NextHopKind::Neighbour, Neighbour(BRIDGE.ifindex), Device(RED.ifindex)),
    ];
    let both = [Protocol::Tcp, Protocol::Udp];
    modes.iter().flat_map(|mode| both.map(|protocol| hairpin(*mode, protocol))).collect()
}

fn hairpin<F: Net>(
    (return_path, kind, to, back): (NextHopKind, NextHopKind, Egress, Egress),
    protocol: Protocol,
) -> Case<F> {
    let link = if kind == NextHopKind::Neighbour { BRIDGE.at } else { RED.at };
    case(format!("hairpin: client by {return_path:?}, backend by {kind:?}, {protocol:?}"), {
        web_by(SELF, BRIDGE.zone, RED.reached(kind))
    })
    .on(on(BRIDGE, return_path))
    .pod(RED, of(protocol, CLIENT, VIP))
    .opens(to, SELF)
    .but(|packet| packet.source(SEEN).link_to(link))
    .row(of(protocol, CLIENT, VIP), HAIRPIN, 1)
    .pod(RED, of(protocol, SELF, SEEN))
    .reply(back, VIP, CLIENT)
    .pod(RED, of(protocol, CLIENT, VIP))
    .request(to, SELF)
    .assures()
    .but(|packet| packet.source(SEEN).link_to(link))
}
