//! A switch that has not learned who is where sends a frame to all: it is for one of them.

use lb_common::{
    abi::{Counter, ZONE_UPLINK},
    path::{Egress::Peer, Hook},
    wire::Protocol::{Tcp, Udp},
};

use super::snat;
use crate::{
    case::{Case, case},
    family::Net,
    packet::{Wire, echo, first, is_at, of, tcp, udp, who_has},
    state::{BLUE, BRIDGE, Bridge, RED, State, UPLINK},
    world::{BACKEND, CLIENT, FAR, OTHER_NODE, REMOTE, SHOWN, VIP, allocating, on_node, remote, web},
};

pub fn cases<F: Net>() -> Vec<Case<F>> {
    let mut cases = vec![known(), answered(), asked(), at_a_port()];
    cases.extend([Tcp, Udp].map(|protocol| {
        case(
            format!("flooded: what is for another node begins nothing here, {protocol:?}"),
            here(web()).owned(VIP),
        )
        .on(on_node::<F>())
        .outside(for_another(first(protocol, FAR, VIP)))
        .no_row(of(protocol, FAR, VIP))
        .outside(first(protocol, FAR, VIP))
        .opens(Peer(BLUE.ifindex), BACKEND)
        .outside(for_another(of(protocol, FAR, VIP)))
        // Nothing is refused in its name, either.
        .outside(for_another(of(protocol, FAR, "10.96.0.10:81")))
    }));
    cases
}

/// With the uplink's MAC, by which XDP knows.
fn here<F: Net>(state: State<F>) -> State<F> {
    state.uplink(UPLINK, BRIDGE.at)
}

fn for_another(packet: Wire) -> Wire {
    packet.link_to(OTHER_NODE)
}

fn known<F: Net>() -> Case<F> {
    let case =
        case("flooded: a reply to a port of this node, for another", here(remote())).on(allocating::<F>());
    let case = snat::opened(case, udp(FAR, VIP), 0).outside(for_another(udp(REMOTE, SHOWN)));
    snat::answers(case, udp(REMOTE, SHOWN), FAR)
}

fn answered<F: Net>() -> Case<F> {
    let request = echo("192.168.1.100:0", "10.96.0.10:0");
    case("flooded: an echo request for another is not answered", here(web()).owned(VIP))
        .outside(for_another(request.clone()))
        .outside(request)
        .echoes()
}

/// Who has asked one neighbour.
fn asked<F: Net>() -> Case<F> {
    const ANNOUNCED: &str = "192.168.1.200:0";
    let uplink = Bridge { zone: ZONE_UPLINK, ..BRIDGE };
    case("flooded: a question that was put to another", here(web()).answer(ANNOUNCED, uplink))
        .outside(for_another(who_has(ANNOUNCED, "192.168.1.100:0")))
        .outside(who_has(ANNOUNCED, "192.168.1.100:0"))
        .answered(is_at(ANNOUNCED, BRIDGE.at, "192.168.1.100:0"))
}

/// There all is for another device than the port.
fn at_a_port<F: Net>() -> Case<F> {
    case("flooded: what pods send is for others than their port", web())
        .pod(RED, tcp(CLIENT, VIP).syn().link_to(OTHER_NODE))
        .opens(Peer(BLUE.ifindex), BACKEND)
        .send(Hook::UplinkEgress, UPLINK, udp(CLIENT, FAR).link_to(OTHER_NODE))
        .passes(Counter::NotOurs)
}
