//! IPv4 options and IPv6 extension headers.

use lb_common::{
    abi::Counter,
    path::Egress::{Continue, Peer},
    wire::Protocol,
};

use crate::{
    case::{Case, case},
    family::Net,
    packet::{Wire, of, tcp, udp},
    state::{BLUE, RED, State},
    world::{BACKEND, CLIENT, VIP, web},
};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ESP: u8 = 50;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

pub fn cases<F: Net>() -> Vec<Case<F>> {
    [of_lengths(), vec![big()]].concat()
}

/// BIG TCP: what a device is to segment may be larger than the network header can say.
fn big<F: Net>() -> Case<F> {
    const PART: u32 = 1448;
    case("large packets that a device is to segment", web())
        .begins(tcp(CLIENT, VIP).syn())
        .answers(tcp(BACKEND, CLIENT).syn_ack())
        .asks(tcp(CLIENT, VIP).big(65_600))
        .segmented(PART)
        .assures()
        .asks(tcp(CLIENT, VIP).big(185_000))
        .segmented(PART)
        .answers(tcp(BACKEND, CLIENT).big(185_000))
        .segmented(PART)
        // What comes by VLAN is parsed by another step.
        .pod(RED, tcp(CLIENT, VIP).big(185_000))
        .tagged()
        .request(Continue, BACKEND)
        .segmented(PART)
        // With a header of its own length.
        .asks(tcp(CLIENT, VIP).says(&[0x5a; 2000]))
        .segmented(PART)
}

fn of_lengths<F: Net>() -> Vec<Case<F>> {
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    if F::TRANSPORT == 34 {
        let mut cases = vec![cut("IPv4 options cut off", tcp(CLIENT, VIP).options(40))];
        cases.push(foreign(udp(CLIENT, "10.244.1.4:8080").options(8)));
        cases.push(refused(|packet| packet.options(24)));
        for protocol in protocols {
            let lengths =
                (4..=40).step_by(4).map(|len| of(protocol, CLIENT, frontend(protocol)).options(len));
            cases.push(each(format!("IPv4 options of every length: {protocol:?}"), protocol, lengths));
        }
        return cases;
    }
    let mut cases = vec![
        cut(
            "IPv6 extension headers cut off",
            udp(CLIENT, VIP).extensions(&[padding(HOP_BY_HOP, 0), atomic()]),
        ),
        foreign(udp(CLIENT, "10.244.1.4:8080").extensions(&[padding(DESTINATION, 0)])),
        refused(|packet| packet.extensions(&[padding(DESTINATION, 1)])),
        left_alone(),
        far(),
    ];
    for protocol in protocols {
        let with = |chain: &[Header]| of(protocol, CLIENT, frontend(protocol)).extensions(chain);
        let kinds = [padding(HOP_BY_HOP, 0), padding(DESTINATION, 3), routing(0), authentication(), atomic()];
        let name = format!("each IPv6 extension header: {protocol:?}");
        cases.push(each(name, protocol, kinds.iter().map(|kind| with(std::slice::from_ref(kind)))));
        let chains =
            (2..=8).map(|len| with(&kinds.iter().cycle().take(len).cloned().collect::<Vec<_>>()[..]));
        cases.push(each(format!("chains of IPv6 extension headers: {protocol:?}"), protocol, chains));
    }
    cases
}

/// A number and all of the header but its first byte.
type Header = (u8, Vec<u8>);

/// Options, padding only, in `more` times 8 bytes beyond the first 8.
fn padding(number: u8, more: u8) -> Header {
    let mut header = vec![more, 1, 4 + more * 8];
    header.resize(7 + more as usize * 8, 0);
    (number, header)
}

/// A routing header of no known type; where the packet goes is decided if none is left.
fn routing(segments_left: u8) -> Header {
    (ROUTING, vec![0, 253, segments_left, 0, 0, 0, 0])
}

/// An authentication header with 96 bits of check value.
fn authentication() -> Header {
    let mut header = vec![4];
    header.resize(23, 0x33);
    (AUTHENTICATION, header)
}

/// A fragment that is all of its packet.
fn atomic() -> Header {
    (FRAGMENT, vec![0, 0, 0, 0, 0, 0, 9])
}

/// Of the service for each protocol: SCTP's port is the backend's.
fn frontend(protocol: Protocol) -> &'static str {
    if protocol == Protocol::Sctp { "10.96.0.10:8080" } else { VIP }
}

/// Packets to a service that all reach its backend.
fn each<F: Net>(name: String, protocol: Protocol, packets: impl Iterator<Item = Wire>) -> Case<F> {
    let state = web().service(1, &[(protocol, frontend(protocol))], &[1]);
    packets.enumerate().fold(case(name, state), |case, (index, packet)| {
        let case = case.pod(RED, packet);
        if index == 0 {
            case.opens(Peer(BLUE.ifindex), BACKEND)
        } else {
            case.request(Peer(BLUE.ifindex), BACKEND)
        }
    })
}

fn foreign<F: Net>(packet: Wire) -> Case<F> {
    case("options and extension headers of packets that are not ours", web())
        .pod(RED, packet)
        .passes(Counter::NotOurs)
}

/// Cut off anywhere while the network header has the old length.
fn cut<F: Net>(name: &str, packet: Wire) -> Case<F> {
    let whole = packet.bytes::<F>().len();
    let case = (14..whole).fold(case(name, web()), |case, len| {
        case.pod(RED, packet.clone().cut(len)).passes(Counter::Truncated)
    });
    case.begins(packet)
}

fn refused<F: Net>(with: fn(Wire) -> Wire) -> Case<F> {
    case("packets with options or extension headers are refused as others", {
        State::default().service(1, &[(Protocol::Tcp, VIP), (Protocol::Udp, VIP)], &[])
    })
    .pod(RED, with(tcp(CLIENT, VIP).syn()))
    .rejects(Counter::NoBackend)
    .pod(RED, with(tcp(CLIENT, VIP).unacknowledged().says(b"seven b")))
    .rejects(Counter::NoBackend)
    .pod(RED, with(udp(CLIENT, VIP)))
    .rejects(Counter::NoBackend)
}

fn left_alone<F: Net>() -> Case<F> {
    let with = |chain: &[Header]| udp(CLIENT, VIP).extensions(chain);
    let nine: Vec<Header> = (0..9).map(|_| padding(DESTINATION, 0)).collect();
    case("IPv6 extension headers that are left alone", web())
        .pod(RED, with(&nine))
        .passes(Counter::Options)
        .begins(with(&nine[..8]))
        // The destination is not the last one.
        .pod(RED, with(&[routing(1)]))
        .passes(Counter::Options)
        .pod(RED, with(&[padding(HOP_BY_HOP, 0), routing(255)]))
        .passes(Counter::Options)
        .pod(RED, with(&[(ESP, vec![0x11; 7])]))
        .passes(Counter::Options)
        .pod(RED, with(&[padding(DESTINATION, 0), (ESP, vec![0x11; 7])]))
        .passes(Counter::Options)
        // Longer than its packet.
        .pod(RED, with(&[(DESTINATION, vec![200, 1, 4, 0, 0, 0, 0])]))
        .passes(Counter::Truncated)
        // No transport protocol behind them.
        .pod(RED, udp(CLIENT, VIP).extensions(&[padding(DESTINATION, 0)]).frame_bytes(54, &[59]))
        .passes(Counter::Protocol)
}

/// A transport header as far away as it may be, and farther.
fn far<F: Net>() -> Case<F> {
    const LONGEST: usize = 15;
    let long = |bytes: usize| {
        let mut header = vec![(bytes / 8 - 1) as u8];
        header.resize(bytes - 1, 0);
        (DESTINATION, header)
    };
    let near: Vec<Header> = (0..8).map(|_| long(LONGEST * 8)).collect();
    let mut farther = near.clone();
    farther[7] = long((LONGEST + 1) * 8);
    case("a transport header far away", web())
        .begins(udp(CLIENT, VIP).extensions(&near))
        .asks(udp(CLIENT, VIP).extensions(&farther))
        .pod(RED, udp(CLIENT, VIP).extensions(&[long(976)]))
        .passes(Counter::Options)
        .pod(RED, udp(CLIENT, VIP).extensions(&[long(2048)]))
        .passes(Counter::Options)
}
