//! Clients outside whose backend is on another node: they are SHOWN to it as the node.

use lb_common::{
    abi::{
        Counter, FrontendKind, Lifetimes, NextHopKind, Settings, ZONE_UPLINK,
        flow_bits::{ANSWERED, ASSURED, FIN_BACKEND, FIN_CLIENT, REPLY},
    },
    path::Egress::{self},
    wire::Protocol::{self, Sctp, Tcp, Udp},
};

use crate::{
    case::{Case, case},
    family::Net,
    packet::{Wire, first, of, sctp, tcp, udp},
    state::{BLUE, BRIDGE, State, on_uplink, outside},
    world::{BACKEND, FAR, FAR2, FIRST, OUT, PORTS, REMOTE, SHOWN, VIP, allocating, remote, web_by},
};

pub fn cases<F: Net>() -> Vec<Case<F>> {
    let mut cases = vec![
        node_port(),
        fin(),
        off(),
        no_address(),
        local_backend(),
        sctp_keeps_its_port(),
        used_up(),
        unassured_is_taken(),
        expired_is_taken(),
        same_port_again(),
        other_hooks(),
    ];
    for protocol in [Tcp, Udp] {
        cases.extend([exchange(protocol), request_row_lost(protocol), reply_row_lost(protocol)]);
    }
    cases
}

/// What a client is to its backend if it has the port whose turn that is.
fn seen(turn: u32) -> String {
    format!("192.168.1.11:{}", FIRST + turn % PORTS)
}

/// As the client of this turn.
pub fn opened<F: Net>(case: Case<F>, packet: Wire, turn: u32) -> Case<F> {
    case.outside(packet).opens(OUT, REMOTE).shown(&seen(turn))
}

pub fn requested<F: Net>(case: Case<F>, packet: Wire) -> Case<F> {
    case.outside(packet).request(OUT, REMOTE).shown(SHOWN)
}

pub fn answers<F: Net>(case: Case<F>, packet: Wire, client: &str) -> Case<F> {
    case.outside(packet).reply(OUT, VIP, client)
}

fn answered<F: Net>(name: String, protocol: Protocol) -> Case<F> {
    let case = opened(case(name, remote()).on(allocating::<F>()), first(protocol, FAR, VIP), 0);
    answers(case, of(protocol, REMOTE, SHOWN), FAR)
}

fn exchange<F: Net>(protocol: Protocol) -> Case<F> {
    let case = answered(format!("snat: there and back, {protocol:?}"), protocol)
        .row(of(protocol, FAR, VIP), ANSWERED, 1)
        .row(of(protocol, REMOTE, SHOWN), REPLY | ANSWERED, 1);
    let case = requested(case, of(protocol, FAR, VIP))
        .assures()
        .row(of(protocol, FAR, VIP), ASSURED | ANSWERED, 1)
        .row(of(protocol, REMOTE, SHOWN), ASSURED | REPLY | ANSWERED, 1);
    let case = requested(case, of(protocol, FAR, VIP));
    answers(case, of(protocol, REMOTE, SHOWN), FAR)
}

/// Replies come to an address that clients call, too.
fn node_port<F: Net>() -> Case<F> {
    const NODE_PORT: &str = "192.168.1.11:30080";
    let state = remote().frontend(1, FrontendKind::NodePort, Udp, NODE_PORT);
    opened(case("snat: a node port", state).on(allocating::<F>()), udp(FAR, NODE_PORT), 0)
        .outside(udp(REMOTE, SHOWN))
        .reply(OUT, NODE_PORT, FAR)
}

fn fin<F: Net>() -> Case<F> {
    let case = answered("snat: FIN reaches both rows".to_owned(), Tcp);
    let case = requested(case, tcp(FAR, VIP).fin()).assures();
    answers(case, tcp(REMOTE, SHOWN).fin(), FAR)
        .row(tcp(FAR, VIP), ASSURED | ANSWERED | FIN_CLIENT | FIN_BACKEND, 1)
        .row(tcp(REMOTE, SHOWN), ASSURED | REPLY | ANSWERED | FIN_CLIENT | FIN_BACKEND, 1)
}

fn request_row_lost<F: Net>(protocol: Protocol) -> Case<F> {
    let case = answered(format!("snat: a lost request row is made again, {protocol:?}"), protocol);
    let case = requested(case, of(protocol, FAR, VIP)).assures().wait(1).loses(of(protocol, FAR, VIP));
    let case = answers(case, of(protocol, REMOTE, SHOWN), FAR).also(Counter::Rebuilt).row(
        of(protocol, FAR, VIP),
        ASSURED | ANSWERED,
        1,
    );
    requested(case, of(protocol, FAR, VIP))
}

fn reply_row_lost<F: Net>(protocol: Protocol) -> Case<F> {
    let case = answered(format!("snat: a port that was lost is taken again, {protocol:?}"), protocol);
    let case = requested(case, of(protocol, FAR, VIP)).assures().wait(1).loses(of(protocol, REMOTE, SHOWN));
    let case = requested(case, of(protocol, FAR, VIP)).also(Counter::Rebuilt);
    answers(case, of(protocol, REMOTE, SHOWN), FAR)
}

fn off<F: Net>() -> Case<F> {
    case("snat: none to allocate, the source stays", remote())
        .on(Settings { snat_ports: 0, ..allocating::<F>() })
        .outside(udp(FAR, VIP))
        .opens(OUT, REMOTE)
}

fn no_address<F: Net>() -> Case<F> {
    case("snat: a node without an address, the source stays", remote())
        .on(Settings { snat_first: FIRST, snat_ports: PORTS, ..on_uplink() })
        .outside(udp(FAR, VIP))
        .opens(OUT, REMOTE)
}

fn local_backend<F: Net>() -> Case<F> {
    case("snat: not for backends of this node", {
        web_by(BACKEND, BRIDGE.zone, BLUE.reached(NextHopKind::Peer))
    })
    .on(allocating::<F>())
    .outside(udp(FAR, VIP))
    .opens(Egress::Peer(BLUE.ifindex), BACKEND)
}

fn sctp_keeps_its_port<F: Net>() -> Case<F> {
    const AT: &str = "10.244.9.9:80";
    let state = State::default().service(1, &[(Sctp, VIP)], &[1]).backend(1, 1, AT, ZONE_UPLINK, outside());
    case("snat: SCTP's checksum covers ports: its own or none", state)
        .on(allocating::<F>())
        .outside(sctp(FAR, VIP))
        .opens(OUT, AT)
        .shown("192.168.1.11:40000")
        .outside(sctp(FAR2, VIP))
        .drops(Counter::Clash)
}

fn client(number: u32) -> String {
    format!("192.168.1.100:{}", 41_000 + number)
}

/// Clients of which each has one of the ports, in the order in which they got them.
fn all_taken<F: Net>(name: &str, answered_by: bool) -> Case<F> {
    let mut case = case(name, remote()).on(allocating::<F>());
    for number in 0..PORTS {
        let packet = udp(&client(number), VIP);
        let shown = seen(number);
        case = opened(case, packet.clone(), number);
        if answered_by {
            case = answers(case, udp(REMOTE, &shown), &client(number));
            case = case.outside(packet).request(OUT, REMOTE).shown(&shown).assures();
        }
    }
    case
}

fn used_up<F: Net>() -> Case<F> {
    let case = all_taken("snat: every port is another's: dropped", true);
    case.outside(udp(FAR, VIP)).drops(Counter::NoSnatPort).no_row(udp(FAR, VIP))
}

fn unassured_is_taken<F: Net>() -> Case<F> {
    let case = all_taken("snat: clients who prove nothing lose their ports where others want them", false);
    let case = case.wait(5).outside(udp(FAR, VIP)).drops(Counter::NoSnatPort);
    let case = opened(case.wait(1), udp(FAR, VIP), 0);
    // Who has lost it is a new flow, and gets the next that has been left.
    opened(case, udp(&client(0), VIP), 1)
}

fn expired_is_taken<F: Net>() -> Case<F> {
    let case = all_taken("snat: ports of flows that have expired are taken", true);
    let case = case.wait(Lifetimes::SECONDS.udp_answered).outside(udp(FAR, VIP)).drops(Counter::NoSnatPort);
    opened(case.wait(1), udp(FAR, VIP), 0)
}

fn same_port_again<F: Net>() -> Case<F> {
    let case = answered("snat: a client that uses its port again has the same one".to_owned(), Tcp);
    let case = answers(case, tcp(REMOTE, SHOWN).rst(), FAR);
    let case = opened(case, tcp(FAR, VIP).syn(), 0);
    answers(case, tcp(REMOTE, SHOWN).syn_ack(), FAR)
}

/// The node's own connections are none of ours.
fn other_hooks<F: Net>() -> Case<F> {
    case("snat: replies to ports that are not allocated", remote())
        .on(allocating::<F>())
        .outside(tcp(REMOTE, "192.168.1.11:40001"))
        .passes(Counter::NoFrontend)
        .outside(tcp(REMOTE, "192.168.1.11:10001"))
        .passes(Counter::NoFrontend)
}
