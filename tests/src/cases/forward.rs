//! How requests and replies travel on, by the kind of port and by hook.

use lb_common::{
    abi::{Counter, NextHopKind, NextHopRow, ZONE_OF_CLIENT, ZONE_UPLINK, flow_bits::ANSWERED},
    path::{
        Egress::{Continue, Device, Neighbour, Peer},
        Hook,
    },
    wire::Protocol,
};

use crate::{
    case::{Case, case},
    family::Net,
    packet::{Complaint, of, tcp, udp},
    state::{BLUE, BRIDGE, ORANGE, OTHER_BRIDGE, RED, UPLINK, host_process, on, outside},
    world::{BACKEND, CLIENT, OUTSIDER, VIP, web, web_by},
};

pub fn cases<F: Net>() -> Vec<Case<F>> {
    let mut cases = vec![
        tcp_connection(),
        udp_exchange(),
        no_checksum(),
        port_unchanged(),
        host(),
        uplink(),
        hop_limit(),
        hop_limit_from_uplink(),
        client_outside(),
        cross_bridge_peer(),
        cross_bridge_bridge(),
        stack(),
        at_the_bridge(),
        requests_at_egress(),
        reply_of_a_host_process_without_a_flow(),
    ];
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        cases.push(bridge(protocol));
        cases.push(neighbour(protocol));
    }
    cases
}

fn tcp_connection<F: Net>() -> Case<F> {
    case("peer: a TCP connection from SYN on", web())
        .begins(tcp(CLIENT, VIP).syn())
        .answers(tcp(BACKEND, CLIENT).syn_ack())
        .asks(tcp(CLIENT, VIP))
        .assures()
        .asks(tcp(CLIENT, VIP).says(b"an odd number of bytes!"))
        .answers(tcp(BACKEND, CLIENT).says(&[0xff; 1400]))
}

fn udp_exchange<F: Net>() -> Case<F> {
    case("peer: UDP, request and reply", web())
        .begins(udp(CLIENT, VIP))
        .answers(udp(BACKEND, CLIENT))
        .asks(udp(CLIENT, VIP).says(b""))
        .assures()
}

fn no_checksum<F: Net>() -> Case<F> {
    case("UDP without a checksum stays without", web())
        .begins(udp(CLIENT, VIP).no_checksum())
        .answers(udp(BACKEND, CLIENT).no_checksum())
}

fn port_unchanged<F: Net>() -> Case<F> {
    const SAME_PORT: &str = "10.244.1.3:80";
    case("a backend's port that is the frontend's", {
        web_by(SAME_PORT, BRIDGE.zone, BLUE.reached(NextHopKind::Peer))
    })
    .pod(RED, tcp(CLIENT, VIP).syn())
    .opens(Peer(BLUE.ifindex), SAME_PORT)
    .answers(tcp(SAME_PORT, CLIENT).syn_ack())
    .pod(RED, udp(CLIENT, VIP))
    .opens(Peer(BLUE.ifindex), SAME_PORT)
    .answers(udp(SAME_PORT, CLIENT))
}

fn bridge<F: Net>(protocol: Protocol) -> Case<F> {
    case(format!("bridge: by MAC, both ways, {protocol:?}"), {
        web_by(BACKEND, BRIDGE.zone, BLUE.reached(NextHopKind::Bridge))
    })
    .on(on(BRIDGE, NextHopKind::Bridge))
    .pod(RED, of(protocol, CLIENT, VIP))
    .opens(Continue, BACKEND)
    .pod(BLUE, of(protocol, BACKEND, CLIENT))
    .reply(Continue, VIP, CLIENT)
    .pod(RED, of(protocol, CLIENT, VIP))
    .request(Continue, BACKEND)
    .assures()
}

fn neighbour<F: Net>(protocol: Protocol) -> Case<F> {
    let next_hop = NextHopRow { mac: [0; 3], ifindex: 0, ..BLUE.reached(NextHopKind::Neighbour) };
    case(format!("neighbour: the bridge finds the MAC, {protocol:?}"), web_by(BACKEND, BRIDGE.zone, next_hop))
        .on(on(BRIDGE, NextHopKind::Bridge))
        .pod(RED, of(protocol, CLIENT, VIP))
        .opens(Neighbour(BRIDGE.ifindex), BACKEND)
        .pod(BLUE, of(protocol, BACKEND, CLIENT))
        .reply(Continue, VIP, CLIENT)
}

fn host<F: Net>() -> Case<F> {
    const API: &str = "10.244.1.1:6443";
    case("host: a process of the node, whose reply leaves over the bridge", {
        web_by(API, ZONE_OF_CLIENT, host_process())
    })
    .pod(RED, tcp(CLIENT, VIP).syn())
    .opens(Continue, API)
    .send(Hook::BridgeEgress, BRIDGE.ifindex, tcp(API, CLIENT).syn_ack().link_to(CLIENT))
    .reply(Continue, VIP, CLIENT)
    .pod(RED, tcp(CLIENT, VIP))
    .request(Continue, API)
    .assures()
}

fn reply_of_a_host_process_without_a_flow<F: Net>() -> Case<F> {
    const API: &str = "10.244.1.1:6443";
    case("host: a direct connection to a backend's port is left alone", {
        web_by(API, ZONE_OF_CLIENT, host_process())
    })
    .pod(RED, tcp(CLIENT, API).syn())
    .passes(Counter::Direct)
    .send(Hook::BridgeEgress, BRIDGE.ifindex, tcp(API, CLIENT).syn_ack().link_to(CLIENT))
    .passes(Counter::Direct)
}

const REMOTE: &str = "172.16.5.9:8080";

fn uplink<F: Net>() -> Case<F> {
    case("uplink: a backend off the bridge is one hop away", web_by(REMOTE, ZONE_UPLINK, outside()))
        .pod(RED, tcp(CLIENT, VIP).syn())
        .opens(Neighbour(UPLINK), REMOTE)
        .outside(tcp(REMOTE, CLIENT).syn_ack().hops(60))
        .reply(Peer(RED.ifindex), VIP, CLIENT)
        .pod(RED, udp(CLIENT, VIP).hops(2))
        .opens(Neighbour(UPLINK), REMOTE)
}

fn hop_limit<F: Net>() -> Case<F> {
    case("uplink: a packet at the end of its hops is returned", web_by(REMOTE, ZONE_UPLINK, outside()))
        .pod(RED, tcp(CLIENT, VIP))
        .opens(Neighbour(UPLINK), REMOTE)
        .pod(RED, tcp(CLIENT, VIP).hops(1))
        .returns(Counter::TtlExceeded, Complaint::TimeExceeded, VIP)
        .accounted()
        .pod(RED, tcp(CLIENT, VIP).hops(0))
        .returns(Counter::TtlExceeded, Complaint::TimeExceeded, VIP)
        .accounted()
}

fn hop_limit_from_uplink<F: Net>() -> Case<F> {
    case("uplink: from outside, hops end here too; between pods they do not count", web())
        .begins(udp(CLIENT, VIP).hops(1))
        .outside(udp(OUTSIDER, VIP))
        .opens(Peer(BLUE.ifindex), BACKEND)
        .outside(udp(OUTSIDER, VIP).hops(1))
        .returns(Counter::TtlExceeded, Complaint::TimeExceeded, VIP)
        .accounted()
}

fn client_outside<F: Net>() -> Case<F> {
    case("uplink: a client outside, a backend on the bridge", web())
        .outside(tcp(OUTSIDER, VIP).syn())
        .opens(Peer(BLUE.ifindex), BACKEND)
        .pod(BLUE, tcp(BACKEND, OUTSIDER).syn_ack())
        .reply(Neighbour(UPLINK), VIP, OUTSIDER)
}

const ELSEWHERE: &str = "10.244.2.2:8080";

fn cross_bridge_peer<F: Net>() -> Case<F> {
    case("peer: a backend on another bridge", {
        web_by(ELSEWHERE, OTHER_BRIDGE.zone, ORANGE.reached(NextHopKind::Peer))
    })
    .pod(RED, tcp(CLIENT, VIP).syn())
    .opens(Peer(ORANGE.ifindex), ELSEWHERE)
    .on(on(OTHER_BRIDGE, NextHopKind::Peer))
    .pod(ORANGE, tcp(ELSEWHERE, CLIENT).syn_ack())
    .reply(Peer(RED.ifindex), VIP, CLIENT)
}

fn cross_bridge_bridge<F: Net>() -> Case<F> {
    case("bridge: a backend on another bridge", {
        web_by(ELSEWHERE, OTHER_BRIDGE.zone, ORANGE.reached(NextHopKind::Bridge))
    })
    .on(on(BRIDGE, NextHopKind::Bridge))
    .pod(RED, tcp(CLIENT, VIP).syn())
    .opens(Device(OTHER_BRIDGE.ifindex), ELSEWHERE)
    .on(on(OTHER_BRIDGE, NextHopKind::Bridge))
    .pod(ORANGE, tcp(ELSEWHERE, CLIENT).syn_ack())
    .reply(Device(RED.ifindex), VIP, CLIENT)
}

fn stack<F: Net>() -> Case<F> {
    case("stack: requests go up by the bridge, replies are translated at the client's port", web())
        .on(on(BRIDGE, NextHopKind::Stack))
        .pod(RED, tcp(CLIENT, VIP).syn())
        .opens(Continue, BACKEND)
        .send(Hook::PortEgress, BLUE.ifindex, tcp(CLIENT, BACKEND).syn().link_from(BRIDGE.at))
        .passes(Counter::NotOurs)
        .pod(BLUE, tcp(BACKEND, CLIENT).syn_ack())
        .passes(Counter::LeftToStack)
        .row(tcp(CLIENT, VIP), 0, 1)
        .send(
            Hook::PortEgress,
            RED.ifindex,
            tcp(BACKEND, CLIENT).syn_ack().link_from(BRIDGE.at).link_to(CLIENT),
        )
        .reply(Continue, VIP, CLIENT)
        .row(tcp(CLIENT, VIP), ANSWERED, 1)
}

fn at_the_bridge<F: Net>() -> Case<F> {
    case("bridge device: what a port without a program left to the host", {
        web_by(BACKEND, BRIDGE.zone, BLUE.reached(NextHopKind::Bridge))
    })
    .send(Hook::BridgeIngress, BRIDGE.ifindex, tcp(CLIENT, VIP).syn())
    .opens(Device(BRIDGE.ifindex), BACKEND)
    .pod(BLUE, tcp(BACKEND, CLIENT).syn_ack())
    .reply(Continue, VIP, CLIENT)
    .send(Hook::BridgeIngress, BRIDGE.ifindex, tcp(BACKEND, CLIENT))
    .reply(Device(BRIDGE.ifindex), VIP, CLIENT)
}

fn requests_at_egress<F: Net>() -> Case<F> {
    case("egress: only replies are translated there", web())
        .begins(tcp(CLIENT, VIP).syn())
        .send(Hook::BridgeEgress, BRIDGE.ifindex, tcp(CLIENT, VIP))
        .passes(Counter::WrongHook)
        .send(Hook::BridgeEgress, BRIDGE.ifindex, tcp("10.244.1.1:7777", VIP).syn())
        .passes(Counter::WrongHook)
        .send(Hook::UplinkEgress, UPLINK, udp(CLIENT, VIP))
        .passes(Counter::WrongHook)
        .on(on(BRIDGE, NextHopKind::Stack))
        .send(Hook::PortEgress, RED.ifindex, tcp(CLIENT, VIP))
        .passes(Counter::WrongHook)
}
