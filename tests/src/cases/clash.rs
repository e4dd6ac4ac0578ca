//! One client port to two services that share a backend: at that backend it is one connection.

use lb_common::{
    abi::{Counter, Lifetimes, ReachKind},
    path::{Way::Peer, slot_hash},
    wire::Protocol::{self, Sctp, Tcp, Udp},
};

use super::{BACKEND, CLIENT, VIP, web};
use crate::{
    case::{Case, case},
    family::Net,
    packet::{Wire, of, sctp, tcp},
    state::{BLUE, BRIDGE, GREEN, RED, State, on},
};

/// The frontend of service 2.
pub const VIP2: &str = "10.96.0.11:80";
/// Its backend 3, in the pod green; its backend 2 is service 1's, in the pod blue.
const SPARE: &str = "10.244.1.4:8080";

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
    let hash = slot_hash(&packet.key::<F>(BRIDGE.zone), on(BRIDGE, ReachKind::Peer).hash_seed);
    ((hash as u64 * len as u64) >> 32) as usize
}

/// Two services with the backend blue; the second has green besides, where the first choice for the
/// client of these cases is blue.
fn shared<F: Net>(protocol: Protocol) -> State<F> {
    let mut slots = [3; 16];
    slots[first_slot::<F>(&of(protocol, CLIENT, VIP2), slots.len())] = 2;
    only_blue(&slots)
}

pub fn only_blue<F: Net>(slots: &[u32]) -> State<F> {
    web()
        .service(2, &[(Tcp, VIP2), (Udp, VIP2)], slots)
        .backend(2, 2, BACKEND, BRIDGE.zone, BLUE.reached(ReachKind::Peer))
        .backend(3, 2, SPARE, BRIDGE.zone, GREEN.reached(ReachKind::Peer))
}

fn another_backend<F: Net>(protocol: Protocol) -> Case<F> {
    case(format!("clash: the second flow gets another backend, {protocol:?}"), shared(protocol))
        .pod(RED, of(protocol, CLIENT, VIP))
        .opens(Peer(BLUE.ifindex), BACKEND)
        .pod(RED, of(protocol, CLIENT, VIP2))
        .opens(Peer(GREEN.ifindex), SPARE)
        .pod(BLUE, of(protocol, BACKEND, CLIENT))
        .reply(Peer(RED.ifindex), VIP, CLIENT)
        .pod(GREEN, of(protocol, SPARE, CLIENT))
        .reply(Peer(RED.ifindex), VIP2, CLIENT)
}

/// The client's address and its port on the backend's side where its own is another flow's: the third try's.
pub fn other_port<F: Net>(protocol: Protocol, vip: &str) -> String {
    let settings = on(BRIDGE, ReachKind::Peer);
    let hash = slot_hash(&of(protocol, CLIENT, vip).key::<F>(BRIDGE.zone), settings.hash_seed);
    let mask = (1 + hash.wrapping_add(2) % 31) as u16 * 33;
    format!("10.244.1.2:{}", 40_000 ^ mask)
}

fn another_port<F: Net>(protocol: Protocol) -> Case<F> {
    let other = &*other_port::<F>(protocol, VIP2);
    case(format!("clash: another port where there is no other backend, {protocol:?}"), only_blue(&[2]))
        .pod(RED, of(protocol, CLIENT, VIP))
        .opens(Peer(BLUE.ifindex), BACKEND)
        .pod(RED, of(protocol, CLIENT, VIP2))
        .opens(Peer(BLUE.ifindex), BACKEND)
        .but(|packet| packet.source(other))
        .pod(BLUE, of(protocol, BACKEND, CLIENT))
        .reply(Peer(RED.ifindex), VIP, CLIENT)
        .pod(BLUE, of(protocol, BACKEND, other))
        .reply(Peer(RED.ifindex), VIP2, CLIENT)
        .pod(RED, of(protocol, CLIENT, VIP2))
        .request(Peer(BLUE.ifindex), BACKEND)
        .proves()
        .but(|packet| packet.source(other))
}

fn another_port_rebuilt<F: Net>(protocol: Protocol) -> Case<F> {
    let other = &*other_port::<F>(protocol, VIP2);
    another_port(protocol)
        .named(format!("clash: another port survives the loss of either row, {protocol:?}"))
        .wait(1)
        .loses(of(protocol, CLIENT, VIP2))
        .pod(BLUE, of(protocol, BACKEND, other))
        .reply(Peer(RED.ifindex), VIP2, CLIENT)
        .also(Counter::Rebuilt)
        .wait(1)
        .loses(of(protocol, BACKEND, other))
        .pod(RED, of(protocol, CLIENT, VIP2))
        .request(Peer(BLUE.ifindex), BACKEND)
        .but(|packet| packet.source(other))
        .also(Counter::Rebuilt)
        .pod(BLUE, of(protocol, BACKEND, other))
        .reply(Peer(RED.ifindex), VIP2, CLIENT)
}

fn sctp_keeps_its_port<F: Net>() -> Case<F> {
    let at = "10.244.1.3:80";
    let state = State::default()
        .service(1, &[(Sctp, VIP)], &[1])
        .service(2, &[(Sctp, VIP2)], &[2])
        .backend(1, 1, at, BRIDGE.zone, BLUE.reached(ReachKind::Peer))
        .backend(2, 2, at, BRIDGE.zone, BLUE.reached(ReachKind::Peer));
    case("clash: SCTP's checksum covers ports: dropped where there is no other backend", state)
        .pod(RED, sctp(CLIENT, VIP))
        .opens(Peer(BLUE.ifindex), at)
        .pod(RED, sctp(CLIENT, VIP2))
        .drops(Counter::Clash)
        .no_row(sctp(CLIENT, VIP2))
}

fn closing<F: Net>() -> Case<F> {
    case("clash: a flow that is over gives way", only_blue(&[2]))
        .pod(RED, tcp(CLIENT, VIP).syn())
        .opens(Peer(BLUE.ifindex), BACKEND)
        .pod(BLUE, tcp(BACKEND, CLIENT).rst())
        .reply(Peer(RED.ifindex), VIP, CLIENT)
        .pod(RED, tcp(CLIENT, VIP2).syn())
        .opens(Peer(BLUE.ifindex), BACKEND)
        .pod(BLUE, tcp(BACKEND, CLIENT).syn_ack())
        .reply(Peer(RED.ifindex), VIP2, CLIENT)
}

fn expired<F: Net>(protocol: Protocol) -> Case<F> {
    let life = Lifetimes::SECONDS;
    let life = if protocol == Tcp { life.tcp_unanswered } else { life.udp_unanswered };
    case(format!("clash: an expired flow gives way, {protocol:?}"), only_blue(&[2]))
        .pod(RED, of(protocol, CLIENT, VIP))
        .opens(Peer(BLUE.ifindex), BACKEND)
        .wait(life + 1)
        .pod(RED, of(protocol, CLIENT, VIP2))
        .opens(Peer(BLUE.ifindex), BACKEND)
        .pod(BLUE, of(protocol, BACKEND, CLIENT))
        .reply(Peer(RED.ifindex), VIP2, CLIENT)
}

fn own_row_left<F: Net>() -> Case<F> {
    case("clash: a flow's own reply row is no stranger", web())
        .pod(RED, tcp(CLIENT, VIP).syn())
        .opens(Peer(BLUE.ifindex), BACKEND)
        .loses(tcp(CLIENT, VIP))
        .pod(RED, tcp(CLIENT, VIP).syn())
        .opens(Peer(BLUE.ifindex), BACKEND)
}
