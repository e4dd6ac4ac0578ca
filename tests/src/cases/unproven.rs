//! Flows whose clients have yet to show that they hear the backend: what proves it, and what does not.

use lb_common::{
    abi::{
        Counter, Lifetimes, ReachKind,
        flow_bits::{ANSWERED, PROVEN, REPLY},
    },
    path::Way::{self, Peer},
    wire::Protocol,
};

use super::{BACKEND, CLIENT, VIP, proven, web, web_by};
use crate::{
    case::{Case, case},
    family::Net,
    packet::{SEQUENCE, of, sctp, tcp, udp},
    state::{BLUE, BRIDGE, RED, on},
};

const TO: Way = Peer(BLUE.ifindex);
const BACK: Way = Peer(RED.ifindex);

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
        .pod(RED, tcp(CLIENT, VIP).syn())
        .opens(TO, BACKEND)
        .row(tcp(CLIENT, VIP), 0, 1)
        .row(tcp(BACKEND, CLIENT), REPLY, 1)
        .pod(BLUE, tcp(BACKEND, CLIENT).syn_ack())
        .reply(BACK, VIP, CLIENT)
        .row(tcp(CLIENT, VIP), ANSWERED, 1)
}

fn acknowledgement<F: Net>() -> Case<F> {
    asked("proof: TCP's client acknowledges what the backend sent")
        .pod(RED, tcp(CLIENT, VIP))
        .request(TO, BACKEND)
        .proves()
        .row(tcp(CLIENT, VIP), PROVEN | ANSWERED, 1)
        .row(tcp(BACKEND, CLIENT), PROVEN | REPLY | ANSWERED, 1)
        .pod(BLUE, tcp(BACKEND, CLIENT))
        .reply(BACK, VIP, CLIENT)
}

fn blind_acknowledgement<F: Net>() -> Case<F> {
    asked("proof: who has not heard the backend can't know what to acknowledge")
        .pod(RED, tcp(CLIENT, VIP).acknowledges(SEQUENCE.wrapping_add(1 << 31)))
        .request(TO, BACKEND)
        .row(tcp(CLIENT, VIP), ANSWERED, 1)
        .pod(RED, tcp(CLIENT, VIP).unacknowledged())
        .request(TO, BACKEND)
        .row(tcp(CLIENT, VIP), ANSWERED, 1)
}

fn far_ahead<F: Net>() -> Case<F> {
    let near = 1 << 20;
    asked("proof: as much as can be on its way at once")
        .pod(RED, tcp(CLIENT, VIP).acknowledges(SEQUENCE.wrapping_add(near)))
        .request(TO, BACKEND)
        .pod(RED, tcp(CLIENT, VIP).acknowledges(SEQUENCE.wrapping_sub(near + 1)))
        .request(TO, BACKEND)
        .row(tcp(CLIENT, VIP), ANSWERED, 1)
        .pod(RED, tcp(CLIENT, VIP).acknowledges(SEQUENCE.wrapping_sub(near)))
        .request(TO, BACKEND)
        .proves()
}

fn reset<F: Net>() -> Case<F> {
    asked("proof: a reset proves nothing").pod(RED, tcp(CLIENT, VIP).rst()).request(TO, BACKEND)
}

fn syn_again<F: Net>() -> Case<F> {
    asked("proof: nor does another SYN").pod(RED, tcp(CLIENT, VIP).syn()).request(TO, BACKEND)
}

fn second_datagram<F: Net>() -> Case<F> {
    case("proof: the second datagram after an answer", web())
        .pod(RED, udp(CLIENT, VIP))
        .opens(TO, BACKEND)
        .pod(BLUE, udp(BACKEND, CLIENT))
        .reply(BACK, VIP, CLIENT)
        .pod(BLUE, udp(BACKEND, CLIENT))
        .reply(BACK, VIP, CLIENT)
        .row(udp(CLIENT, VIP), ANSWERED, 1)
        .pod(RED, udp(CLIENT, VIP))
        .request(TO, BACKEND)
        .proves()
        .row(udp(BACKEND, CLIENT), PROVEN | REPLY | ANSWERED, 1)
}

fn two_datagrams_without_an_answer<F: Net>() -> Case<F> {
    case("proof: datagrams without an answer prove nothing", web())
        .pod(RED, udp(CLIENT, VIP))
        .opens(TO, BACKEND)
        .pod(RED, udp(CLIENT, VIP))
        .request(TO, BACKEND)
        .pod(RED, udp(CLIENT, VIP))
        .request(TO, BACKEND)
        .row(udp(CLIENT, VIP), 0, 1)
}

fn half_open<F: Net>() -> Case<F> {
    let life = Lifetimes::SECONDS.tcp_unanswered;
    asked("a connection that its client does not confirm lives as long as one without an answer")
        .wait(life)
        .pod(BLUE, tcp(BACKEND, CLIENT).syn_ack())
        .reply(BACK, VIP, CLIENT)
        .wait(life + 1)
        .pod(BLUE, tcp(BACKEND, CLIENT).syn_ack())
        .passes(Counter::NotOurs)
}

fn one_answer<F: Net>() -> Case<F> {
    let life = Lifetimes::SECONDS.udp_answered;
    case("a question with one answer lives as long as any that was answered", web())
        .pod(RED, udp(CLIENT, VIP))
        .opens(TO, BACKEND)
        .pod(BLUE, udp(BACKEND, CLIENT))
        .reply(BACK, VIP, CLIENT)
        .wait(life)
        .pod(BLUE, udp(BACKEND, CLIENT))
        .reply(BACK, VIP, CLIENT)
}

fn mid_stream<F: Net>() -> Case<F> {
    case("proof: a connection that is found in its middle", web())
        .pod(RED, tcp(CLIENT, VIP))
        .opens(TO, BACKEND)
        .pod(RED, tcp(CLIENT, VIP))
        .request(TO, BACKEND)
        .pod(BLUE, tcp(BACKEND, CLIENT))
        .reply(BACK, VIP, CLIENT)
        .pod(RED, tcp(CLIENT, VIP))
        .request(TO, BACKEND)
        .proves()
}

fn used_again<F: Net>() -> Case<F> {
    proven(
        "a port used again after a reset: the rows stay where they are and begin anew",
        web(),
        Protocol::Tcp,
    )
    .pod(BLUE, tcp(BACKEND, CLIENT).rst())
    .reply(BACK, VIP, CLIENT)
    .pod(RED, tcp(CLIENT, VIP).syn())
    .opens(TO, BACKEND)
    .row(tcp(CLIENT, VIP), PROVEN, 1)
    .row(tcp(BACKEND, CLIENT), PROVEN | REPLY, 1)
}

fn begins_anew<F: Net>() -> Case<F> {
    proven("a port used again whose reply row is lost: proven once more", web(), Protocol::Tcp)
        .pod(BLUE, tcp(BACKEND, CLIENT).rst())
        .reply(BACK, VIP, CLIENT)
        .loses(tcp(BACKEND, CLIENT))
        .pod(RED, tcp(CLIENT, VIP).syn())
        .opens(TO, BACKEND)
        .row(tcp(CLIENT, VIP), 0, 1)
        .pod(BLUE, tcp(BACKEND, CLIENT).syn_ack())
        .reply(BACK, VIP, CLIENT)
        .pod(RED, tcp(CLIENT, VIP))
        .request(TO, BACKEND)
        .proves()
}

fn sctp_over_the_bridge<F: Net>() -> Case<F> {
    let at = "10.244.1.3:80";
    case("proof: SCTP, to a backend over the bridge", {
        let state = web_by(at, BRIDGE.zone, BLUE.reached(ReachKind::Bridge));
        state.service(1, &[(Protocol::Sctp, VIP)], &[1])
    })
    .on(on(BRIDGE, ReachKind::Bridge))
    .pod(RED, sctp(CLIENT, VIP))
    .opens(Way::Continue, at)
    .pod(BLUE, of(Protocol::Sctp, at, CLIENT))
    .reply(Way::Continue, VIP, CLIENT)
    .pod(RED, sctp(CLIENT, VIP))
    .request(Way::Continue, at)
    .proves()
}
