//! A flow's rows: their bits, their loss, their end.

use lb_common::{
    abi::{
        BackendState, BackendWord, Counter, Lifetimes, NextHopKind, Scopes,
        flow_bits::{ANSWERED, ASSURED, FIN_BACKEND, FIN_CLIENT, REPLY, RESET},
    },
    path::Egress::{self, Peer},
    wire::Protocol,
};

use super::answered;
use crate::{
    case::{Case, case},
    family::Net,
    packet::{of, tcp, udp},
    state::{BLUE, GREEN, RED, State},
    world::{BACKEND, CLIENT, SPARE, VIP, web},
};

const LIFE: Lifetimes = Lifetimes::SECONDS;
const BACK: Egress = Peer(RED.ifindex);

pub fn cases<F: Net>() -> Vec<Case<F>> {
    let mut cases = vec![
        finished(),
        reset_by_client(),
        reset_by_backend(),
        syn_on_closing(),
        syn_again(),
        generation(),
        removed_tcp(),
        removed_udp(),
        silent_tcp(),
        silent_udp(),
        draining(),
        freed(),
        syn_after_removal(),
    ];
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        cases.extend([
            reply_row_lost(protocol),
            request_row_lost(protocol),
            both_lost(protocol),
            unanswered(protocol),
            lives_longer(protocol),
        ]);
    }
    cases
}

fn finished<F: Net>() -> Case<F> {
    answered("FIN reaches both rows, from either side", web(), Protocol::Tcp)
        .row(tcp(CLIENT, VIP), ANSWERED, 1)
        .row(tcp(BACKEND, CLIENT), REPLY | ANSWERED, 1)
        .asks(tcp(CLIENT, VIP).fin())
        .assures()
        .row(tcp(CLIENT, VIP), ASSURED | ANSWERED | FIN_CLIENT, 1)
        .row(tcp(BACKEND, CLIENT), ASSURED | REPLY | ANSWERED | FIN_CLIENT, 1)
        .answers(tcp(BACKEND, CLIENT).fin())
        .row(tcp(CLIENT, VIP), ASSURED | ANSWERED | FIN_CLIENT | FIN_BACKEND, 1)
        .row(tcp(BACKEND, CLIENT), ASSURED | REPLY | ANSWERED | FIN_CLIENT | FIN_BACKEND, 1)
        // The last ACK still belongs to it.
        .asks(tcp(CLIENT, VIP))
        .row(tcp(CLIENT, VIP), ASSURED | ANSWERED | FIN_CLIENT | FIN_BACKEND, 1)
}

fn reset_by_client<F: Net>() -> Case<F> {
    answered("RST of the client reaches both rows", web(), Protocol::Tcp)
        .asks(tcp(CLIENT, VIP).rst())
        .row(tcp(CLIENT, VIP), ANSWERED | RESET, 1)
        .row(tcp(BACKEND, CLIENT), REPLY | ANSWERED | RESET, 1)
}

fn reset_by_backend<F: Net>() -> Case<F> {
    answered("RST of the backend reaches both rows", web(), Protocol::Tcp)
        .answers(tcp(BACKEND, CLIENT).rst())
        .row(tcp(CLIENT, VIP), ANSWERED | RESET, 1)
        .row(tcp(BACKEND, CLIENT), REPLY | ANSWERED | RESET, 1)
}

fn syn_on_closing<F: Net>() -> Case<F> {
    answered("a SYN on a flow that is over begins a new one", web(), Protocol::Tcp)
        .answers(tcp(BACKEND, CLIENT).rst())
        .begins(tcp(CLIENT, VIP).syn())
        .row(tcp(CLIENT, VIP), 0, 1)
        .row(tcp(BACKEND, CLIENT), REPLY, 1)
}

fn syn_again<F: Net>() -> Case<F> {
    case("a SYN sent again goes where the first one went", web())
        .begins(tcp(CLIENT, VIP).syn())
        .wait(1)
        .asks(tcp(CLIENT, VIP).syn())
}

fn reply_row_lost<F: Net>(protocol: Protocol) -> Case<F> {
    answered(
        format!("a lost reply row is made again by the client's next packet, {protocol:?}"),
        web(),
        protocol,
    )
    .wait(1)
    .loses(of(protocol, BACKEND, CLIENT))
    .asks(of(protocol, CLIENT, VIP))
    .assures()
    .row(of(protocol, BACKEND, CLIENT), ASSURED | REPLY | ANSWERED, 1)
    .wait(1)
    .loses(of(protocol, BACKEND, CLIENT))
    .asks(of(protocol, CLIENT, VIP))
    .also(Counter::Rebuilt)
    .row(of(protocol, BACKEND, CLIENT), ASSURED | REPLY | ANSWERED, 1)
    .answers(of(protocol, BACKEND, CLIENT))
}

fn request_row_lost<F: Net>(protocol: Protocol) -> Case<F> {
    answered(
        format!("a lost request row is made again by the backend's next packet, {protocol:?}"),
        web(),
        protocol,
    )
    .wait(1)
    .loses(of(protocol, CLIENT, VIP))
    .answers(of(protocol, BACKEND, CLIENT))
    .also(Counter::Rebuilt)
    .row(of(protocol, CLIENT, VIP), ANSWERED, 1)
    .answers(of(protocol, BACKEND, CLIENT))
    .asks(of(protocol, CLIENT, VIP))
    .assures()
    .wait(1)
    .loses(of(protocol, CLIENT, VIP))
    .answers(of(protocol, BACKEND, CLIENT))
    .also(Counter::Rebuilt)
    .row(of(protocol, CLIENT, VIP), ASSURED | ANSWERED, 1)
    .asks(of(protocol, CLIENT, VIP))
}

fn both_lost<F: Net>(protocol: Protocol) -> Case<F> {
    answered(format!("a flow that lost both rows is chosen again, {protocol:?}"), web(), protocol)
        .loses(of(protocol, CLIENT, VIP))
        .loses(of(protocol, BACKEND, CLIENT))
        .begins(of(protocol, CLIENT, VIP))
}

fn unanswered<F: Net>(protocol: Protocol) -> Case<F> {
    let life = if protocol == Protocol::Tcp { LIFE.tcp_unanswered } else { LIFE.udp_unanswered };
    case(format!("a flow without an answer expires, {protocol:?}"), web())
        .begins(of(protocol, CLIENT, VIP))
        .wait(life)
        .asks(of(protocol, CLIENT, VIP))
        .wait(life + 1)
        .pod(BLUE, of(protocol, BACKEND, CLIENT))
        .passes(Counter::NotOurs)
        .begins(of(protocol, CLIENT, VIP))
        .answers(of(protocol, BACKEND, CLIENT))
}

fn lives_longer<F: Net>(protocol: Protocol) -> Case<F> {
    let life = if protocol == Protocol::Tcp { LIFE.tcp_established } else { LIFE.udp_answered };
    answered(
        format!("an answered flow lives longer, and is kept by either side, {protocol:?}"),
        web(),
        protocol,
    )
    .asks(of(protocol, CLIENT, VIP))
    .assures()
    .wait(life)
    .answers(of(protocol, BACKEND, CLIENT))
    .wait(life)
    .asks(of(protocol, CLIENT, VIP))
    .wait(life)
    .answers(of(protocol, BACKEND, CLIENT))
    .wait(life + 1)
    .begins(of(protocol, CLIENT, VIP))
}

fn set<F: Net>(state: &mut State<F>, to: BackendState, generation: u32) {
    let row = state.side.backends.get_mut(&1).expect("the case's backend");
    row.word = BackendWord::new(to, 1, generation).0;
}

fn generation<F: Net>() -> Case<F> {
    answered("an id that was given out again is another backend", web(), Protocol::Tcp)
        .change(|state| set(state, BackendState::Active(Scopes::Both), 2))
        .begins(tcp(CLIENT, VIP))
        .asks(tcp(CLIENT, VIP))
}

/// Blue is removed and green, id 2, serves instead.
fn replace<F: Net>(state: &mut State<F>) {
    set(state, BackendState::Removed, 1);
    green(state);
}

fn green<F: Net>(state: &mut State<F>) {
    *state = std::mem::take(state).service(1, &[], &[2]).backend(
        2,
        1,
        SPARE,
        GREEN.bridge.zone,
        GREEN.reached(NextHopKind::Peer),
    );
}

const GREEN_PORT: Egress = Peer(GREEN.ifindex);

fn removed_tcp<F: Net>() -> Case<F> {
    answered("TCP stays with a backend that was removed", web(), Protocol::Tcp)
        .change(replace)
        .asks(tcp(CLIENT, VIP))
        .assures()
        .answers(tcp(BACKEND, CLIENT))
}

fn removed_udp<F: Net>() -> Case<F> {
    answered("UDP leaves a backend that was removed with its next packet", web(), Protocol::Udp)
        .change(replace)
        .pod(RED, udp(CLIENT, VIP))
        .opens(GREEN_PORT, SPARE)
        .pod(GREEN, udp(SPARE, CLIENT))
        .reply(BACK, VIP, CLIENT)
}

fn silence<F: Net>(state: &mut State<F>) {
    set(state, BackendState::Silent, 1);
    green(state);
}

fn silent_tcp<F: Net>() -> Case<F> {
    answered("TCP waits for a backend that is silent, and begins with another", web(), Protocol::Tcp)
        .change(silence)
        .asks(tcp(CLIENT, VIP))
        .assures()
        .pod(RED, tcp(CLIENT, VIP).syn())
        .opens(GREEN_PORT, SPARE)
}

fn silent_udp<F: Net>() -> Case<F> {
    answered("UDP leaves a backend that is silent with its next packet", web(), Protocol::Udp)
        .change(silence)
        .pod(RED, udp(CLIENT, VIP))
        .opens(GREEN_PORT, SPARE)
        .pod(GREEN, udp(SPARE, CLIENT))
        .reply(BACK, VIP, CLIENT)
}

fn syn_after_removal<F: Net>() -> Case<F> {
    answered("a SYN on a flow whose backend was removed goes to another", web(), Protocol::Tcp)
        .change(replace)
        .pod(RED, tcp(CLIENT, VIP).syn())
        .opens(GREEN_PORT, SPARE)
}

fn draining<F: Net>() -> Case<F> {
    answered("a draining backend keeps its flows, UDP too", web(), Protocol::Udp)
        .begins(tcp(CLIENT, VIP).syn())
        .change(|state| {
            set(state, BackendState::Draining, 1);
            green(state);
        })
        .asks(udp(CLIENT, VIP))
        .assures()
        .asks(tcp(CLIENT, VIP))
        .pod(RED, tcp(CLIENT, VIP).syn())
        .opens(GREEN_PORT, SPARE)
}

fn freed<F: Net>() -> Case<F> {
    answered("a backend whose row is free keeps no flow", web(), Protocol::Tcp)
        .change(|state| {
            set(state, BackendState::Free, 1);
            green(state);
        })
        .pod(RED, tcp(CLIENT, VIP))
        .opens(GREEN_PORT, SPARE)
}
