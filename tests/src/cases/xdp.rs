//! What XDP finishes at an uplink, with the link header that it gives, and what it leaves to tc as it was.

use lb_common::{
    abi::{
        BackendState, Counter, FrontendKind, Mac, NextHopKind, NextHopRow, Settings, ZONE_UPLINK,
        flow_bits::{ANSWERED, ASSURED, REPLY},
    },
    path::{Egress::Peer, Hook},
    wire::Protocol::{self, Sctp, Tcp, Udp},
};

use super::{refused::with_cidr, snat};
use crate::{
    case::{Case, case},
    family::Net,
    packet::{Wire, echo, first, of, sctp, tcp, udp},
    state::{BLUE, BRIDGE, NARROW, State, UPLINK, outside},
    world::{BACKEND, FAR, FAR2, OUT, REMOTE, SHOWN, VIP, allocating, remote, web_by},
};

/// Another router there.
const OTHER_ROUTER: &str = "192.168.1.2:0";
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

fn at_xdp<F: Net>(case: Case<F>, packet: Wire) -> Case<F> {
    case.outside(packet).xdp()
}

fn opens<F: Net>(case: Case<F>, packet: Wire) -> Case<F> {
    snat::opened(case, packet, 0).xdp()
}

fn asks<F: Net>(case: Case<F>, packet: Wire) -> Case<F> {
    snat::requested(case, packet).xdp()
}

fn answers<F: Net>(case: Case<F>, packet: Wire) -> Case<F> {
    snat::answers(case, packet, FAR).xdp()
}

fn answered<F: Net>(name: impl Into<String>, protocol: Protocol) -> Case<F> {
    let case = opens(case(name, remote()).on(allocating::<F>()), first(protocol, FAR, VIP));
    answers(case, of(protocol, REMOTE, SHOWN))
}

fn assured<F: Net>(name: impl Into<String>, protocol: Protocol) -> Case<F> {
    asks(answered(name, protocol), of(protocol, FAR, VIP)).assures()
}

fn exchange<F: Net>(protocol: Protocol) -> Case<F> {
    let case = assured(format!("xdp: there and back, {protocol:?}"), protocol)
        .row(of(protocol, FAR, VIP), ASSURED | ANSWERED, 1)
        .row(of(protocol, REMOTE, SHOWN), ASSURED | REPLY | ANSWERED, 1);
    let case = answers(asks(case, of(protocol, FAR, VIP)), of(protocol, REMOTE, SHOWN));
    // In another tick, and what brings the flow further.
    let case = answers(asks(case.wait(1), of(protocol, FAR, VIP)), of(protocol, REMOTE, SHOWN));
    let case = answers(case.wait(1), of(protocol, REMOTE, SHOWN));
    if protocol == Udp {
        return case;
    }
    let case = asks(case, tcp(FAR, VIP).fin());
    let case = answers(case, tcp(REMOTE, SHOWN).fin());
    asks(case, tcp(FAR, VIP).rst())
}

fn own_source<F: Net>() -> Case<F> {
    let case = case("xdp: no ports to allocate, the source stays", remote());
    let case = case.on(Settings { snat_ports: 0, ..allocating::<F>() });
    case.outside(udp(FAR, VIP)).opens(OUT, REMOTE).xdp()
}

fn sctp_flow<F: Net>() -> Case<F> {
    const AT: &str = "10.244.9.9:80";
    let state = State::default().service(1, &[(Sctp, VIP)], &[1]).backend(1, 1, AT, ZONE_UPLINK, outside());
    let case = case("xdp: SCTP, which keeps its port", state).on(allocating::<F>());
    let case = case.outside(sctp(FAR, VIP)).opens(OUT, AT).shown("192.168.1.11:40000").xdp();
    case.outside(sctp(AT, "192.168.1.11:40000")).reply(OUT, VIP, FAR).xdp()
}

/// RFC 768; IPv6 knows no such thing (RFC 8200), but it is left as it is there, too.
fn no_checksum<F: Net>() -> Case<F> {
    let packet = udp(FAR, VIP).no_checksum();
    let case = case("xdp: a datagram without a checksum stays so", remote()).on(allocating::<F>());
    opens(case, packet)
}

fn both_hooks<F: Net>() -> Case<F> {
    let case = case("xdp: a flow that tc began goes on, and the other way round", remote());
    let case = case.on(allocating::<F>()).outside(first(Tcp, FAR, VIP)).opens(OUT, REMOTE).shown(SHOWN);
    let case = answers(case, tcp(REMOTE, SHOWN));
    let case = asks(case, tcp(FAR, VIP)).assures();
    let case = case.outside(tcp(FAR, VIP)).request(OUT, REMOTE).shown(SHOWN);
    answers(case, tcp(REMOTE, SHOWN))
}

fn other_router<F: Net>() -> Case<F> {
    let case = assured("xdp: replies go where requests come from by now", Tcp);
    let case = asks(case.wait(1), tcp(FAR, VIP).link_from(OTHER_ROUTER));
    answers(case, tcp(REMOTE, SHOWN)).but(|packet| packet.link_to(OTHER_ROUTER))
}

/// Left to tc, which makes a flow of it; XDP does not.
fn left<F: Net>(name: &str, state: State<F>, packet: Wire) -> Case<F> {
    at_xdp(case(name, state).on(allocating::<F>()), packet.clone()).no_row(packet)
}

fn next_hop_unknown<F: Net>() -> Case<F> {
    let unknown = NextHopRow { mac: Mac::default(), ..outside() };
    let packet = udp(FAR, VIP);
    let case = left(
        "xdp: nobody knows the next hop's MAC yet",
        web_by(REMOTE, ZONE_UPLINK, unknown),
        packet.clone(),
    );
    let case = case.outside(packet.clone()).opens(OUT, REMOTE).shown(SHOWN);
    // Of its flow neither.
    at_xdp(case, packet)
}

fn other_device<F: Net>() -> Case<F> {
    let state = web_by(REMOTE, ZONE_UPLINK, NextHopRow { ifindex: BRIDGE.ifindex, ..outside() });
    left("xdp: the backend is behind another device", state, udp(FAR, VIP))
}

fn local_backend<F: Net>() -> Case<F> {
    let state = web_by(BACKEND, BRIDGE.zone, BLUE.reached(NextHopKind::Peer));
    let case = left("xdp: the backend is on this node", state, tcp(FAR, VIP).syn());
    let case = case.outside(tcp(FAR, VIP).syn()).opens(Peer(BLUE.ifindex), BACKEND);
    at_xdp(case, tcp(FAR, VIP))
}

fn for_somebody_else<F: Net>() -> Case<F> {
    left("xdp: a frame that is another device's", remote(), udp(FAR, VIP).link_to(OTHER_ROUTER))
}

fn hops<F: Net>() -> Case<F> {
    let case = left("xdp: a packet at the end of its hops", remote(), tcp(FAR, VIP).syn().hops(1));
    let case = opens(case, first(Tcp, FAR, VIP).hops(2));
    let case = at_xdp(case, tcp(FAR, VIP).hops(1));
    let case = at_xdp(case, tcp(REMOTE, SHOWN).hops(1));
    answers(case, tcp(REMOTE, SHOWN).hops(2))
}

fn too_big<F: Net>() -> Case<F> {
    let filling = |size: u32| vec![0xa5; size as usize - (F::TRANSPORT - 14) - 8];
    let (most, more) = (udp(FAR, VIP).says(&filling(NARROW)), udp(FAR, VIP).says(&filling(NARROW + 1)));
    let case = case("xdp: a packet larger than the device takes", remote());
    let case = case.on(Settings { mtu_floor: NARROW - 100, ..allocating::<F>() });
    at_xdp(opens(at_xdp(case, more.clone()).no_row(more.clone()), most), more)
}

fn not_plain<F: Net>() -> Case<F> {
    let packet = || udp(FAR, VIP).says(&[0x5a; 64]);
    let case = opens(case("xdp: what is not plain and whole", remote()).on(allocating::<F>()), udp(FAR, VIP));
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
    let case = case.on(Settings { snat_ports: 0, ..allocating::<F>() });
    let case = case.outside(tcp(FAR, VIP).syn()).opens(OUT, REMOTE).xdp();
    let case = at_xdp(case, tcp(REMOTE, FAR).syn_ack());
    case.outside(tcp(REMOTE, FAR).syn_ack()).reply(OUT, VIP, FAR)
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
    .fold(case("xdp: refused at once", nobody).on(allocating::<F>()), |case, packet| {
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
    let case = assured("xdp: a flow whose backend was removed ends with a reset, if it is to", Tcp)
        .change(|state| state.set_state(1, BackendState::Removed));
    let case = asks(case, tcp(FAR, VIP));
    let case = case.change(|state| state.set_state(1, BackendState::Reset));
    at_xdp(case, tcp(FAR, VIP)).rejects(Counter::BackendGone)
}

fn dropped<F: Net>() -> Case<F> {
    const LB: &str = "10.96.7.7:80";
    let state =
        remote().frontend(1, FrontendKind::LoadBalancer, Udp, LB).source_ranges(1, &[("10.0.0.0:0", 8)]);
    let case = case("xdp: dropped early", state).on(with_cidr(allocating::<F>()));
    let case = at_xdp(case, udp(FAR, LB)).drops(Counter::SourceRange);
    at_xdp(case, udp(FAR, "10.96.0.99:80")).drops(Counter::UnassignedVip)
}

fn no_port_left<F: Net>() -> Case<F> {
    const AT: &str = "10.244.9.9:80";
    let state = State::default().service(1, &[(Sctp, VIP)], &[1]).backend(1, 1, AT, ZONE_UPLINK, outside());
    let case = case("xdp: no port left to allocate", state).on(allocating::<F>());
    let case = case.outside(sctp(FAR, VIP)).opens(OUT, AT).shown("192.168.1.11:40000").xdp();
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
    let case = case("xdp: the host's own traffic", remote()).on(allocating::<F>());
    let case = at_xdp(case, tcp(REMOTE, "192.168.1.11:10001"));
    let case = at_xdp(case, tcp(FAR, "192.168.1.11:22").syn());
    at_xdp(case, udp(FAR, "192.168.1.255:5353"))
}
