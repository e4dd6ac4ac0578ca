//! One client port to two services that share a backend: at that backend it is one connection.

use lb_common::{
    abi::{Counter, Lifetimes, NextHopKind},
    path::{Egress::Peer, slot_hash},
    wire::Protocol::{self, Sctp, Tcp, Udp},
};

use crate::{
    case::{Case, case},
    family::Net,
    packet::{Wire, of, sctp, tcp},
    state::{BLUE, BRIDGE, GREEN, RED, State, on},
    world::{BACKEND, CLIENT, OTHER_VIP, SPARE, VIP, web},
};

pub fn cases<F: Net>() -> Vec<Case<F>> {
    let mut cases = vec![closing(), own_row_left(), sctp_keeps_its_port()];
    for protocol in [Tcp, Udp] {
        cases.extend([
            another_backend(protocol),
            another_port(protocol),
            another_port_rebuilt(protocol),
            expired(protocol),
        ]);
    }
    cases
}

/// The slot that the first try for a packet looks at.
pub fn first_slot<F: Net>(packet: &Wire, len: usize) -> usize {
    let hash = slot_hash(&packet.key::<F>(BRIDGE.zone), on(BRIDGE, NextHopKind::Peer).hash_seed);
    ((hash as u64 * len as u64) >> 32) as usize
}

/// Two services with the backend blue; the second has green besides, where the first choice for the
/// client of these cases is blue.
fn shared<F: Net>(protocol: Protocol) -> State<F> {
    let mut slots = [3; 16];
    slots[first_slot::<F>(&of(protocol, CLIENT, OTHER_VIP), slots.len())] = 2;
    only_blue(&slots)
}

pub fn only_blue<F: Net>(slots: &[u32]) -> State<F> {
    web()
        .service(2, &[(Tcp, OTHER_VIP), (Udp, OTHER_VIP)], slots)
        .backend(2, 2, BACKEND, BRIDGE.zone, BLUE.reached(NextHopKind::Peer))
        .backend(3, 2, SPARE, BRIDGE.zone, GREEN.reached(NextHopKind::Peer))
}

fn another_backend<F: Net>(protocol: Protocol) -> Case<F> {
    case(format!("clash: the second flow gets another backend, {protocol:?}"), shared(protocol))
        .begins(of(protocol, CLIENT, VIP))
        .pod(RED, of(protocol, CLIENT, OTHER_VIP))
        .opens(Peer(GREEN.ifindex), SPARE)
        .answers(of(protocol, BACKEND, CLIENT))
        .pod(GREEN, of(protocol, SPARE, CLIENT))
        .reply(Peer(RED.ifindex), OTHER_VIP, CLIENT)
}

/// The client's address and its port on the backend's side where its own is another flow's: the third try's.
pub fn other_port<F: Net>(protocol: Protocol, vip: &str) -> String {
    let settings = on(BRIDGE, NextHopKind::Peer);
    let hash = slot_hash(&of(protocol, CLIENT, vip).key::<F>(BRIDGE.zone), settings.hash_seed);
    let mask = (1 + hash.wrapping_add(2) % 31) as u16 * 33;
    format!("10.244.1.2:{}", 40_000 ^ mask)
}

fn another_port<F: Net>(protocol: Protocol) -> Case<F> {
    let other = &*other_port::<F>(protocol, OTHER_VIP);
    case(format!("clash: another port where there is no other backend, {protocol:?}"), only_blue(&[2]))
        .begins(of(protocol, CLIENT, VIP))
        .begins(of(protocol, CLIENT, OTHER_VIP))
        .shown(other)
        .answers(of(protocol, BACKEND, CLIENT))
        .pod(BLUE, of(protocol, BACKEND, other))
        .reply(Peer(RED.ifindex), OTHER_VIP, CLIENT)
        .asks(of(protocol, CLIENT, OTHER_VIP))
        .assures()
        .shown(other)
}

fn another_port_rebuilt<F: Net>(protocol: Protocol) -> Case<F> {
    let other = &*other_port::<F>(protocol, OTHER_VIP);
    another_port(protocol)
        .named(format!("clash: another port survives the loss of either row, {protocol:?}"))
        .wait(1)
        .loses(of(protocol, CLIENT, OTHER_VIP))
        .pod(BLUE, of(protocol, BACKEND, other))
        .reply(Peer(RED.ifindex), OTHER_VIP, CLIENT)
        .also(Counter::Rebuilt)
        .wait(1)
        .loses(of(protocol, BACKEND, other))
        .asks(of(protocol, CLIENT, OTHER_VIP))
        .shown(other)
        .also(Counter::Rebuilt)
        .pod(BLUE, of(protocol, BACKEND, other))
        .reply(Peer(RED.ifindex), OTHER_VIP, CLIENT)
}

fn sctp_keeps_its_port<F: Net>() -> Case<F> {
    let at = "10.244.1.3:80";
    let state = State::default()
        .service(1, &[(Sctp, VIP)], &[1])
        .service(2, &[(Sctp, OTHER_VIP)], &[2])
        .backend(1, 1, at, BRIDGE.zone, BLUE.reached(NextHopKind::Peer))
        .backend(2, 2, at, BRIDGE.zone, BLUE.reached(NextHopKind::Peer));
    case("clash: SCTP's checksum covers ports: dropped where there is no other backend", state)
        .pod(RED, sctp(CLIENT, VIP))
        .opens(Peer(BLUE.ifindex), at)
        .pod(RED, sctp(CLIENT, OTHER_VIP))
        .drops(Counter::Clash)
        .no_row(sctp(CLIENT, OTHER_VIP))
}

fn closing<F: Net>() -> Case<F> {
    case("clash: a flow that is over gives way", only_blue(&[2]))
        .begins(tcp(CLIENT, VIP).syn())
        .answers(tcp(BACKEND, CLIENT).rst())
        .begins(tcp(CLIENT, OTHER_VIP).syn())
        .pod(BLUE, tcp(BACKEND, CLIENT).syn_ack())
        .reply(Peer(RED.ifindex), OTHER_VIP, CLIENT)
}

fn expired<F: Net>(protocol: Protocol) -> Case<F> {
    let life = Lifetimes::SECONDS;
    let life = if protocol == Tcp { life.tcp_unanswered } else { life.udp_unanswered };
    case(format!("clash: an expired flow gives way, {protocol:?}"), only_blue(&[2]))
        .begins(of(protocol, CLIENT, VIP))
        .wait(life + 1)
        .begins(of(protocol, CLIENT, OTHER_VIP))
        .pod(BLUE, of(protocol, BACKEND, CLIENT))
        .reply(Peer(RED.ifindex), OTHER_VIP, CLIENT)
}

fn own_row_left<F: Net>() -> Case<F> {
    case("clash: a flow's own reply row is no stranger", web())
        .begins(tcp(CLIENT, VIP).syn())
        .loses(tcp(CLIENT, VIP))
        .begins(tcp(CLIENT, VIP).syn())
}
