//! Flows whose clients have yet to show that they hear the backend: what shows it, and what does not.

use lb_common::{
    abi::{
        Counter, Lifetimes, NextHopKind,
        flow_bits::{ANSWERED, ASSURED, REPLY},
    },
    path::Egress::{self},
    wire::Protocol,
};

use super::assured;
use crate::{
    case::{Case, case},
    family::Net,
    packet::{SEQUENCE, of, sctp, tcp, udp},
    state::{BLUE, BRIDGE, RED, on},
    world::{BACKEND, CLIENT, VIP, web, web_by},
};

pub fn cases<F: Net>() -> Vec<Case<F>> {
    vec![
        acknowledgement(),
        blind_acknowledgement(),
        far_ahead(),
        reset(),
        syn_again(),
        second_datagram(),
        two_datagrams_without_an_answer(),
        half_open(),
        one_answer(),
        mid_stream(),
        used_again(),
        begins_anew(),
        sctp_over_the_bridge(),
    ]
}

fn asked<F: Net>(name: &str) -> Case<F> {
    case(name, web())
        .begins(tcp(CLIENT, VIP).syn())
        .row(tcp(CLIENT, VIP), 0, 1)
        .row(tcp(BACKEND, CLIENT), REPLY, 1)
        .answers(tcp(BACKEND, CLIENT).syn_ack())
        .row(tcp(CLIENT, VIP), ANSWERED, 1)
}

fn acknowledgement<F: Net>() -> Case<F> {
    asked("proof: TCP's client acknowledges what the backend sent")
        .asks(tcp(CLIENT, VIP))
        .assures()
        .row(tcp(CLIENT, VIP), ASSURED | ANSWERED, 1)
        .row(tcp(BACKEND, CLIENT), ASSURED | REPLY | ANSWERED, 1)
        .answers(tcp(BACKEND, CLIENT))
}

fn blind_acknowledgement<F: Net>() -> Case<F> {
    asked("proof: who has not heard the backend can't know what to acknowledge")
        .asks(tcp(CLIENT, VIP).acknowledges(SEQUENCE.wrapping_add(1 << 31)))
        .row(tcp(CLIENT, VIP), ANSWERED, 1)
        .asks(tcp(CLIENT, VIP).unacknowledged())
        .row(tcp(CLIENT, VIP), ANSWERED, 1)
}

fn far_ahead<F: Net>() -> Case<F> {
    let near = 1 << 20;
    asked("proof: as much as can be on its way at once")
        .asks(tcp(CLIENT, VIP).acknowledges(SEQUENCE.wrapping_add(near)))
        .asks(tcp(CLIENT, VIP).acknowledges(SEQUENCE.wrapping_sub(near + 1)))
        .row(tcp(CLIENT, VIP), ANSWERED, 1)
        .asks(tcp(CLIENT, VIP).acknowledges(SEQUENCE.wrapping_sub(near)))
        .assures()
}

fn reset<F: Net>() -> Case<F> {
    asked("proof: a reset assures nothing").asks(tcp(CLIENT, VIP).rst())
}

fn syn_again<F: Net>() -> Case<F> {
    asked("proof: nor does another SYN").asks(tcp(CLIENT, VIP).syn())
}

fn second_datagram<F: Net>() -> Case<F> {
    case("proof: the second datagram after an answer", web())
        .begins(udp(CLIENT, VIP))
        .answers(udp(BACKEND, CLIENT))
        .answers(udp(BACKEND, CLIENT))
        .row(udp(CLIENT, VIP), ANSWERED, 1)
        .asks(udp(CLIENT, VIP))
        .assures()
        .row(udp(BACKEND, CLIENT), ASSURED | REPLY | ANSWERED, 1)
}

fn two_datagrams_without_an_answer<F: Net>() -> Case<F> {
    case("proof: datagrams without an answer prove nothing", web())
        .begins(udp(CLIENT, VIP))
        .asks(udp(CLIENT, VIP))
        .asks(udp(CLIENT, VIP))
        .row(udp(CLIENT, VIP), 0, 1)
}

fn half_open<F: Net>() -> Case<F> {
    let life = Lifetimes::SECONDS.tcp_unanswered;
    asked("a connection that its client does not confirm lives as long as one without an answer")
        .wait(life)
        .answers(tcp(BACKEND, CLIENT).syn_ack())
        .wait(life + 1)
        .pod(BLUE, tcp(BACKEND, CLIENT).syn_ack())
        .passes(Counter::NotOurs)
}

fn one_answer<F: Net>() -> Case<F> {
    let life = Lifetimes::SECONDS.udp_answered;
    case("a question with one answer lives as long as any that was answered", web())
        .begins(udp(CLIENT, VIP))
        .answers(udp(BACKEND, CLIENT))
        .wait(life)
        .answers(udp(BACKEND, CLIENT))
}

fn mid_stream<F: Net>() -> Case<F> {
    case("proof: a connection that is found in its middle", web())
        .begins(tcp(CLIENT, VIP))
        .asks(tcp(CLIENT, VIP))
        .answers(tcp(BACKEND, CLIENT))
        .asks(tcp(CLIENT, VIP))
        .assures()
}

fn used_again<F: Net>() -> Case<F> {
    assured(
        "a port used again after a reset: the rows stay where they are and begin anew",
        web(),
        Protocol::Tcp,
    )
    .answers(tcp(BACKEND, CLIENT).rst())
    .begins(tcp(CLIENT, VIP).syn())
    .row(tcp(CLIENT, VIP), ASSURED, 1)
    .row(tcp(BACKEND, CLIENT), ASSURED | REPLY, 1)
}

fn begins_anew<F: Net>() -> Case<F> {
    assured("a port used again whose reply row is lost: assured once more", web(), Protocol::Tcp)
        .answers(tcp(BACKEND, CLIENT).rst())
        .loses(tcp(BACKEND, CLIENT))
        .begins(tcp(CLIENT, VIP).syn())
        .row(tcp(CLIENT, VIP), 0, 1)
        .answers(tcp(BACKEND, CLIENT).syn_ack())
        .asks(tcp(CLIENT, VIP))
        .assures()
}

fn sctp_over_the_bridge<F: Net>() -> Case<F> {
    let at = "10.244.1.3:80";
    case("proof: SCTP, to a backend over the bridge", {
        let state = web_by(at, BRIDGE.zone, BLUE.reached(NextHopKind::Bridge));
        state.service(1, &[(Protocol::Sctp, VIP)], &[1])
    })
    .on(on(BRIDGE, NextHopKind::Bridge))
    .pod(RED, sctp(CLIENT, VIP))
    .opens(Egress::Continue, at)
    .pod(BLUE, of(Protocol::Sctp, at, CLIENT))
    .reply(Egress::Continue, VIP, CLIENT)
    .pod(RED, sctp(CLIENT, VIP))
    .request(Egress::Continue, at)
    .assures()
}
