//! Fragments: all go where the first one went, or nowhere.

use lb_common::{
    abi::{BackendState, Counter, FragmentRow, NextHopKind, ZONE_OF_CLIENT},
    path::{
        Egress::{Continue, Peer},
        Hook,
    },
    wire::Protocol::{Tcp, Udp},
};

use crate::{
    case::{Case, case},
    family::Net,
    packet::{Wire, of, tcp, udp},
    state::{BLUE, BRIDGE, GREEN, ORANGE, RED, State, among_several, host_process, on},
    world::{BACKEND, CLIENT, OTHER_VIP, SPARE, VIP, web, web_by},
};

pub fn cases<F: Net>() -> Vec<Case<F>> {
    let mut cases = vec![
        last_bytes(),
        overtaken(),
        shuffled(),
        side_by_side(),
        identification_again(),
        unfinished_and_again(),
        too_late(),
        replies(),
        replies_by_another_bridge(),
        hairpin(),
        at_egress(),
        from_outside(),
        foreign(),
        moved(),
        spoofed(),
        refused(),
        too_short(),
        no_checksum(),
        with_headers(),
    ];
    cases.extend([Tcp, Udp].map(|protocol| {
        let name = format!("fragments in order: {protocol:?}");
        in_order(case(name, owned()), of(protocol, CLIENT, VIP).says(&[0x5a; 3000]))
    }));
    cases
}

/// Two services, all of whose addresses is theirs.
fn owned<F: Net>() -> State<F> {
    web().owned(VIP).service(2, &[(Tcp, OTHER_VIP), (Udp, OTHER_VIP)], &[2]).owned(OTHER_VIP).backend(
        2,
        2,
        SPARE,
        BRIDGE.zone,
        GREEN.reached(NextHopKind::Peer),
    )
}

fn datagram() -> Wire {
    udp(CLIENT, VIP).says(&[0xa5; 3000])
}

const FIRST: (usize, usize) = (0, 1480);
const SECOND: (usize, usize) = (1480, 2960);
const LAST: (usize, usize) = (2960, 9999);

fn piece(of: &Wire, id: u16, (from, to): (usize, usize)) -> Wire {
    of.clone().piece(id, from, to)
}

fn in_order<F: Net>(case: Case<F>, whole: Wire) -> Case<F> {
    case.begins(piece(&whole, 7, FIRST))
        .asks(piece(&whole, 7, SECOND))
        .asks(piece(&whole, 7, LAST))
        // All bytes were seen.
        .pod(RED, piece(&whole, 7, SECOND))
        .drops(Counter::FragmentLost)
}

fn last_bytes<F: Net>() -> Case<F> {
    (1..9).fold(case("the last fragment has a byte or a few", owned()), |case, bytes| {
        let whole = udp(CLIENT, VIP).says(&vec![0xa5; 1472 + bytes]);
        let case = case.pod(RED, piece(&whole, 7, FIRST));
        let case = if bytes == 1 {
            case.opens(Peer(BLUE.ifindex), BACKEND)
        } else {
            case.request(Peer(BLUE.ifindex), BACKEND)
        };
        case.asks(piece(&whole, 7, (1480, 9999)))
    })
}

fn overtaken<F: Net>() -> Case<F> {
    let case = case("what overtakes the first fragment is dropped", owned())
        .pod(RED, piece(&datagram(), 7, LAST))
        .drops(Counter::FragmentLost);
    let case = case.pod(RED, piece(&datagram(), 7, SECOND)).drops(Counter::FragmentLost);
    in_order(case, datagram())
}

fn shuffled<F: Net>() -> Case<F> {
    case("the last fragment before the one in the middle", owned())
        .begins(piece(&datagram(), 7, FIRST))
        .asks(piece(&datagram(), 7, LAST))
        .asks(piece(&datagram(), 7, SECOND))
        .pod(RED, piece(&datagram(), 7, LAST))
        .drops(Counter::FragmentLost)
}

fn side_by_side<F: Net>() -> Case<F> {
    let other = udp(CLIENT, OTHER_VIP).says(&[0x5a; 3000]);
    let same = udp("10.244.1.2:40001", VIP).says(&[0x11; 3000]);
    case("fragments of several packets at once", owned())
        .begins(piece(&datagram(), 7, FIRST))
        .pod(RED, piece(&other, 7, FIRST))
        .opens(Peer(GREEN.ifindex), SPARE)
        .begins(piece(&same, 8, FIRST))
        .pod(RED, piece(&other, 7, SECOND))
        .request(Peer(GREEN.ifindex), SPARE)
        .asks(piece(&same, 8, SECOND))
        .asks(piece(&datagram(), 7, SECOND))
        // Of a packet that nobody has begun.
        .pod(RED, piece(&datagram(), 9, SECOND))
        .drops(Counter::FragmentLost)
}

fn identification_again<F: Net>() -> Case<F> {
    let case = in_order(case("an identification is used again", owned()), datagram());
    let next = udp("10.244.1.2:40001", VIP).says(&[0x11; 3000]);
    in_order(case.pod(RED, piece(&next, 7, LAST)).drops(Counter::FragmentLost), next)
}

fn unfinished_and_again<F: Net>() -> Case<F> {
    let case = case("an identification is used again although its packet was never whole", owned())
        .begins(piece(&datagram(), 7, FIRST));
    in_order(case, udp("10.244.1.2:40001", VIP).says(&[0x11; 3000]))
}

fn too_late<F: Net>() -> Case<F> {
    case("a fragment long after the others", owned())
        .begins(piece(&datagram(), 7, FIRST))
        .wait(FragmentRow::LIFETIME)
        .asks(piece(&datagram(), 7, SECOND))
        .wait(FragmentRow::LIFETIME + 1)
        .pod(RED, piece(&datagram(), 7, LAST))
        .drops(Counter::FragmentLost)
}

fn replies<F: Net>() -> Case<F> {
    let answer = udp(BACKEND, CLIENT).says(&[0x77; 3000]);
    case("replies in fragments", owned())
        .pod(BLUE, piece(&answer, 7, SECOND))
        .passes(Counter::Fragment)
        .begins(udp(CLIENT, VIP))
        .answers(piece(&answer, 7, FIRST))
        .answers(piece(&answer, 7, SECOND))
        .answers(piece(&answer, 7, LAST))
}

/// Blue is on both bridges: it has orange's port, too.
fn replies_by_another_bridge<F: Net>() -> Case<F> {
    let answer = udp(BACKEND, CLIENT).says(&[0x77; 3000]);
    let case = case("replies in fragments by another bridge", owned().other_port(BLUE, ORANGE.ifindex))
        .on(among_several(on(BRIDGE, NextHopKind::Peer)))
        .begins(udp(CLIENT, VIP));
    [FIRST, SECOND, LAST].into_iter().fold(case, |case, which| {
        case.pod(ORANGE, piece(&answer, 7, which)).reply(Peer(RED.ifindex), VIP, CLIENT)
    })
}

fn hairpin<F: Net>() -> Case<F> {
    let own = udp("10.244.1.3:40000", VIP).says(&[0xa5; 3000]);
    let changed = |packet: Wire| packet.source("10.96.0.10:40000");
    case("fragments of a pod that is chosen itself", owned())
        .pod(BLUE, piece(&own, 7, FIRST))
        .opens(Peer(BLUE.ifindex), BACKEND)
        .but(changed)
        .pod(BLUE, piece(&own, 7, LAST))
        .request(Peer(BLUE.ifindex), BACKEND)
        .but(changed)
}

fn at_egress<F: Net>() -> Case<F> {
    const API: &str = "10.244.1.1:6443";
    let answer = udp(API, CLIENT).says(&[0x77; 3000]).link_to(CLIENT);
    case("fragments that leave the host: replies of its processes only", {
        web_by(API, ZONE_OF_CLIENT, host_process()).owned(VIP)
    })
    .pod(RED, piece(&datagram(), 7, FIRST))
    .opens(Continue, API)
    .pod(RED, piece(&datagram(), 7, LAST))
    .request(Continue, API)
    .send(Hook::BridgeEgress, BRIDGE.ifindex, piece(&answer, 9, FIRST))
    .reply(Continue, VIP, CLIENT)
    .send(Hook::BridgeEgress, BRIDGE.ifindex, piece(&answer, 9, LAST))
    .reply(Continue, VIP, CLIENT)
    .send(Hook::BridgeEgress, BRIDGE.ifindex, piece(&datagram(), 8, FIRST))
    .passes(Counter::WrongHook)
    .send(Hook::BridgeEgress, BRIDGE.ifindex, piece(&datagram(), 8, LAST))
    .passes(Counter::Fragment)
}

fn from_outside<F: Net>() -> Case<F> {
    let whole = udp("192.0.2.7:5555", VIP).says(&[0xa5; 3000]);
    case("fragments from outside lose a hop each", owned())
        .outside(piece(&whole, 7, FIRST))
        .opens(Peer(BLUE.ifindex), BACKEND)
        .outside(piece(&whole, 7, SECOND))
        .request(Peer(BLUE.ifindex), BACKEND)
}

fn foreign<F: Net>() -> Case<F> {
    let pods = udp(CLIENT, "10.244.1.4:8080").says(&[0xa5; 3000]);
    let host = udp(CLIENT, "10.96.0.10:81").says(&[0xa5; 3000]);
    case("fragments that may be anybody's are left alone", web())
        .pod(RED, piece(&pods, 7, FIRST))
        .passes(Counter::NotOurs)
        .pod(RED, piece(&pods, 7, SECOND))
        .passes(Counter::Fragment)
        // An address that is the host's own, too.
        .pod(RED, piece(&host, 8, FIRST))
        .passes(Counter::NoFrontend)
        .pod(RED, piece(&host, 8, LAST))
        .passes(Counter::Fragment)
        .pod(RED, piece(&datagram(), 9, LAST))
        .passes(Counter::Fragment)
}

fn moved<F: Net>() -> Case<F> {
    const SECOND_BACKEND: &str = "10.244.1.4:9090";
    case("a flow moves while a packet of it is on its way", {
        web().owned(VIP).backend(3, 1, SECOND_BACKEND, BRIDGE.zone, GREEN.reached(NextHopKind::Peer))
    })
    .begins(piece(&datagram(), 7, FIRST))
    .change(|state| {
        *state = std::mem::take(state).service(1, &[], &[3]);
        state.set_state(1, BackendState::Removed);
    })
    .asks(piece(&datagram(), 7, SECOND))
    .pod(RED, udp(CLIENT, VIP))
    .opens(Peer(GREEN.ifindex), SECOND_BACKEND)
    .pod(RED, piece(&datagram(), 7, LAST))
    .drops(Counter::FragmentLost)
}

fn spoofed<F: Net>() -> Case<F> {
    let whole = datagram();
    case("fragments: one in another's name", owned().home(RED))
        .begins(piece(&whole, 7, FIRST))
        .pod(GREEN, piece(&whole, 7, LAST))
        .drops(Counter::SpoofedSource)
        // Its bytes do not count.
        .asks(piece(&whole, 7, LAST))
        .asks(piece(&whole, 7, SECOND))
        .pod(RED, piece(&whole, 7, SECOND))
        .drops(Counter::FragmentLost)
}

fn refused<F: Net>() -> Case<F> {
    case("no backend: the first fragment is refused, the others are dropped", {
        State::default().service(1, &[(Udp, VIP)], &[]).owned(VIP)
    })
    .pod(RED, piece(&datagram(), 7, FIRST))
    .rejects(Counter::NoBackend)
    .pod(RED, piece(&datagram(), 7, SECOND))
    .drops(Counter::FragmentLost)
}

fn too_short<F: Net>() -> Case<F> {
    case("a first fragment without a whole transport header", owned())
        .pod(RED, piece(&tcp(CLIENT, VIP).says(&[0; 100]), 7, (0, 8)))
        .passes(Counter::Truncated)
        .pod(RED, piece(&tcp(CLIENT, VIP).says(&[0; 100]), 7, (0, 16)))
        .passes(Counter::Truncated)
        .begins(piece(&tcp(CLIENT, VIP).says(&[0; 100]), 7, (0, 24)))
        .begins(piece(&udp(CLIENT, VIP).says(&[0; 100]), 7, (0, 8)))
}

fn no_checksum<F: Net>() -> Case<F> {
    in_order(case("fragments of UDP without a checksum", owned()), datagram().no_checksum())
}

/// Of a packet with IPv4 options, or IPv6 destination options in its first fragment.
fn with_headers<F: Net>() -> Case<F> {
    let whole = if F::TRANSPORT == 34 {
        datagram().options(12)
    } else {
        datagram().extensions(&[(60, vec![0, 1, 4, 0, 0, 0, 0])])
    };
    in_order(case("fragments of a packet with other headers", owned()), whole)
}
