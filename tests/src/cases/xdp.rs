//! What XDP finishes at an uplink, with the link header that it gives, and what it leaves to tc as it was.

use lb_common::{
    abi::{
        BackendState, Counter, FrontendKind, Mac, ReachKind, ReachRow, Settings, ZONE_UPLINK,
        flow_bits::{ANSWERED, PROVEN, REPLY},
    },
    path::{
        Hook,
        Way::{self, Egress, Peer},
    },
    wire::Protocol::{self, Sctp, Tcp, Udp},
};

use super::{BACKEND, VIP, refused::with_cidr, web_by};
use crate::{
    case::{Case, case},
    family::{Net, socket},
    packet::{Wire, echo, of, sctp, tcp, udp},
    state::{BLUE, BRIDGE, NARROW, ROUTER, State, UPLINK, on_uplink, outside},
};

/// A client in the LAN.
const FAR: &str = "192.168.1.100:40000";
/// Another router there.
const OTHER_ROUTER: &str = "192.168.1.2:0";
/// A backend on another node.
const REMOTE: &str = "10.244.9.9:8080";
/// The node; its uplink has the MAC of [`BRIDGE`] in all cases.
const NODE: &str = "192.168.1.11:0";
/// Back where it came from.
const TURN: Way = Egress(UPLINK);
const FIRST: u32 = 10_000;
const PORTS: u32 = 4;

pub fn cases<F: Net>() -> Vec<Case<F>> {
    let mut cases = vec![
        own_source(),
        sctp_flow(),
        no_checksum(),
        both_hooks(),
        other_router(),
        next_hop_unknown(),
        other_device(),
        local_backend(),
        for_somebody_else(),
        hops(),
        too_big(),
        not_plain(),
        replies_of_tc(),
        refused(),
        gone(),
        dropped(),
        no_port_left(),
        messages(),
        foreign(),
    ];
    for protocol in [Tcp, Udp] {
        cases.push(exchange(protocol));
    }
    cases
}

fn settings<F: Net>() -> Settings {
    let mut settings = Settings { snat_first: FIRST, snat_ports: PORTS, ..on_uplink() };
    F::set_host(&mut settings, *socket(NODE).ip());
    settings
}

fn remote<F: Net>() -> State<F> {
    web_by(REMOTE, ZONE_UPLINK, outside())
}

/// What the first client is to its backend.
const SHOWN: &str = "192.168.1.11:10000";

fn at_xdp<F: Net>(case: Case<F>, packet: Wire) -> Case<F> {
    case.send(Hook::UplinkXdp, UPLINK, packet)
}

fn on_tc<F: Net>(case: Case<F>, packet: Wire) -> Case<F> {
    case.send(Hook::UplinkIngress, UPLINK, packet)
}

/// Routed from the uplink to a next hop.
fn turned(packet: Wire, to: &str) -> Wire {
    packet.routed().link_from(BRIDGE.at).link_to(to)
}

/// A request as it leaves, with a port of the node's.
fn requested(packet: &Wire) -> Wire {
    turned(packet.clone().source(SHOWN).destination(REMOTE), ROUTER)
}

fn opens<F: Net>(case: Case<F>, packet: Wire) -> Case<F> {
    at_xdp(case, packet.clone()).opens(TURN, REMOTE).but(|_| requested(&packet))
}

fn asks<F: Net>(case: Case<F>, packet: Wire) -> Case<F> {
    at_xdp(case, packet.clone()).request(TURN, REMOTE).but(|_| requested(&packet))
}

fn answers<F: Net>(case: Case<F>, packet: Wire, link: &str) -> Case<F> {
    at_xdp(case, packet.clone())
        .reply(TURN, VIP, FAR)
        .but(|_| turned(packet.source(VIP).destination(FAR), link))
}

fn begins(protocol: Protocol) -> Wire {
    if protocol == Tcp { tcp(FAR, VIP).syn() } else { of(protocol, FAR, VIP) }
}

fn answered<F: Net>(name: impl Into<String>, protocol: Protocol) -> Case<F> {
    let case = opens(case(name, remote()).on(settings::<F>()), begins(protocol));
    answers(case, of(protocol, REMOTE, SHOWN), FAR)
}

fn proven<F: Net>(name: impl Into<String>, protocol: Protocol) -> Case<F> {
    asks(answered(name, protocol), of(protocol, FAR, VIP)).proves()
}

fn exchange<F: Net>(protocol: Protocol) -> Case<F> {
    let case = proven(format!("xdp: there and back, {protocol:?}"), protocol)
        .row(of(protocol, FAR, VIP), PROVEN | ANSWERED, 1)
        .row(of(protocol, REMOTE, SHOWN), PROVEN | REPLY | ANSWERED, 1);
    let case = answers(asks(case, of(protocol, FAR, VIP)), of(protocol, REMOTE, SHOWN), FAR);
    // In another tick, and what brings the flow further.
    let case = answers(asks(case.wait(1), of(protocol, FAR, VIP)), of(protocol, REMOTE, SHOWN), FAR);
    let case = answers(case.wait(1), of(protocol, REMOTE, SHOWN), FAR);
    if protocol == Udp {
        return case;
    }
    let case = asks(case, tcp(FAR, VIP).fin());
    let case = answers(case, tcp(REMOTE, SHOWN).fin(), FAR);
    asks(case, tcp(FAR, VIP).rst())
}

fn own_source<F: Net>() -> Case<F> {
    let packet = udp(FAR, VIP);
    let becomes = turned(udp(FAR, REMOTE), ROUTER).link_from(BRIDGE.at);
    let case = case("xdp: no ports to lend, the source stays", remote());
    let case = case.on(Settings { snat_ports: 0, ..settings::<F>() });
    at_xdp(case, packet).opens(TURN, REMOTE).but(|_| becomes)
}

fn sctp_flow<F: Net>() -> Case<F> {
    const AT: &str = "10.244.9.9:80";
    let state = State::default().service(1, &[(Sctp, VIP)], &[1]).backend(1, 1, AT, ZONE_UPLINK, outside());
    let case = case("xdp: SCTP, which keeps its port", state).on(settings::<F>());
    let becomes = |to| turned(sctp("192.168.1.11:40000", AT), to);
    let case = at_xdp(case, sctp(FAR, VIP)).opens(TURN, AT).but(|_| becomes(ROUTER));
    at_xdp(case, sctp(AT, "192.168.1.11:40000")).reply(TURN, VIP, FAR).but(|_| turned(sctp(VIP, FAR), FAR))
}

/// RFC 768; IPv6 knows no such thing (RFC 8200), but it is left as it is there, too.
fn no_checksum<F: Net>() -> Case<F> {
    let packet = udp(FAR, VIP).no_checksum();
    let case = case("xdp: a datagram without a checksum stays so", remote()).on(settings::<F>());
    opens(case, packet)
}

fn both_hooks<F: Net>() -> Case<F> {
    let case = case("xdp: a flow that tc began goes on, and the other way round", remote());
    let case = on_tc(case.on(settings::<F>()), begins(Tcp))
        .opens(Way::Neighbour(UPLINK), REMOTE)
        .but(|packet| packet.source(SHOWN).routed().link_to(BRIDGE.at));
    let case = answers(case, tcp(REMOTE, SHOWN), FAR);
    let case = asks(case, tcp(FAR, VIP)).proves();
    let case = on_tc(case, tcp(FAR, VIP))
        .request(Way::Neighbour(UPLINK), REMOTE)
        .but(|packet| packet.source(SHOWN).routed().link_to(BRIDGE.at));
    answers(case, tcp(REMOTE, SHOWN), FAR)
}

fn other_router<F: Net>() -> Case<F> {
    let case = proven("xdp: replies go where requests come from by now", Tcp);
    let case = asks(case.wait(1), tcp(FAR, VIP).link_from(OTHER_ROUTER));
    answers(case, tcp(REMOTE, SHOWN), OTHER_ROUTER)
}

/// Left to tc, which makes a flow of it; XDP does not.
fn left<F: Net>(name: &str, state: State<F>, packet: Wire) -> Case<F> {
    at_xdp(case(name, state).on(settings::<F>()), packet.clone()).no_row(packet)
}

fn next_hop_unknown<F: Net>() -> Case<F> {
    let unknown = ReachRow { mac: Mac::default(), ..outside() };
    let packet = udp(FAR, VIP);
    let case = left(
        "xdp: nobody knows the next hop's MAC yet",
        web_by(REMOTE, ZONE_UPLINK, unknown),
        packet.clone(),
    );
    let case = on_tc(case, packet.clone())
        .opens(Way::Neighbour(UPLINK), REMOTE)
        .but(|packet| packet.source(SHOWN).routed().link_to(BRIDGE.at));
    // Of its flow neither.
    at_xdp(case, packet)
}

fn other_device<F: Net>() -> Case<F> {
    let state = web_by(REMOTE, ZONE_UPLINK, ReachRow { ifindex: BRIDGE.ifindex, ..outside() });
    left("xdp: the backend is behind another device", state, udp(FAR, VIP))
}

fn local_backend<F: Net>() -> Case<F> {
    let state = web_by(BACKEND, BRIDGE.zone, BLUE.reached(ReachKind::Peer));
    let case = left("xdp: the backend is on this node", state, tcp(FAR, VIP).syn());
    let case = on_tc(case, tcp(FAR, VIP).syn()).opens(Peer(BLUE.ifindex), BACKEND).but(Wire::routed);
    at_xdp(case, tcp(FAR, VIP))
}

fn for_somebody_else<F: Net>() -> Case<F> {
    left("xdp: a frame that is another device's", remote(), udp(FAR, VIP).link_to(OTHER_ROUTER))
}

fn hops<F: Net>() -> Case<F> {
    let case = left("xdp: a packet at the end of its hops", remote(), tcp(FAR, VIP).syn().hops(1));
    let case = opens(case, begins(Tcp).hops(2));
    let case = at_xdp(case, tcp(FAR, VIP).hops(1));
    let case = at_xdp(case, tcp(REMOTE, SHOWN).hops(1));
    answers(case, tcp(REMOTE, SHOWN).hops(2), FAR)
}

fn too_big<F: Net>() -> Case<F> {
    let filling = |size: u32| vec![0xa5; size as usize - (F::TRANSPORT - 14) - 8];
    let (most, more) = (udp(FAR, VIP).says(&filling(NARROW)), udp(FAR, VIP).says(&filling(NARROW + 1)));
    let case = case("xdp: a packet larger than the device takes", remote());
    let case = case.on(Settings { mtu_floor: NARROW - 100, ..settings::<F>() });
    opens(at_xdp(case, more.clone()).no_row(more.clone()), most).send(Hook::UplinkXdp, UPLINK, more)
}

fn not_plain<F: Net>() -> Case<F> {
    let packet = || udp(FAR, VIP).says(&[0x5a; 64]);
    let case = opens(case("xdp: what is not plain and whole", remote()).on(settings::<F>()), udp(FAR, VIP));
    let case = at_xdp(case, packet().piece(7, 0, 32));
    let case = at_xdp(case, packet().piece(7, 32, 72));
    let case = at_xdp(case, packet().tagged(5));
    let case = at_xdp(case, packet().cut(40));
    if F::TRANSPORT == 34 {
        at_xdp(case, packet().options(8))
    } else {
        at_xdp(case, packet().extensions(&[(60, vec![0; 7])]))
    }
}

fn replies_of_tc<F: Net>() -> Case<F> {
    let case = case("xdp: replies to clients that are shown as they are", remote());
    let case = case.on(Settings { snat_ports: 0, ..settings::<F>() });
    let case =
        at_xdp(case, tcp(FAR, VIP).syn()).opens(TURN, REMOTE).but(|_| turned(tcp(FAR, REMOTE).syn(), ROUTER));
    let case = at_xdp(case, tcp(REMOTE, FAR).syn_ack());
    on_tc(case, tcp(REMOTE, FAR).syn_ack())
        .reply(Way::Neighbour(UPLINK), VIP, FAR)
        .but(|_| tcp(REMOTE, FAR).syn_ack().source(VIP).routed())
}

fn refused<F: Net>() -> Case<F> {
    let nobody = State::default().service(1, &[(Tcp, VIP), (Udp, VIP), (Sctp, VIP)], &[]).owned(VIP);
    [
        tcp(FAR, VIP).syn(),
        tcp(FAR, VIP).says(b"an odd number of bytes!").padded(3),
        tcp(FAR, VIP).says(&[0x5a; 1400]),
        udp(FAR, VIP),
        udp(FAR, VIP).says(b""),
        udp(FAR, VIP).says(&[0xa5; 1400]).hops(1),
        sctp(FAR, VIP),
    ]
    .into_iter()
    .fold(case("xdp: refused at once", nobody).on(settings::<F>()), |case, packet| {
        at_xdp(case, packet).rejects(Counter::NoBackend)
    })
    .send(Hook::UplinkXdp, UPLINK, udp(FAR, "10.96.0.10:81"))
    .rejects(Counter::NoPort)
    .send(Hook::UplinkXdp, UPLINK, tcp(FAR, VIP).rst())
    .drops(Counter::NoBackend)
    // Who is asked is not to be told of as whom everybody is.
    .send(Hook::UplinkXdp, UPLINK, udp(FAR, VIP).frame_bytes(0, &[0xff; 6]))
}

fn gone<F: Net>() -> Case<F> {
    let case = proven("xdp: a flow whose backend was removed ends with a reset, if it is to", Tcp)
        .change(|state| state.set_state(1, BackendState::Removed));
    let case = asks(case, tcp(FAR, VIP));
    let case = case.change(|state| state.set_state(1, BackendState::Reset));
    at_xdp(case, tcp(FAR, VIP)).rejects(Counter::BackendGone)
}

fn dropped<F: Net>() -> Case<F> {
    const LB: &str = "10.96.7.7:80";
    let state =
        remote().frontend(1, FrontendKind::LoadBalancer, Udp, LB).source_ranges(1, &[("10.0.0.0:0", 8)]);
    let case = case("xdp: dropped early", state).on(with_cidr(settings::<F>()));
    let case = at_xdp(case, udp(FAR, LB)).drops(Counter::SourceRange);
    at_xdp(case, udp(FAR, "10.96.0.99:80")).drops(Counter::Unowned)
}

fn no_port_left<F: Net>() -> Case<F> {
    const FAR2: &str = "192.168.1.101:40000";
    const AT: &str = "10.244.9.9:80";
    let state = State::default().service(1, &[(Sctp, VIP)], &[1]).backend(1, 1, AT, ZONE_UPLINK, outside());
    let case = case("xdp: no port left to lend", state).on(settings::<F>());
    let case =
        at_xdp(case, sctp(FAR, VIP)).opens(TURN, AT).but(|_| turned(sctp("192.168.1.11:40000", AT), ROUTER));
    at_xdp(case, sctp(FAR2, VIP)).drops(Counter::Clash)
}

fn messages<F: Net>() -> Case<F> {
    let case = answered("xdp: messages: an echo is answered, errors are tc's", Udp)
        .change(|state| *state = std::mem::take(state).owned(VIP));
    let case = at_xdp(case, echo(FAR, VIP)).echoes();
    let case = at_xdp(case, echo(FAR, VIP).frame_bytes(0, &[0xff; 6]));
    let case = at_xdp(case, echo(FAR, "192.168.1.11:0"));
    at_xdp(case, udp(SHOWN, REMOTE).unreachable_from(REMOTE))
}

fn foreign<F: Net>() -> Case<F> {
    let case = case("xdp: the host's own traffic", remote()).on(settings::<F>());
    let case = at_xdp(case, tcp(REMOTE, "192.168.1.11:10001"));
    let case = at_xdp(case, tcp(FAR, "192.168.1.11:22").syn());
    at_xdp(case, udp(FAR, "192.168.1.255:5353"))
}
