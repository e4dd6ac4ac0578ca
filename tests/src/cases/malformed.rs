//! Truncated packets and headers that contradict themselves: left alone, byte for byte, and counted.

use lb_common::abi::Counter;

use crate::{
    case::{Case, case},
    family::Net,
    packet::{Wire, tcp, udp},
    state::RED,
    world::{CLIENT, VIP, web},
};

pub fn cases<F: Net>() -> Vec<Case<F>> {
    let mut cases = vec![
        cut("truncated at every length: TCP", tcp(CLIENT, VIP)),
        cut("truncated at every length: UDP", udp(CLIENT, VIP)),
        short("a TCP header longer than its packet", tcp(CLIENT, VIP), 20),
        short("a UDP header longer than its packet", udp(CLIENT, VIP), 8),
        in_the_padding(),
        padding(),
        data_offset(),
        udp_length(),
        version(),
        too_long(),
    ];
    if F::TRANSPORT == 34 {
        cases.push(ipv4_lengths());
    }
    cases
}

/// Cut off anywhere while the network header still has the old length.
fn cut<F: Net>(name: &str, packet: Wire) -> Case<F> {
    let whole = packet.bytes::<F>().len();
    let case = (0..whole).fold(case(name, web()), |case, len| {
        let case = case.pod(RED, packet.clone().cut(len));
        // What is too short for an EtherType is not even IP.
        if len < 14 { case } else { case.passes(Counter::Truncated) }
    });
    case.begins(packet)
}

/// Cut off in the transport header, and the network header agrees.
fn short<F: Net>(name: &str, packet: Wire, header: usize) -> Case<F> {
    let case = (0..header).fold(case(name, web()), |case, len| {
        case.pod(RED, packet.clone().shortened(len)).passes(Counter::Truncated)
    });
    case.begins(packet)
}

fn in_the_padding<F: Net>() -> Case<F> {
    case("a transport header that lies in the padding of its frame", web())
        .pod(RED, tcp(CLIENT, VIP).shortened(4).padded(40))
        .passes(Counter::Truncated)
        .pod(RED, tcp(CLIENT, VIP).shortened(19).padded(1))
        .passes(Counter::Truncated)
        .pod(RED, udp(CLIENT, VIP).shortened(0).padded(40))
        .passes(Counter::Truncated)
        .pod(RED, udp(CLIENT, VIP).shortened(7).padded(11))
        .passes(Counter::Truncated)
}

fn padding<F: Net>() -> Case<F> {
    case("a short packet padded to the link's minimum", web())
        .begins(tcp(CLIENT, VIP).syn().padded(6))
        .begins(udp(CLIENT, VIP).says(b"").padded(18))
}

/// The high half of TCP's byte 12, in words.
fn data_offset<F: Net>() -> Case<F> {
    let short = (0..5).fold(case("a TCP header length that can't be", web()), |case, words| {
        case.pod(RED, tcp(CLIENT, VIP).transport_bytes(12, &[words << 4])).passes(Counter::Malformed)
    });
    short
        .pod(RED, tcp(CLIENT, VIP).says(&[0; 39]).transport_bytes(12, &[15 << 4]))
        .passes(Counter::Malformed)
        .pod(RED, tcp(CLIENT, VIP).syn().transport_bytes(12, &[6 << 4]))
        .passes(Counter::Malformed)
}

fn udp_length<F: Net>() -> Case<F> {
    case("a UDP length that can't be", web())
        .pod(RED, udp(CLIENT, VIP).transport_bytes(4, &[0, 7]))
        .passes(Counter::Malformed)
        .pod(RED, udp(CLIENT, VIP).says(&[0; 10]).transport_bytes(4, &[0, 19]))
        .passes(Counter::Malformed)
}

fn version<F: Net>() -> Case<F> {
    let wrong = if F::TRANSPORT == 34 { 6 } else { 4 };
    [0, wrong, 5, 15].into_iter().fold(case("a version that the EtherType denies", web()), |case, version| {
        case.pod(RED, tcp(CLIENT, VIP).frame_bytes(14, &[version << 4 | 5])).passes(Counter::Malformed)
    })
}

/// The network header's length points behind the end.
fn too_long<F: Net>() -> Case<F> {
    let length_at = if F::TRANSPORT == 34 { 16 } else { 18 };
    case("a packet longer than its frame", web())
        .pod(RED, udp(CLIENT, VIP).frame_bytes(length_at, &[0xff, 0xff]))
        .passes(Counter::Truncated)
        .pod(RED, udp(CLIENT, VIP).says(&[0; 8]).frame_bytes(length_at, &[0, 37]))
        .passes(Counter::Truncated)
}

fn ipv4_lengths<F: Net>() -> Case<F> {
    let headers = (0..5).fold(case("IPv4 header lengths that can't be", web()), |case, words| {
        case.pod(RED, tcp(CLIENT, VIP).frame_bytes(14, &[0x40 | words])).passes(Counter::Malformed)
    });
    headers
        .pod(RED, tcp(CLIENT, VIP).frame_bytes(16, &[0, 19]))
        .passes(Counter::Malformed)
        .pod(RED, tcp(CLIENT, VIP).frame_bytes(16, &[0, 0]))
        .passes(Counter::Malformed)
        // Only what is longer than the field can say has none, and that a device is to segment.
        .pod(RED, tcp(CLIENT, VIP).says(&[0; 2000]).frame_bytes(16, &[0, 0]))
        .segmented(1000)
        .passes(Counter::Malformed)
        .pod(RED, tcp(CLIENT, VIP).big(100_000))
        .passes(Counter::Malformed)
}
