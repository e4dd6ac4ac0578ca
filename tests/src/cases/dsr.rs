//! DSR: clients outside whose backend is on another node, which gets their packets inside others; and that node.

use lb_common::{
    abi::{
        Counter, FrontendKind, Lifetimes, NextHopKind, ZONE_UPLINK,
        flow_bits::{ANSWERED, ASSURED, FIN_BACKEND, FIN_CLIENT, RESET},
        set_flags,
    },
    path::{
        Egress::{Continue, Device, Peer},
        Hook,
    },
    wire::Protocol::{self, Sctp, Tcp, Udp},
};

use crate::{
    case::{Case, case},
    family::Net,
    packet::{Complaint, Wire, first, of, other, sctp, tcp, udp},
    state::{BLUE, BRIDGE, GREEN, NARROW, RED, State, UPLINK, host_process, on_uplink, outside},
    world::{BACKEND, CLIENT, FAR, FAR_ROUTER, NODE, OTHER_NODE, OUT, REMOTE, VIP, on_node, remote, web_by},
};

pub fn cases<F: Net>() -> Vec<Case<F>> {
    let mut cases = vec![
        syn_again(),
        fin(),
        reset(),
        expires(),
        port_again(),
        over_a_bridge(),
        no_address(),
        local_backend(),
        pods_call(),
        sctp_goes_on(),
        hops(),
        too_big(),
        parts_too_big(),
        fragments(),
        more_headers(),
        padding(),
        error(),
        error_too_big(),
        other_hooks(),
        inside_not_local(),
        inside_of_no_flow(),
        inside_nobody_here(),
        inside_to_the_host(),
        inside_node_port(),
        inside_error(),
        inside_fragments(),
        inside_goes_on(),
        turned_too_big(),
        not_ours(),
        not_whole(),
    ];
    for protocol in [Tcp, Udp] {
        cases.extend([passed_on(protocol), turned(protocol), inside(protocol)]);
    }
    cases
}

/// Service 1 with the backend on the other node, which packets go to inside others.
fn encapsulated<F: Net>() -> State<F> {
    remote().on_node(1, OTHER_NODE)
}

/// Service 1 with a backend here and one on another node; slot by slot these.
fn both<F: Net>(slots: &[u32]) -> State<F> {
    State::default()
        .service(1, &[(Tcp, VIP), (Udp, VIP)], slots)
        .owned(VIP)
        .local(1, &[2])
        .set(1, |set| set.flags = set_flags::DSR)
        .backend(1, 1, REMOTE, ZONE_UPLINK, outside())
        .on_node(1, OTHER_NODE)
        .backend(2, 1, BACKEND, BRIDGE.zone, BLUE.reached(NextHopKind::Peer))
}

fn passed<F: Net>(case: Case<F>, packet: Wire) -> Case<F> {
    case.outside(packet.clone()).encapsulated(OUT, packet.routed().inside(NODE, OTHER_NODE))
}

fn opened<F: Net>(case: Case<F>, packet: Wire) -> Case<F> {
    passed(case, packet).also(Counter::NewFlow)
}

fn begun<F: Net>(name: impl Into<String>, protocol: Protocol) -> Case<F> {
    opened(case(name, encapsulated()).on(on_node::<F>()), first(protocol, FAR, VIP))
}

fn assured<F: Net>(name: impl Into<String>, protocol: Protocol) -> Case<F> {
    passed(begun(name, protocol), of(protocol, FAR, VIP)).assures()
}

fn passed_on<F: Net>(protocol: Protocol) -> Case<F> {
    let packet = || of(protocol, FAR, VIP);
    let case = begun(format!("dsr: passed on to the backend's node, {protocol:?}"), protocol)
        .row(packet(), 0, 1)
        .no_row(of(protocol, REMOTE, FAR));
    let case = passed(case, packet()).assures().row(packet(), ASSURED | ANSWERED, 1);
    passed(passed(case, packet()).wait(1), packet()).no_row(of(protocol, REMOTE, FAR))
}

fn turns<F: Net>(case: Case<F>, packet: Wire) -> Case<F> {
    passed(case, packet).xdp()
}

fn turned<F: Net>(protocol: Protocol) -> Case<F> {
    let packet = || of(protocol, FAR, VIP);
    let case = case(format!("dsr: passed on by XDP, {protocol:?}"), encapsulated()).on(on_node::<F>());
    let case = turns(case, first(protocol, FAR, VIP)).also(Counter::NewFlow).row(packet(), 0, 1);
    let case = turns(case, packet()).assures().row(packet(), ASSURED | ANSWERED, 1);
    // In the same tick, and in another one.
    let case = turns(turns(turns(case, packet()), packet()).wait(1), packet());
    // Either program goes on with what the other has begun.
    let case = turns(passed(case, packet()), packet());
    if protocol == Udp {
        return case;
    }
    let ended = ASSURED | ANSWERED | FIN_CLIENT | FIN_BACKEND;
    turns(case, tcp(FAR, VIP).fin()).row(packet(), ended, 1)
}

fn turned_too_big<F: Net>() -> Case<F> {
    let most = NARROW - (F::TRANSPORT - 14) as u32;
    let [fits, more] = [filling::<F>(most), filling::<F>(most + 1)].map(|says| udp(FAR, VIP).says(&says));
    let case = case("dsr: XDP leaves to tc what is too big with what is put around it", encapsulated());
    let case = turns(case.on(on_node::<F>()), fits.clone()).also(Counter::NewFlow);
    let case = turns(case, fits).assures().send(Hook::UplinkXdp, UPLINK, more.clone());
    case.outside(more).returns(Counter::TooBig, Complaint::TooBig(most), VIP).accounted()
}

fn syn_again<F: Net>() -> Case<F> {
    let case = begun("dsr: who sends one SYN after the other assures nothing", Tcp);
    let case = passed(case.wait(1), first(Tcp, FAR, VIP)).row(first(Tcp, FAR, VIP), 0, 1);
    let case = passed(case, tcp(FAR, VIP).unacknowledged()).row(first(Tcp, FAR, VIP), 0, 1);
    passed(case, tcp(FAR, VIP).rst()).row(first(Tcp, FAR, VIP), RESET, 1)
}

fn fin<F: Net>() -> Case<F> {
    let case = passed(assured("dsr: a client's FIN ends its flow", Tcp), tcp(FAR, VIP).fin());
    let ended = ASSURED | ANSWERED | FIN_CLIENT | FIN_BACKEND;
    let case = passed(case.row(tcp(FAR, VIP), ended, 1), tcp(FAR, VIP));
    opened(case.row(tcp(FAR, VIP), ended, 1), first(Tcp, FAR, VIP)).row(tcp(FAR, VIP), 0, 1)
}

fn reset<F: Net>() -> Case<F> {
    let case = passed(assured("dsr: a client's RST ends its flow", Tcp), tcp(FAR, VIP).rst());
    opened(case.row(tcp(FAR, VIP), ASSURED | ANSWERED | RESET, 1), first(Tcp, FAR, VIP)).row(
        tcp(FAR, VIP),
        0,
        1,
    )
}

fn expires<F: Net>() -> Case<F> {
    let case = assured("dsr: a flow is kept as long as one with answers", Udp);
    let case = passed(case.wait(Lifetimes::SECONDS.udp_answered), udp(FAR, VIP));
    opened(case.wait(Lifetimes::SECONDS.udp_answered + 1), udp(FAR, VIP))
}

fn port_again<F: Net>() -> Case<F> {
    let case = begun("dsr: a row that nothing has proved is short-lived", Udp);
    opened(case.wait(Lifetimes::SECONDS.udp_unanswered + 1), udp(FAR, VIP))
}

/// The nodes are behind a port of the bridge.
fn over_a_bridge<F: Net>() -> Case<F> {
    let state = web_by(REMOTE, BRIDGE.zone, GREEN.reached(NextHopKind::Bridge)).on_node(1, OTHER_NODE);
    case("dsr: a node that is reached over a bridge", state)
        .on(on_node::<F>())
        .outside(udp(FAR, VIP))
        .encapsulated(
            Device(BRIDGE.ifindex),
            udp(FAR, VIP).routed().link_to(GREEN.at).inside(NODE, OTHER_NODE),
        )
        .also(Counter::NewFlow)
}

fn no_address<F: Net>() -> Case<F> {
    case("dsr: a node without an address", encapsulated())
        .outside(udp(FAR, VIP))
        .drops(Counter::Unreachable)
        .also(Counter::NewFlow)
        .accounted()
}

fn local_backend<F: Net>() -> Case<F> {
    case("dsr: not for backends of this node", both(&[2]))
        .on(on_node::<F>())
        .outside(udp(FAR, VIP))
        .opens(Peer(BLUE.ifindex), BACKEND)
}

fn pods_call<F: Net>() -> Case<F> {
    case("dsr: not for pods", encapsulated()).pod(RED, udp(CLIENT, VIP)).opens(OUT, REMOTE)
}

fn sctp_goes_on<F: Net>() -> Case<F> {
    const AT: &str = "10.244.9.9:80";
    let state = State::default()
        .service(1, &[(Sctp, VIP)], &[1])
        .backend(1, 1, AT, ZONE_UPLINK, outside())
        .on_node(1, OTHER_NODE);
    let case = opened(case("dsr: SCTP", state).on(on_node::<F>()), sctp(FAR, VIP));
    passed(passed(case, sctp(FAR, VIP)).assures(), sctp(FAR, VIP))
}

fn hops<F: Net>() -> Case<F> {
    let case = assured("dsr: no hops left", Udp);
    let case = passed(case, udp(FAR, VIP).hops(2));
    case.outside(udp(FAR, VIP).hops(1))
        .returns(Counter::TtlExceeded, Complaint::TimeExceeded, VIP)
        .accounted()
}

/// As many bytes as make a packet of UDP so large.
fn filling<F: Net>(size: u32) -> Vec<u8> {
    vec![0xa5; size as usize - (F::TRANSPORT - 14) - 8]
}

fn too_big<F: Net>() -> Case<F> {
    // A header as the inner one has.
    let most = NARROW - (F::TRANSPORT - 14) as u32;
    let [fits, more] = [filling::<F>(most), filling::<F>(most + 1)];
    let case = begun("dsr: too big for the device with what is put around it", Udp);
    let case = passed(case, udp(FAR, VIP).says(&fits)).assures();
    case.outside(udp(FAR, VIP).says(&more))
        .returns(Counter::TooBig, Complaint::TooBig(most), VIP)
        .accounted()
        .outside(tcp(FAR, VIP).says(&more))
        .returns(Counter::TooBig, Complaint::TooBig(most), VIP)
        .also(Counter::NewFlow)
        .accounted()
}

/// Of what is to be segmented each part has to fit.
fn parts_too_big<F: Net>() -> Case<F> {
    const TCP: u32 = 20;
    let headers = (F::TRANSPORT - 14) as u32;
    let most = NARROW - headers;
    let said = tcp(FAR, VIP).says(&[0xa5; 2500]);
    begun("dsr: parts that are too big for the device", Tcp)
        .outside(said)
        .segmented(most - headers - TCP + 1)
        .returns(Counter::TooBig, Complaint::TooBig(most), VIP)
        .also(Counter::Assured)
        .accounted()
}

fn fragments<F: Net>() -> Case<F> {
    let said = udp(FAR, VIP).says(&[0x5a; 40]);
    let piece = |from, to| said.clone().piece(7, from, to);
    let case = opened(case("dsr: all fragments", encapsulated()).on(on_node::<F>()), piece(0, 24));
    let case = passed(passed(case, piece(24, 40)), piece(40, 48));
    case.outside(piece(24, 40)).passes(Counter::Fragment)
}

fn more_headers<F: Net>() -> Case<F> {
    let packet = || match F::TRANSPORT {
        34 => udp(FAR, VIP).options(8),
        _ => udp(FAR, VIP).extensions(&[(60, vec![0; 7])]),
    };
    let case = opened(case("dsr: options, extension headers", encapsulated()).on(on_node::<F>()), packet());
    passed(passed(case, packet()).assures(), packet())
}

/// What lies behind a packet in its frame lies behind the one around it.
fn padding<F: Net>() -> Case<F> {
    let sent = udp(FAR, VIP).says(b"");
    case("dsr: padding", encapsulated())
        .on(on_node::<F>())
        .outside(sent.clone().padded(18))
        .encapsulated(OUT, sent.routed().inside(NODE, OTHER_NODE).padded(18))
        .also(Counter::NewFlow)
}

fn error<F: Net>() -> Case<F> {
    let about = || udp(VIP, FAR).error_from(Complaint::TooBig(1280), FAR_ROUTER);
    let case = assured("dsr: errors about replies go to the backend's node", Udp);
    let case =
        case.outside(about()).encapsulated(OUT, about().routed().inside(NODE, OTHER_NODE)).not_accounted();
    case.outside(udp(VIP, "192.168.1.101:40000").error_from(Complaint::TooBig(1280), FAR_ROUTER))
        .passes(Counter::Protocol)
}

/// No error is answered by one.
fn error_too_big<F: Net>() -> Case<F> {
    let large = udp(VIP, FAR).says(&[0xa5; 1340]);
    let about = || large.clone().error_from(Complaint::TooBig(1280), FAR_ROUTER);
    let case = assured("dsr: an error that can't go on is dropped", Udp);
    let case = case.outside(about()).drops(Counter::TooBig);
    case.outside(udp(VIP, FAR).error_from(Complaint::TooBig(1280), FAR_ROUTER).hops(1))
        .drops(Counter::TtlExceeded)
}

fn other_hooks<F: Net>() -> Case<F> {
    assured("dsr: packets of a flow that leave the host are none of ours", Udp)
        .send(Hook::UplinkEgress, UPLINK, udp(FAR, VIP))
        .passes(Counter::WrongHook)
}

/// Packets from the other node.
fn arrives<F: Net>(case: Case<F>, packet: Wire) -> Case<F> {
    case.outside(packet.inside(OTHER_NODE, NODE))
}

fn taken_out<F: Net>(case: Case<F>, packet: Wire) -> Case<F> {
    arrives(case, packet.clone())
        .request(Peer(BLUE.ifindex), BACKEND)
        .also(Counter::Decapsulated)
        .but(|_| packet.routed().destination(BACKEND).link_to(BLUE.at))
}

fn here<F: Net>(name: impl Into<String>) -> Case<F> {
    case(name, both(&[2])).on(on_node::<F>())
}

fn inside<F: Net>(protocol: Protocol) -> Case<F> {
    let packet = || of(protocol, FAR, VIP);
    let case = here(format!("dsr: what another node sends is taken out, {protocol:?}"));
    let case = taken_out(case, first(protocol, FAR, VIP)).also(Counter::NewFlow);
    let answer = if protocol == Tcp { tcp(BACKEND, FAR).syn_ack() } else { udp(BACKEND, FAR) };
    let case = case.pod(BLUE, answer).reply(OUT, VIP, FAR).on(on_node::<F>());
    let case = taken_out(case, packet()).assures();
    taken_out(case, packet())
}

fn inside_not_local<F: Net>() -> Case<F> {
    let case = case("dsr: what another node sends stays on this one", both(&[1])).on(on_node::<F>());
    let case = taken_out(case, first(Tcp, FAR, VIP)).also(Counter::NewFlow);
    // By itself it would have gone on.
    opened(case, tcp("192.168.1.101:40000", VIP).syn())
}

/// A flow whose row was lost, or one that began elsewhere.
fn inside_of_no_flow<F: Net>() -> Case<F> {
    taken_out(here("dsr: a segment of no flow"), tcp(FAR, VIP)).also(Counter::NewFlow)
}

fn inside_nobody_here<F: Net>() -> Case<F> {
    let state = both(&[1]).set(1, |set| set.local_len = 0);
    arrives(case("dsr: none of the backends is here", state).on(on_node::<F>()), udp(FAR, VIP))
        .drops(Counter::NoLocalBackend)
        .also(Counter::Decapsulated)
        .but(|_| udp(FAR, VIP))
}

fn inside_to_the_host<F: Net>() -> Case<F> {
    const HOST: &str = "192.168.1.11:8080";
    let state = web_by(HOST, lb_common::abi::ZONE_OF_CLIENT, host_process()).owned(VIP);
    arrives(case("dsr: a backend that is the node itself", state).on(on_node::<F>()), udp(FAR, VIP))
        .opens(Continue, HOST)
        .also(Counter::Decapsulated)
        .but(|_| udp(FAR, HOST))
}

/// The client has called the other node.
fn inside_node_port<F: Net>() -> Case<F> {
    const NODE_PORT: &str = "192.168.1.12:30080";
    let state = both(&[2]).frontend(1, FrontendKind::NodePort, Udp, NODE_PORT).of_other_node(OTHER_NODE);
    let case = case("dsr: a node port of another node", state).on(on_node::<F>());
    arrives(case, udp(FAR, NODE_PORT))
        .opens(Peer(BLUE.ifindex), BACKEND)
        .also(Counter::Decapsulated)
        .but(|_| udp(FAR, BACKEND).routed().link_to(BLUE.at))
        .outside(udp(FAR, "192.168.1.12:22"))
        .passes(Counter::NoFrontend)
}

fn inside_error<F: Net>() -> Case<F> {
    let about = |from| udp(from, FAR).error_from(Complaint::TooBig(1280), FAR_ROUTER);
    let case = taken_out(here("dsr: an error that another node sends"), udp(FAR, VIP)).also(Counter::NewFlow);
    arrives(case, about(VIP)).error(Peer(BLUE.ifindex), about(BACKEND), BACKEND).also(Counter::Decapsulated)
}

fn inside_fragments<F: Net>() -> Case<F> {
    let said = udp(FAR, VIP).says(&[0x5a; 40]);
    let piece = |from, to| said.clone().piece(7, from, to);
    let to = said.clone().destination(BACKEND).link_to(BLUE.at).routed();
    let becomes = |from, to_| to.clone().piece(7, from, to_);
    let taken = |case: Case<F>, from, to| {
        arrives(case, piece(from, to))
            .request(Peer(BLUE.ifindex), BACKEND)
            .also(Counter::Decapsulated)
            .but(|_| becomes(from, to))
    };
    let case = taken(here("dsr: fragments that another node sends"), 0, 24).also(Counter::NewFlow);
    taken(case, 24, 48)
}

/// By a row that there is: its backend was here and is elsewhere.
fn inside_goes_on<F: Net>() -> Case<F> {
    let case = case("dsr: what another node sends of a flow that goes on", both(&[1])).on(on_node::<F>());
    let case = opened(case, first(Tcp, FAR, VIP));
    arrives(case, tcp(FAR, VIP))
        .encapsulated(OUT, tcp(FAR, VIP).routed().inside(NODE, OTHER_NODE))
        .also(Counter::Decapsulated)
        .assures()
}

fn not_ours<F: Net>() -> Case<F> {
    let passes = |case: Case<F>, packet| case.outside(packet).passes(Counter::Protocol);
    let number = if F::TRANSPORT == 34 { 4 } else { 41 };
    let case = here("dsr: a tunnel of the host's own");
    let case = passes(case, udp(FAR, "10.97.0.1:80").inside(OTHER_NODE, NODE));
    let case = passes(case, udp(FAR, BACKEND).inside(OTHER_NODE, NODE));
    let case = passes(case, udp(FAR, VIP).inside(OTHER_NODE, "192.168.1.13:0"));
    let case = passes(case, other(number, OTHER_NODE, NODE));
    passes(case.on(on_uplink()), udp(FAR, VIP).inside(OTHER_NODE, NODE))
}

fn not_whole<F: Net>() -> Case<F> {
    let inner = F::TRANSPORT;
    let passes = |case: Case<F>, packet| case.outside(packet).passes(Counter::Protocol);
    let case = here("dsr: what is inside is not whole");
    // Another version; more bytes than there are.
    let case = passes(case, udp(FAR, VIP).inside(OTHER_NODE, NODE).frame_bytes(inner, &[0x15]));
    let length = if F::TRANSPORT == 34 { 2 } else { 4 };
    let case = passes(case, udp(FAR, VIP).inside(OTHER_NODE, NODE).frame_bytes(inner + length, &[0x01]));
    let number = if F::TRANSPORT == 34 { 4 } else { 41 };
    passes(case, other(number, OTHER_NODE, NODE).says(&[0x45; 12]))
}
