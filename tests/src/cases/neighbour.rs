//! Who has the address of a service that lies in the bridge's own subnet? Read as ARP and as Neighbor
//! Discovery.

use lb_common::{
    abi::{Counter, NextHopKind, ZONE_UPLINK},
    family::{Family as _, V4},
    path::Hook,
};

use crate::{
    case::{Case, case},
    family::Net,
    packet::{Wire, is_at, who_has},
    state::{BRIDGE, Bridge, ORANGE, OTHER_BRIDGE, RED, State, UPLINK, on},
    world::{CLIENT, VIP, web},
};

/// In the subnet of [`BRIDGE`].
const INSIDE: &str = "10.244.1.200:0";
/// Nobody's address.
const NOBODY: &str = "0.0.0.0:0";

pub fn cases<F: Net>() -> Vec<Case<F>> {
    let both = vec![asked(), taken(), others(), zones(), hooks(), outside(), not_asked(), lengths()];
    let own = if is_ipv4::<F>() { arp() } else { discovery() };
    both.into_iter().chain([own]).collect()
}

fn is_ipv4<F: Net>() -> bool {
    F::ETHERTYPE == V4::ETHERTYPE
}

fn inside<F: Net>() -> State<F> {
    web().answer(INSIDE, BRIDGE)
}

/// What is counted of a message that is not for us.
fn not_ours<F: Net>() -> Counter {
    if is_ipv4::<F>() { Counter::NotOurs } else { Counter::Protocol }
}

fn left_alone<F: Net>(case: Case<F>, messages: impl IntoIterator<Item = Wire>) -> Case<F> {
    messages.into_iter().fold(case, |case, message| case.pod(RED, message).passes(not_ours::<F>()))
}

fn asked<F: Net>() -> Case<F> {
    case("who asks for an address of a service is told the bridge's MAC", inside())
        .pod(RED, who_has(INSIDE, RED.at))
        .answered(is_at(INSIDE, BRIDGE.at, RED.at))
        // Who knows it, and asks whether it is still so.
        .pod(RED, who_has(INSIDE, RED.at).link_to(BRIDGE.at))
        .answered(is_at(INSIDE, BRIDGE.at, RED.at))
}

fn taken<F: Net>() -> Case<F> {
    case("who wants to take an address of a service is told that it is taken", inside())
        .pod(RED, who_has(INSIDE, NOBODY).link_from(RED.at))
        .answered(is_at(INSIDE, BRIDGE.at, NOBODY).link_to(RED.at))
}

fn others<F: Net>() -> Case<F> {
    // A pod's, the bridge's, nobody's, and a service's outside the subnet.
    let addresses = ["10.244.1.3:0", BRIDGE.at, "10.244.1.201:0", VIP];
    left_alone(
        case("other addresses are not answered for", inside()),
        addresses.map(|at| who_has(at, RED.at)),
    )
}

fn zones<F: Net>() -> Case<F> {
    let state = inside().answer("10.244.2.200:0", OTHER_BRIDGE);
    case("a bridge answers on its own link alone", state)
        .pod(RED, who_has("10.244.2.200:0", RED.at))
        .passes(not_ours::<F>())
        .on(on(OTHER_BRIDGE, NextHopKind::Peer))
        .pod(ORANGE, who_has(INSIDE, ORANGE.at))
        .passes(not_ours::<F>())
        .pod(ORANGE, who_has("10.244.2.200:0", ORANGE.at))
        .answered(is_at("10.244.2.200:0", OTHER_BRIDGE.at, ORANGE.at))
}

fn hooks<F: Net>() -> Case<F> {
    let others = Hook::ALL.into_iter().filter(|hook| !hook.is_asked());
    others.fold(case("nobody is answered but at a port or from outside", inside()), |case, hook| {
        let case = case.send(hook, RED.ifindex, who_has(INSIDE, RED.at));
        // ARP is not even looked at there.
        if is_ipv4::<F>() { case } else { case.passes(Counter::Protocol) }
    })
}

fn outside<F: Net>() -> Case<F> {
    const VIP_OUTSIDE: &str = "192.168.1.200:0";
    const ROUTER: &str = "192.168.1.1:0";
    let uplink = Bridge { at: "192.168.1.11:0", ifindex: UPLINK, zone: ZONE_UPLINK };
    let state = inside().answer(VIP_OUTSIDE, uplink);
    [Hook::UplinkIngress, Hook::UplinkXdp].into_iter().fold(
        case("who asks outside is told the uplink's MAC", state),
        |case, hook| {
            let case = case
                .send(hook, UPLINK, who_has(VIP_OUTSIDE, ROUTER))
                .answered(is_at(VIP_OUTSIDE, uplink.at, ROUTER))
                .send(hook, UPLINK, who_has(INSIDE, ROUTER));
            if hook == Hook::UplinkXdp { case } else { case.passes(not_ours::<F>()) }
        },
    )
}

fn not_asked<F: Net>() -> Case<F> {
    let said = [is_at(INSIDE, RED.at, "10.244.1.3:0"), is_at(INSIDE, RED.at, NOBODY).link_to(RED.at)];
    left_alone(case("what is said of an address is no question", inside()), said)
}

fn lengths<F: Net>() -> Case<F> {
    let question = || who_has(INSIDE, RED.at);
    let answer = || is_at(INSIDE, BRIDGE.at, RED.at);
    // Frames have 60 bytes at least; ARP's padding stays.
    let case = case("padded and cut", inside());
    if is_ipv4::<F>() {
        return case
            .pod(RED, question().padded(18))
            .answered(answer().padded(18))
            .pod(RED, question().cut(41))
            .passes(Counter::Truncated);
    }
    // A nonce (RFC 7527), and no option at all.
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
    case.pod(RED, question().padded(20))
        .answered(answer())
        .pod(RED, question().says(&nonce))
        .answered(answer())
        .pod(RED, question().shortened(24))
        .answered(answer())
        .pod(RED, question().shortened(23))
        .passes(Counter::Protocol)
        .pod(RED, question().cut(77))
        .passes(Counter::Truncated)
}

fn arp<F: Net>() -> Case<F> {
    let at = |offset: usize, bytes: &[u8]| who_has(INSIDE, RED.at).frame_bytes(14 + offset, bytes);
    let announced = who_has(INSIDE, INSIDE).link_from(RED.at);
    let messages = [
        announced,
        // Not Ethernet, not IPv4, other lengths, RARP.
        at(0, &[0, 6]),
        at(2, &[0x86, 0xdd]),
        at(4, &[8, 4]),
        at(4, &[6, 16]),
        at(6, &[0, 3]),
        at(6, &[1, 0]),
    ];
    left_alone(case("ARP that is no question", inside()), messages)
}

fn discovery<F: Net>() -> Case<F> {
    let question = || who_has(INSIDE, RED.at);
    let messages = [
        // A router has passed it on; other types and codes; without an address, but not to the group.
        question().hops(254),
        question().transport_bytes(0, &[133]),
        question().transport_bytes(0, &[128]),
        question().transport_bytes(1, &[1]),
        who_has(INSIDE, NOBODY).link_from(RED.at).link_to(BRIDGE.at),
        crate::packet::other(58, CLIENT, INSIDE),
    ];
    left_alone(case("ICMPv6 that is no solicitation", inside()), messages)
}
