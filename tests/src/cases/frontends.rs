//! Kinds of frontends, the policies that hold there, affinity and source ranges.

use lb_common::{
    abi::{
        BackendState, Counter,
        FrontendKind::{self, ExternalIp, HostPort, LoadBalancer, NodePort},
        NextHopKind, Scopes, set_flags,
    },
    path::{
        Egress,
        Egress::{Neighbour, Peer},
        client_hash,
    },
    wire::Protocol::{self, Sctp, Tcp, Udp},
};

use crate::{
    case::{Case, case},
    family::{Net, socket},
    packet::{of, sctp, tcp, udp},
    state::{BLUE, BRIDGE, GREEN, RED, State, UPLINK, on, outside},
    world::{BACKEND, CLIENT, SPARE, VIP, web},
};

/// Of the node, of a load balancer and of nobody in particular.
const NODE: &str = "192.168.1.11:30080";
const BALANCED: &str = "198.51.100.10:80";
const EXTERNAL: &str = "203.0.113.10:80";
/// A backend on another node.
const REMOTE: &str = "10.244.2.9:8080";
const OUTSIDER: &str = "198.51.100.7:5555";
const STRANGER: &str = "192.0.2.7:5555";

pub fn cases<F: Net>() -> Vec<Case<F>> {
    let mut cases = vec![
        internal_local(),
        internal_local_nowhere(),
        external_local(),
        external_local_nowhere(),
        external_local_draining_here(),
        nobody_anywhere(),
        source_ranges(),
        affinity_timeout(),
        affinity_is_no_promise(),
        affinity_scope(),
        affinity_of_flows_that_exist(),
        sctp_association(),
    ];
    for (kind, at) in
        [(NodePort, NODE), (LoadBalancer, BALANCED), (ExternalIp, EXTERNAL), (HostPort, "192.168.1.11:8000")]
    {
        for protocol in [Tcp, Udp] {
            cases.push(from_everywhere(kind, at, protocol));
        }
    }
    for protocol in [Tcp, Udp] {
        cases.push(affinity(protocol));
    }
    cases
}

/// Service 1 with every kind of frontend; blue is here, the remote one is elsewhere.
fn everywhere<F: Net>(all: &[u32], local: &[u32]) -> State<F> {
    let state = State::default()
        .service(1, &[(Tcp, VIP), (Udp, VIP)], all)
        .backend(1, 1, BACKEND, BRIDGE.zone, BLUE.reached(NextHopKind::Peer))
        .backend(2, 1, REMOTE, 0, outside())
        .local(1, local);
    [(NodePort, NODE), (LoadBalancer, BALANCED), (ExternalIp, EXTERNAL)]
        .into_iter()
        .flat_map(|(kind, at)| [(kind, Tcp, at), (kind, Udp, at)])
        .fold(state, |state, (kind, protocol, at)| state.frontend(1, kind, protocol, at))
}

fn flags<F: Net>(state: State<F>, flags: u32) -> State<F> {
    state.set(1, |set| set.flags = flags)
}

fn from_everywhere<F: Net>(kind: FrontendKind, at: &'static str, protocol: Protocol) -> Case<F> {
    let state = web().frontend(1, kind, protocol, at);
    case(format!("{kind:?}: from a pod and from outside, {protocol:?}"), state)
        .begins(of(protocol, CLIENT, at))
        .pod(BLUE, of(protocol, BACKEND, CLIENT))
        .reply(Peer(RED.ifindex), at, CLIENT)
        .outside(of(protocol, OUTSIDER, at))
        .opens(Peer(BLUE.ifindex), BACKEND)
        .pod(BLUE, of(protocol, BACKEND, OUTSIDER))
        .reply(Neighbour(UPLINK), at, OUTSIDER)
}

const HERE: Egress = Peer(BLUE.ifindex);
const AWAY: Egress = Neighbour(UPLINK);

fn internal_local<F: Net>() -> Case<F> {
    let state = flags(everywhere(&[2], &[1]), set_flags::INTERNAL_LOCAL);
    case("internal policy Local: this node's backends, for the cluster IP alone", state)
        .begins(tcp(CLIENT, VIP).syn())
        .pod(RED, tcp(CLIENT, NODE).syn())
        .opens(AWAY, REMOTE)
        .outside(udp(OUTSIDER, VIP))
        .opens(HERE, BACKEND)
}

fn internal_local_nowhere<F: Net>() -> Case<F> {
    let state = flags(everywhere(&[2], &[]), set_flags::INTERNAL_LOCAL);
    case("internal policy Local, backends only elsewhere: dropped, not refused", state)
        .pod(RED, tcp(CLIENT, VIP).syn())
        .drops(Counter::NoLocalBackend)
        .pod(RED, udp(CLIENT, VIP))
        .drops(Counter::NoLocalBackend)
        .no_row(udp(CLIENT, VIP))
}

fn external_local<F: Net>() -> Case<F> {
    let state = flags(everywhere(&[2], &[1]), set_flags::EXTERNAL_LOCAL);
    let mut case = case("external policy Local holds for who comes from outside, not for pods", state);
    // Each from a port of its own: the backend sees the client, and not what it called.
    for (port, at) in [(5001, NODE), (5002, BALANCED), (5003, EXTERNAL)] {
        let (outsider, pod) = (format!("198.51.100.7:{port}"), client(port));
        case = case
            .outside(tcp(&outsider, at).syn())
            .opens(HERE, BACKEND)
            .pod(RED, tcp(&pod, at).syn())
            .opens(AWAY, REMOTE);
    }
    case.pod(RED, tcp(CLIENT, VIP).syn()).opens(AWAY, REMOTE)
}

fn external_local_nowhere<F: Net>() -> Case<F> {
    let state = flags(everywhere(&[2], &[]), set_flags::EXTERNAL_LOCAL);
    case("external policy Local, backends only elsewhere: dropped, pods go there", state)
        .outside(udp(OUTSIDER, NODE))
        .drops(Counter::NoLocalBackend)
        .pod(RED, udp(CLIENT, NODE))
        .opens(AWAY, REMOTE)
}

fn external_local_draining_here<F: Net>() -> Case<F> {
    let state = flags(everywhere(&[2], &[1]), set_flags::EXTERNAL_LOCAL);
    case("this node's backends terminate while others are ready: who is held to them gets them", state)
        .change(|state| state.set_state(1, BackendState::Active(Scopes::Local)))
        .outside(tcp(OUTSIDER, NODE).syn())
        .opens(HERE, BACKEND)
        // A slot of all that still leads there is of an older set.
        .change(|state| *state = flags(everywhere(&[1], &[1]), 0))
        .change(|state| state.set_state(1, BackendState::Active(Scopes::Local)))
        .outside(tcp(STRANGER, NODE).syn())
        .drops(Counter::Unsettled)
}

fn nobody_anywhere<F: Net>() -> Case<F> {
    let state = flags(everywhere(&[], &[]), set_flags::EXTERNAL_LOCAL | set_flags::INTERNAL_LOCAL);
    case("policy Local and no backend anywhere: refused", state)
        .pod(RED, tcp(CLIENT, VIP).syn())
        .rejects(Counter::NoBackend)
        .outside(tcp(OUTSIDER, NODE).syn())
        .rejects(Counter::NoBackend)
}

fn source_ranges<F: Net>() -> Case<F> {
    let ranges = [("198.51.100.0:0", 24), ("10.244.1.3:0", 32)];
    case("source ranges hold at load balancer addresses, for every client", {
        everywhere(&[1], &[1]).source_ranges(1, &ranges)
    })
    .outside(tcp(OUTSIDER, BALANCED).syn())
    .opens(HERE, BACKEND)
    .outside(tcp(STRANGER, BALANCED).syn())
    .drops(Counter::SourceRange)
    .outside(tcp(STRANGER, NODE).syn())
    .opens(HERE, BACKEND)
    .outside(udp(STRANGER, EXTERNAL))
    .opens(HERE, BACKEND)
    .pod(RED, udp(CLIENT, BALANCED))
    .drops(Counter::SourceRange)
    .pod(BLUE, udp("10.244.1.3:40000", BALANCED))
    .opens(HERE, BACKEND)
    .shown("198.51.100.10:40000")
}

/// Two backends of which a client keeps the one it had; a slot apiece, the client's hash points at
/// `first`'s.
fn sticky<F: Net>(first: u32) -> State<F> {
    let second = 3 - first;
    let mut slots = [second; 16];
    let settings = on(BRIDGE, NextHopKind::Peer);
    let hash = client_hash(F::addr(*socket(CLIENT).ip()), settings.hash_seed);
    slots[((hash as u64 * 16) >> 32) as usize] = first;
    State::default()
        .service(1, &[(Tcp, VIP), (Udp, VIP)], &slots)
        .backend(1, 1, BACKEND, BRIDGE.zone, BLUE.reached(NextHopKind::Peer))
        .backend(2, 1, SPARE, BRIDGE.zone, GREEN.reached(NextHopKind::Peer))
        .set(1, |set| set.affinity = TIMEOUT)
}

const TIMEOUT: u32 = 100;
const GREEN_PORT: Egress = Peer(GREEN.ifindex);

fn client(port: u16) -> String {
    format!("10.244.1.2:{port}")
}

/// The client's choice by hash is another from now on.
fn turn<F: Net>(state: &mut State<F>) {
    let turned = sticky::<F>(2);
    state.shared.slots = turned.shared.slots;
}

fn affinity<F: Net>(protocol: Protocol) -> Case<F> {
    case(format!("affinity: a client's flows go to one backend, {protocol:?}"), sticky(1))
        .begins(of(protocol, &client(40_000), VIP))
        .begins(of(protocol, &client(40_001), VIP))
        .change(turn)
        .begins(of(protocol, &client(40_002), VIP))
}

fn affinity_timeout<F: Net>() -> Case<F> {
    case("affinity: the timeout begins anew with each flow, not with each packet", sticky(1))
        .begins(udp(&client(40_000), VIP))
        .change(turn)
        .wait(TIMEOUT)
        .begins(udp(&client(40_001), VIP))
        .wait(TIMEOUT)
        .begins(tcp(&client(40_002), VIP).syn())
        .pod(BLUE, tcp(BACKEND, &client(40_002)).syn_ack())
        .reply(Peer(RED.ifindex), VIP, &client(40_002))
        .asks(tcp(&client(40_002), VIP))
        .assures()
        .wait(TIMEOUT)
        .asks(tcp(&client(40_002), VIP))
        .wait(1)
        .pod(RED, udp(&client(40_003), VIP))
        .opens(GREEN_PORT, SPARE)
}

fn affinity_is_no_promise<F: Net>() -> Case<F> {
    case("affinity: not to a backend that takes no new flows, or whose row is another's", sticky(1))
        .begins(udp(&client(40_000), VIP))
        .change(turn)
        .change(|state| state.set_state(1, BackendState::Draining))
        .pod(RED, udp(&client(40_001), VIP))
        .opens(GREEN_PORT, SPARE)
        .change(|state| state.set_state(1, BackendState::Active(Scopes::Both)))
        .pod(RED, udp(&client(40_002), VIP))
        .opens(GREEN_PORT, SPARE)
        .change(|state| *state = State { learned: std::mem::take(&mut state.learned), ..sticky(1) })
        .change(|state| {
            state.side.backends.get_mut(&2).expect("backend 2").word.generation = 2;
        })
        .begins(udp(&client(40_003), VIP))
}

fn affinity_scope<F: Net>() -> Case<F> {
    let state = flags(everywhere(&[2], &[1]), set_flags::EXTERNAL_LOCAL).set(1, |set| set.affinity = TIMEOUT);
    case("affinity: who is held to this node does not follow the affinity elsewhere", state)
        .change(|state| state.set_state(2, BackendState::Active(Scopes::Cluster)))
        .outside(udp(OUTSIDER, VIP))
        .opens(AWAY, REMOTE)
        .outside(udp(OUTSIDER, NODE))
        .opens(HERE, BACKEND)
}

fn affinity_of_flows_that_exist<F: Net>() -> Case<F> {
    case("affinity: a flow stays where it is, whatever its client's affinity", sticky(1))
        .begins(udp(&client(40_000), VIP))
        .change(|state| state.learned.affinity.clear())
        .change(turn)
        .pod(RED, udp(&client(40_001), VIP))
        .opens(GREEN_PORT, SPARE)
        .asks(udp(&client(40_000), VIP))
}

fn sctp_association<F: Net>() -> Case<F> {
    const SAME_PORT: &str = "10.244.1.3:80";
    let state = State::default().service(1, &[(Sctp, VIP)], &[1]).backend(
        1,
        1,
        SAME_PORT,
        BRIDGE.zone,
        BLUE.reached(NextHopKind::Peer),
    );
    case("SCTP: addresses change, ports and checksum stay", state)
        .pod(RED, sctp(CLIENT, VIP))
        .opens(HERE, SAME_PORT)
        .answers(sctp(SAME_PORT, CLIENT))
        .pod(RED, sctp(CLIENT, VIP))
        .request(HERE, SAME_PORT)
        .assures()
        .change(|state| state.set_state(1, BackendState::Removed))
        .pod(RED, sctp(CLIENT, VIP))
        .request(HERE, SAME_PORT)
}
