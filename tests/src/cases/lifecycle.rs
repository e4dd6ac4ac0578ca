//! A flow's rows: their bits, their loss, their end.

use lb_common::{
    abi::{
        BackendState, BackendWord, Counter, Lifetimes, ReachKind, Scopes,
        flow_bits::{ANSWERED, FIN_BACKEND, FIN_CLIENT, PROVEN, REPLY, RESET},
    },
    path::Way::{self, Peer},
    wire::Protocol,
};

use super::{BACKEND, CLIENT, VIP, answered, web};
use crate::{
    case::{Case, case},
    family::Net,
    packet::{of, tcp, udp},
    state::{BLUE, GREEN, RED, State},
};

const LIFE: Lifetimes = Lifetimes::SECONDS;
const TO: Way = Peer(BLUE.ifindex);
const BACK: Way = Peer(RED.ifindex);

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
        .pod(RED, tcp(CLIENT, VIP).fin())
        .request(TO, BACKEND)
        .proves()
        .row(tcp(CLIENT, VIP), PROVEN | ANSWERED | FIN_CLIENT, 1)
        .row(tcp(BACKEND, CLIENT), PROVEN | REPLY | ANSWERED | FIN_CLIENT, 1)
        .pod(BLUE, tcp(BACKEND, CLIENT).fin())
        .reply(BACK, VIP, CLIENT)
        .row(tcp(CLIENT, VIP), PROVEN | ANSWERED | FIN_CLIENT | FIN_BACKEND, 1)
        .row(tcp(BACKEND, CLIENT), PROVEN | REPLY | ANSWERED | FIN_CLIENT | FIN_BACKEND, 1)
        // The last ACK still belongs to it.
        .pod(RED, tcp(CLIENT, VIP))
        .request(TO, BACKEND)
        .row(tcp(CLIENT, VIP), PROVEN | ANSWERED | FIN_CLIENT | FIN_BACKEND, 1)
}

fn reset_by_client<F: Net>() -> Case<F> {
    answered("RST of the client reaches both rows", web(), Protocol::Tcp)
        .pod(RED, tcp(CLIENT, VIP).rst())
        .request(TO, BACKEND)
        .row(tcp(CLIENT, VIP), ANSWERED | RESET, 1)
        .row(tcp(BACKEND, CLIENT), REPLY | ANSWERED | RESET, 1)
}

fn reset_by_backend<F: Net>() -> Case<F> {
    answered("RST of the backend reaches both rows", web(), Protocol::Tcp)
        .pod(BLUE, tcp(BACKEND, CLIENT).rst())
        .reply(BACK, VIP, CLIENT)
        .row(tcp(CLIENT, VIP), ANSWERED | RESET, 1)
        .row(tcp(BACKEND, CLIENT), REPLY | ANSWERED | RESET, 1)
}

fn syn_on_closing<F: Net>() -> Case<F> {
    answered("a SYN on a flow that is over begins a new one", web(), Protocol::Tcp)
        .pod(BLUE, tcp(BACKEND, CLIENT).rst())
        .reply(BACK, VIP, CLIENT)
        .pod(RED, tcp(CLIENT, VIP).syn())
        .opens(TO, BACKEND)
        .row(tcp(CLIENT, VIP), 0, 1)
        .row(tcp(BACKEND, CLIENT), REPLY, 1)
}

fn syn_again<F: Net>() -> Case<F> {
    case("a SYN sent again goes where the first one went", web())
        .pod(RED, tcp(CLIENT, VIP).syn())
        .opens(TO, BACKEND)
        .wait(1)
        .pod(RED, tcp(CLIENT, VIP).syn())
        .request(TO, BACKEND)
}

fn reply_row_lost<F: Net>(protocol: Protocol) -> Case<F> {
    answered(
        format!("a lost reply row is made again by the client's next packet, {protocol:?}"),
        web(),
        protocol,
    )
    .wait(1)
    .loses(of(protocol, BACKEND, CLIENT))
    .pod(RED, of(protocol, CLIENT, VIP))
    .request(TO, BACKEND)
    .proves()
    .row(of(protocol, BACKEND, CLIENT), PROVEN | REPLY | ANSWERED, 1)
    .wait(1)
    .loses(of(protocol, BACKEND, CLIENT))
    .pod(RED, of(protocol, CLIENT, VIP))
    .request(TO, BACKEND)
    .also(Counter::Rebuilt)
    .row(of(protocol, BACKEND, CLIENT), PROVEN | REPLY | ANSWERED, 1)
    .pod(BLUE, of(protocol, BACKEND, CLIENT))
    .reply(BACK, VIP, CLIENT)
}

fn request_row_lost<F: Net>(protocol: Protocol) -> Case<F> {
    answered(
        format!("a lost request row is made again by the backend's next packet, {protocol:?}"),
        web(),
        protocol,
    )
    .wait(1)
    .loses(of(protocol, CLIENT, VIP))
    .pod(BLUE, of(protocol, BACKEND, CLIENT))
    .reply(BACK, VIP, CLIENT)
    .also(Counter::Rebuilt)
    .row(of(protocol, CLIENT, VIP), ANSWERED, 1)
    .pod(BLUE, of(protocol, BACKEND, CLIENT))
    .reply(BACK, VIP, CLIENT)
    .pod(RED, of(protocol, CLIENT, VIP))
    .request(TO, BACKEND)
    .proves()
    .wait(1)
    .loses(of(protocol, CLIENT, VIP))
    .pod(BLUE, of(protocol, BACKEND, CLIENT))
    .reply(BACK, VIP, CLIENT)
    .also(Counter::Rebuilt)
    .row(of(protocol, CLIENT, VIP), PROVEN | ANSWERED, 1)
    .pod(RED, of(protocol, CLIENT, VIP))
    .request(TO, BACKEND)
}

fn both_lost<F: Net>(protocol: Protocol) -> Case<F> {
    answered(format!("a flow that lost both rows is chosen again, {protocol:?}"), web(), protocol)
        .loses(of(protocol, CLIENT, VIP))
        .loses(of(protocol, BACKEND, CLIENT))
        .pod(RED, of(protocol, CLIENT, VIP))
        .opens(TO, BACKEND)
}

fn unanswered<F: Net>(protocol: Protocol) -> Case<F> {
    let life = if protocol == Protocol::Tcp { LIFE.tcp_unanswered } else { LIFE.udp_unanswered };
    case(format!("a flow without an answer expires, {protocol:?}"), web())
        .pod(RED, of(protocol, CLIENT, VIP))
        .opens(TO, BACKEND)
        .wait(life)
        .pod(RED, of(protocol, CLIENT, VIP))
        .request(TO, BACKEND)
        .wait(life + 1)
        .pod(BLUE, of(protocol, BACKEND, CLIENT))
        .passes(Counter::NotOurs)
        .pod(RED, of(protocol, CLIENT, VIP))
        .opens(TO, BACKEND)
        .pod(BLUE, of(protocol, BACKEND, CLIENT))
        .reply(BACK, VIP, CLIENT)
}

fn lives_longer<F: Net>(protocol: Protocol) -> Case<F> {
    let life = if protocol == Protocol::Tcp { LIFE.tcp_established } else { LIFE.udp_answered };
    answered(
        format!("an answered flow lives longer, and is kept by either side, {protocol:?}"),
        web(),
        protocol,
    )
    .pod(RED, of(protocol, CLIENT, VIP))
    .request(TO, BACKEND)
    .proves()
    .wait(life)
    .pod(BLUE, of(protocol, BACKEND, CLIENT))
    .reply(BACK, VIP, CLIENT)
    .wait(life)
    .pod(RED, of(protocol, CLIENT, VIP))
    .request(TO, BACKEND)
    .wait(life)
    .pod(BLUE, of(protocol, BACKEND, CLIENT))
    .reply(BACK, VIP, CLIENT)
    .wait(life + 1)
    .pod(RED, of(protocol, CLIENT, VIP))
    .opens(TO, BACKEND)
}

fn set<F: Net>(state: &mut State<F>, to: BackendState, generation: u32) {
    let row = state.backends.get_mut(&1).expect("the case's backend");
    row.word = BackendWord::new(to, 1, generation).0;
}

fn generation<F: Net>() -> Case<F> {
    answered("an id that was given out again is another backend", web(), Protocol::Tcp)
        .change(|state| set(state, BackendState::Active(Scopes::Both), 2))
        .pod(RED, tcp(CLIENT, VIP))
        .opens(TO, BACKEND)
        .pod(RED, tcp(CLIENT, VIP))
        .request(TO, BACKEND)
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
        GREEN.reached(ReachKind::Peer),
    );
}

/// Green's server.
const SPARE: &str = "10.244.1.4:8080";
const GREEN_PORT: Way = Peer(GREEN.ifindex);

fn removed_tcp<F: Net>() -> Case<F> {
    answered("TCP stays with a backend that was removed", web(), Protocol::Tcp)
        .change(replace)
        .pod(RED, tcp(CLIENT, VIP))
        .request(TO, BACKEND)
        .proves()
        .pod(BLUE, tcp(BACKEND, CLIENT))
        .reply(BACK, VIP, CLIENT)
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
        .pod(RED, tcp(CLIENT, VIP))
        .request(TO, BACKEND)
        .proves()
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
        .pod(RED, tcp(CLIENT, VIP).syn())
        .opens(TO, BACKEND)
        .change(|state| {
            set(state, BackendState::Draining, 1);
            green(state);
        })
        .pod(RED, udp(CLIENT, VIP))
        .request(TO, BACKEND)
        .proves()
        .pod(RED, tcp(CLIENT, VIP))
        .request(TO, BACKEND)
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
