//! A pod that is chosen for its own call.

use lb_common::{
    abi::{ReachKind, flow_bits::HAIRPIN},
    path::Way::{self, Egress, Neighbour, Peer},
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
        (ReachKind::Peer, ReachKind::Peer, Peer(RED.ifindex), Peer(RED.ifindex)),
        (ReachKind::Bridge, ReachKind::Bridge, Egress(RED.ifindex), Egress(RED.ifindex)),
        (ReachKind::Stack, ReachKind::Peer, Peer(RED.ifindex), Egress(RED.ifindex)),
        (ReachKind::Stack, ReachKind::Bridge, Egress(RED.ifindex), Egress(RED.ifindex)),
        (ReachKind::Bridge, ReachKind::Neighbour, Neighbour(BRIDGE.ifindex), Egress(RED.ifindex)),
    ];
    let both = [Protocol::Tcp, Protocol::Udp];
    modes.iter().flat_map(|mode| both.map(|protocol| hairpin(*mode, protocol))).collect()
}

fn hairpin<F: Net>(
    (way_back, kind, to, back): (ReachKind, ReachKind, Way, Way),
    protocol: Protocol,
) -> Case<F> {
    let link = if kind == ReachKind::Neighbour { BRIDGE.at } else { RED.at };
    case(format!("hairpin: client by {way_back:?}, backend by {kind:?}, {protocol:?}"), {
        web_by(SELF, BRIDGE.zone, RED.reached(kind))
    })
    .on(on(BRIDGE, way_back))
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
