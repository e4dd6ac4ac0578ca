//! Backends that were removed, or are not ready, and whose clients are told that they have gone.

use lb_common::{
    abi::{
        BackendState, Counter, NextHopKind, NextHopRow,
        flow_bits::{ANSWERED, ASSURED, REPLY, RESET},
    },
    path::Egress::{Neighbour, Peer},
    wire::Protocol,
};

use super::assured;
use crate::{
    case::{Case, case},
    family::Net,
    packet::{tcp, udp},
    state::{BLUE, BRIDGE, GREEN, RED, State},
    world::{BACKEND, CLIENT, SPARE, VIP, web},
};

pub fn cases<F: Net>() -> Vec<Case<F>> {
    let mut cases = vec![active(), unassured(), back(), reset_on_removal(), udp_moves(), silent()];
    for state in [BackendState::Removed, BackendState::Draining] {
        cases.extend([left(state, NextHopKind::Gone), left(state, NextHopKind::None)]);
    }
    cases
}

/// Nobody is where blue was.
fn leaves<F: Net>(state: &mut State<F>, kind: NextHopKind) {
    state.shared.next_hops.insert(1, NextHopRow { ifindex: 0, mac: [0; 3], ..BLUE.reached(kind) });
}

/// Green, id 2, serves instead of blue.
fn replace<F: Net>(state: &mut State<F>, blue: BackendState) {
    state.set_state(1, blue);
    *state = std::mem::take(state).service(1, &[], &[2]).backend(
        2,
        1,
        SPARE,
        GREEN.bridge.zone,
        GREEN.reached(NextHopKind::Peer),
    );
}

fn left<F: Net>(blue: BackendState, kind: NextHopKind) -> Case<F> {
    let name = format!("a TCP segment to a backend that is {blue:?} and has gone ({kind:?}) is reset");
    let case = assured(name, web(), Protocol::Tcp);
    // Changes are functions without a surrounding.
    let case = match blue {
        BackendState::Draining => case.change(|state| replace(state, BackendState::Draining)),
        _ => case.change(|state| replace(state, BackendState::Removed)),
    };
    let case = case.asks(tcp(CLIENT, VIP));
    let case = match kind {
        NextHopKind::Gone => case.change(|state| leaves(state, NextHopKind::Gone)),
        _ => case.change(|state| leaves(state, NextHopKind::None)),
    };
    case.pod(RED, tcp(CLIENT, VIP).says(b"anybody there?"))
        .rejects(Counter::BackendGone)
        .row(tcp(CLIENT, VIP), ASSURED | ANSWERED | RESET, 1)
        .row(tcp(BACKEND, CLIENT), ASSURED | REPLY | ANSWERED | RESET, 1)
        // A reset gets none, and what the client still has on its way gets another.
        .pod(RED, tcp(CLIENT, VIP).rst())
        .drops(Counter::BackendGone)
        .pod(RED, tcp(CLIENT, VIP).fin())
        .rejects(Counter::BackendGone)
        .pod(RED, tcp(CLIENT, VIP).syn())
        .opens(Peer(GREEN.ifindex), SPARE)
}

fn active<F: Net>() -> Case<F> {
    assured("who has gone and still serves is looked for", web(), Protocol::Tcp)
        .change(|state| leaves(state, NextHopKind::Gone))
        .pod(RED, tcp(CLIENT, VIP))
        .request(Neighbour(BRIDGE.ifindex), BACKEND)
        .change(|state| leaves(state, NextHopKind::None))
        .pod(RED, tcp(CLIENT, VIP))
        .drops(Counter::Unreachable)
}

fn unassured<F: Net>() -> Case<F> {
    case("a flow that nobody has answered is reset, too, by its backend's end", web())
        .begins(tcp(CLIENT, VIP).syn())
        .change(|state| replace(state, BackendState::Removed))
        .change(|state| leaves(state, NextHopKind::Gone))
        .pod(RED, tcp(CLIENT, VIP))
        .rejects(Counter::BackendGone)
        .row(tcp(CLIENT, VIP), RESET, 1)
        .row(tcp(BACKEND, CLIENT), REPLY | RESET, 1)
}

fn back<F: Net>() -> Case<F> {
    assured("a removed backend that is found again in time keeps its flows", web(), Protocol::Tcp)
        .change(|state| replace(state, BackendState::Removed))
        .change(|state| leaves(state, NextHopKind::Gone))
        .change(|state| {
            state.shared.next_hops.insert(1, BLUE.reached(NextHopKind::Peer));
        })
        .asks(tcp(CLIENT, VIP))
        .answers(tcp(BACKEND, CLIENT))
}

fn reset_on_removal<F: Net>() -> Case<F> {
    assured("a removed backend of a service that resets keeps no TCP flow", web(), Protocol::Tcp)
        .change(|state| replace(state, BackendState::Reset))
        // What it still has to say arrives.
        .answers(tcp(BACKEND, CLIENT))
        .pod(RED, tcp(CLIENT, VIP))
        .rejects(Counter::BackendGone)
        .row(tcp(CLIENT, VIP), ASSURED | ANSWERED | RESET, 1)
        .pod(RED, tcp(CLIENT, VIP).syn())
        .opens(Peer(GREEN.ifindex), SPARE)
}

fn udp_moves<F: Net>() -> Case<F> {
    assured("UDP moves, whatever becomes of TCP", web(), Protocol::Udp)
        .change(|state| replace(state, BackendState::Reset))
        .change(|state| leaves(state, NextHopKind::Gone))
        .pod(RED, udp(CLIENT, VIP))
        .opens(Peer(GREEN.ifindex), SPARE)
}

/// The agent has found that nobody is there, and others are.
fn silent<F: Net>() -> Case<F> {
    assured("who has gone and would serve takes no new flows and keeps those it has", web(), Protocol::Tcp)
        .change(|state| replace(state, BackendState::Silent))
        .change(|state| leaves(state, NextHopKind::Gone))
        .pod(RED, tcp(CLIENT, VIP))
        .request(Neighbour(BRIDGE.ifindex), BACKEND)
        .pod(RED, tcp("10.244.1.2:40001", VIP).syn())
        .opens(Peer(GREEN.ifindex), SPARE)
        .pod(RED, tcp(CLIENT, VIP).syn())
        .opens(Peer(GREEN.ifindex), SPARE)
}
