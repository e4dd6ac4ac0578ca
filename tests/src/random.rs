//! Rows and packets at random, from small pools so that they meet, for what nobody thought of.

use std::net::Ipv4Addr;

use lb_common::{
    abi::{
        AffinityKey, AffinityRow, BackendRow, BackendState, BackendWord, FlowKey, FlowRow, FragmentKey,
        FragmentRow, FrontendKind, Mac, NextHopKind, NextHopRow, Scopes, Settings, Word, ZONE_OF_CLIENT,
        ZONE_UPLINK, bridge_zone,
    },
    family::{Address as _, V4, V6},
    path::{Hook, prefilter_hash},
    wire::Protocol,
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};

use crate::{
    family::{Net, socket},
    packet::{Complaint, Wire, echo, of},
    state::{
        At, BLUE, BRIDGE, DEVICES, ORANGE, OTHER_BRIDGE, OTHER_UPLINK, PODS, RED, State, UPLINK,
        among_several, mac_of, on, on_uplink, outside,
    },
};

const ADDRESSES: [&str; 6] =
    ["10.244.1.2", "10.244.1.3", "10.244.1.4", "10.244.2.2", "10.96.0.10", "10.96.0.11"];
/// The frontends of the two services.
const VIPS: [&str; 2] = ["10.96.0.10:80", "10.96.0.11:80"];
/// This node and another one, where backends may be.
const NODE: &str = "192.168.1.11:0";
const OTHER_NODE: &str = "192.168.1.12:0";
const PORTS: [u16; 3] = [80, 8080, 40_000];
/// Identification of all packets in fragments.
const ID: u16 = 0x1234;
/// One beyond the rows of the maps.
const NO_ROW: u32 = crate::kernel::ROWS;

/// Addresses and ports.
type Tuple = (Protocol, Ipv4Addr, u16, Ipv4Addr, u16);

/// Rows, a place and a packet.
#[derive(Clone, Debug)]
pub struct Scenario {
    backends: Vec<Backend>,
    slots: [Vec<u32>; 2],
    rules: Rules,
    flows: Vec<Flow>,
    first: First,
    /// The first fragment of the packet went to this backend so long ago, and so many bytes have been seen.
    begun: Option<(u32, u32, u32)>,
    place: (Settings, Hook, u32),
    tuple: Tuple,
    shape: Shape,
    bytes: Vec<(Index, u8)>,
    cut: Option<Index>,
}

/// What the first flow has to do with the packet.
#[derive(Copy, Clone, Debug)]
enum First {
    Nothing,
    /// It is the packet's.
    Its,
    /// It has the tuple of the first backend's replies.
    ItsReplies,
}

/// What holds for service 1.
#[derive(Clone, Debug)]
struct Rules {
    kind: FrontendKind,
    /// `set_flags`, without the choice at random, which the kernel makes otherwise.
    flags: u32,
    affinity: bool,
    ranges: bool,
    /// Other ports of its address are refused.
    owned: bool,
    /// The client of the packet had this backend so long ago.
    had: Option<(Word, u32)>,
}

#[derive(Clone, Debug)]
struct Backend {
    service: u32,
    at: (Ipv4Addr, u16),
    zone: u16,
    state: BackendState,
    next_hop: NextHopRow,
    /// It is on another node, and reached inside other packets.
    elsewhere: bool,
}

#[derive(Clone, Debug)]
struct Flow {
    tuple: Tuple,
    zone: u16,
    backend: Word,
    age: u32,
    bits: u32,
    to: (Ipv4Addr, u16),
    mac: Mac,
    ifindex: u32,
}

#[derive(Clone, Debug)]
enum Shape {
    Plain,
    Syn,
    SynAck,
    Fin,
    Rst,
    Hops(u8),
    /// So many IPv4 options of 4 bytes, or these IPv6 extension headers, each with so many times 8 bytes more.
    Headers(usize, Vec<(u8, u8)>),
    /// The fragment with these times 8 bytes, of a packet with [`ID`].
    Fragment(usize, usize),
    Shortened(usize, usize),
    NoChecksum,
    /// An error about a packet of the first flow; from an end of it or from a router; it quotes so much.
    Error {
        complaint: Complaint,
        router: bool,
        quoted: usize,
    },
    Echo,
    /// Inside another packet to the node.
    Inside,
}

fn address() -> impl Strategy<Value = Ipv4Addr> {
    select(&ADDRESSES[..]).prop_map(|text| text.parse().expect("an address"))
}

fn tuple() -> impl Strategy<Value = Tuple> {
    use Protocol::{Sctp, Tcp, Udp};
    let protocol = select(&[Tcp, Tcp, Tcp, Udp, Udp, Udp, Sctp][..]);
    (protocol, address(), select(&PORTS[..]), address(), select(&PORTS[..]))
}

/// The packet's: more often than not to a frontend.
fn call() -> impl Strategy<Value = Tuple> {
    let vip = select(&["10.96.0.10", "10.96.0.11"][..]).prop_map(|vip| vip.parse().expect("an address"));
    let to_frontend =
        (tuple(), vip).prop_map(|((protocol, source, port, _, _), vip)| (protocol, source, port, vip, 80));
    prop_oneof![2 => to_frontend, 1 => tuple()]
}

fn next_hop() -> impl Strategy<Value = NextHopRow> {
    use NextHopKind::{Bridge, Gone, Host, Neighbour, None, Peer, Stack};
    let kinds = select(&[None, Peer, Bridge, Neighbour, Gone, Host, Stack][..]);
    let port = (select(&PODS[..]), kinds).prop_map(|(port, kind)| port.reached(kind));
    prop_oneof![6 => port, 1 => Just(outside())]
}

fn backend() -> impl Strategy<Value = Backend> {
    use BackendState::{Active, Draining, Free, Removed, Reset, Silent};
    use Scopes::{Both, Cluster, Local};
    let state = prop_oneof![4 => select(&[Active(Both), Active(Both), Active(Cluster), Active(Local)][..]), 1 => select(&[Draining, Silent, Free, Removed, Reset][..])];
    let at = (address(), select(&PORTS[..]));
    let place = (
        select(&[ZONE_UPLINK, BRIDGE.zone, OTHER_BRIDGE.zone, ZONE_OF_CLIENT][..]),
        proptest::bool::weighted(0.2),
    );
    (1..3u32, at, place, state, next_hop()).prop_map(|(service, at, (zone, elsewhere), state, next_hop)| {
        Backend { service, at, zone, state, next_hop, elsewhere }
    })
}

fn rules() -> impl Strategy<Value = Rules> {
    use FrontendKind::{ClusterIp, LoadBalancer, NodePort};
    let had = proptest::option::of(((1..5u32, 1..3u32), select(&[0u32, 100, 101][..])));
    let kind = select(&[ClusterIp, NodePort, LoadBalancer][..]);
    (kind, 0..4u32, any::<[bool; 3]>(), had).prop_map(|(kind, flags, [affinity, ranges, owned], had)| Rules {
        kind,
        flags,
        affinity,
        ranges,
        owned,
        had: had.map(|((low, generation), age)| (Word { low, generation }, age)),
    })
}

fn flow() -> impl Strategy<Value = Flow> {
    let ids = prop_oneof![8 => 1..5u32, 1 => select(&[0, NO_ROW, u32::MAX][..])];
    let backend = (ids, prop_oneof![5 => Just(1u32), 1 => Just(2)]);
    let age = select(&[0u32, 0, 1, 30, 31, 60, 61, 120, 121, 180, 181, 432_000, 432_001][..]);
    let bits = (0..0x40u32, 0..0x100u32, select(&[ZONE_UPLINK, BRIDGE.zone, OTHER_BRIDGE.zone][..]));
    let to = (address(), select(&PORTS[..]), select(&[RED, BLUE, ORANGE][..]));
    let zone = select(&[ZONE_UPLINK, BRIDGE.zone, OTHER_BRIDGE.zone][..]);
    (tuple(), zone, backend, age, bits, to, select(&DEVICES[..])).prop_map(
        |(tuple, zone, (low, generation), age, (low_bits, way, reverse), (addr, port, mac), ifindex)| Flow {
            tuple,
            zone,
            backend: Word { low, generation },
            age,
            bits: low_bits | way << 8 | u32::from(reverse) << 16,
            to: (addr, port),
            mac: mac_of(mac.at),
            ifindex,
        },
    )
}

fn place() -> impl Strategy<Value = (Settings, Hook, u32)> {
    let settings = vec![
        on(BRIDGE, NextHopKind::Peer),
        on(BRIDGE, NextHopKind::Bridge),
        on(BRIDGE, NextHopKind::Stack),
        on(OTHER_BRIDGE, NextHopKind::Peer),
        among_several(on(BRIDGE, NextHopKind::Peer)),
        on_uplink(),
        of_node(on_uplink()),
        Settings { several_uplinks: 1, ..on(BRIDGE, NextHopKind::Peer) },
        Settings { several_uplinks: 1, ..of_node(on_uplink()) },
    ];
    use Hook::{
        BridgeEgress, BridgeIngress, PortEgress, PortIngress, UplinkEgress, UplinkIngress, UplinkXdp,
    };
    let rare = vec![PortEgress, BridgeIngress, BridgeEgress, UplinkIngress, UplinkEgress, UplinkXdp];
    (select(settings), prop_oneof![2 => Just(PortIngress), 1 => select(rare)], select(&DEVICES[..]))
}

/// The zone of a device among several bridges, whatever it is in the cases.
fn port_zone(ifindex: u32) -> u16 {
    PODS.iter().find(|port| port.ifindex == ifindex).map_or(BRIDGE.zone, |port| port.bridge.zone)
}

/// They know the node's address.
fn of_node(mut settings: Settings) -> Settings {
    let node = *socket(NODE).ip();
    V4::set_host(&mut settings, node);
    V6::set_host(&mut settings, node);
    settings
}

fn error() -> impl Strategy<Value = Shape> {
    use Complaint::{PortUnreachable, TimeExceeded, TooBig};
    let complaint = select(&[PortUnreachable, TooBig(1280), TimeExceeded][..]);
    (complaint, proptest::bool::weighted(0.3), select(&[4, 8, 8, 17, 18, 60][..]))
        .prop_map(|(complaint, router, quoted)| Shape::Error { complaint, router, quoted })
}

fn shape() -> impl Strategy<Value = Shape> {
    let header = (select(&[0u8, 43, 44, 51, 60, 60, 60, 50][..]), 0..3u8);
    prop_oneof![
        6 => Just(Shape::Plain),
        2 => Just(Shape::Syn),
        1 => Just(Shape::SynAck),
        1 => Just(Shape::Fin),
        1 => Just(Shape::Rst),
        2 => (0..3u8).prop_map(Shape::Hops),
        2 => (1..11usize, vec(header, 1..10)).prop_map(|(options, chain)| Shape::Headers(options, chain)),
        2 => (select(&[0, 0, 1, 2][..]), 1..6usize).prop_map(|(from, len)| Shape::Fragment(from, from + len)),
        1 => (0..24usize, 0..24usize).prop_map(|(len, padding)| Shape::Shortened(len, padding)),
        1 => Just(Shape::NoChecksum),
        6 => error(),
        1 => Just(Shape::Echo),
        1 => Just(Shape::Inside),
    ]
}

/// Any scenario.
pub fn scenario() -> impl Strategy<Value = Scenario> {
    let slots = || vec(prop_oneof![19 => 1..5u32, 1 => Just(NO_ROW)], 0..6);
    let bytes = prop_oneof![6 => Just(Vec::new()), 1 => vec(any::<(Index, u8)>(), 1..4)];
    let first = select(&[First::Nothing, First::Its, First::ItsReplies][..]);
    let begun = proptest::option::of((1..3u32, select(&[0u32, 2, 3][..]), select(&[8u32, 16, 40][..])));
    let rows = (vec(backend(), 1..5), [slots(), slots()], rules(), vec(flow(), 0..5), first, begun);
    (rows, place(), call(), shape(), bytes, proptest::option::weighted(0.03, any::<Index>())).prop_map(
        |((backends, slots, rules, flows, first, begun), place, tuple, shape, bytes, cut)| Scenario {
            backends,
            slots,
            rules,
            flows,
            first,
            begun,
            place,
            tuple,
            shape,
            bytes,
            cut,
        },
    )
}

fn key<F: Net>(
    (protocol, source, source_port, destination, destination_port): Tuple,
    zone: u16,
) -> FlowKey<F> {
    FlowKey {
        src: F::addr(source),
        dst: F::addr(destination),
        src_port: source_port.to_be(),
        dst_port: destination_port.to_be(),
        zone,
        protocol: protocol as u16,
    }
}

/// An extension header: its number and all of it but its first byte.
fn extension(&(number, more): &(u8, u8)) -> (u8, Vec<u8>) {
    let more = if number == 44 { 0 } else { more };
    // An authentication header counts in words, and the first two do not count.
    let bytes = if number == 51 { 4 * (more as usize + 2) } else { 8 * (more as usize + 1) };
    let mut header = vec![more];
    header.resize(bytes - 1, 0);
    (number, header)
}

impl Scenario {
    /// Where the packet is seen.
    pub fn at(&self) -> At {
        let (settings, hook, ifindex) = self.place;
        At { settings, hook, ifindex, tagged: false, segment: 0 }
    }

    /// The zone that the packet is in.
    fn zone(&self) -> u16 {
        let (settings, hook, ifindex) = self.place;
        match settings.zone as u16 {
            _ if hook.is_uplink() => ZONE_UPLINK,
            0 if hook.is_port() => port_zone(ifindex),
            0 => bridge_zone(ifindex),
            only => only,
        }
    }

    /// The rows.
    pub fn state<F: Net>(&self) -> State<F> {
        use Protocol::{Sctp, Tcp, Udp};
        let Rules { kind, flags, affinity, ranges, owned, had } = self.rules;
        let mut state = State::default()
            .service(1, &[(Tcp, VIPS[0]), (Udp, VIPS[0])], &self.slots[0])
            .service(2, &[(Tcp, VIPS[1]), (Udp, VIPS[1]), (Sctp, VIPS[1])], &self.slots[1])
            .frontend(1, kind, Tcp, VIPS[0])
            .local(1, &self.slots[0][..self.slots[0].len() / 2])
            .uplink(UPLINK, BRIDGE.at)
            .set(1, |set| (set.flags, set.affinity) = (flags, if affinity { 100 } else { 0 }));
        if ranges {
            state = state.source_ranges(1, &[("10.244.1.2:0", 32), ("10.244.2.0:0", 24)]);
        }
        if owned {
            state = state.owned(VIPS[0]);
        }
        if let Some((backend, age)) = had {
            let key = AffinityKey { client: F::addr(self.tuple.1), service: 1 };
            let row = AffinityRow { backend, seen: 0u32.wrapping_sub(age), reserved: 0 };
            state.learned.affinity.insert(key, row);
        }
        for (id, backend) in (1..).zip(&self.backends) {
            let row = BackendRow {
                word: BackendWord::new(backend.state, id, 1).0,
                addr: F::addr(backend.at.0),
                port: backend.at.1.to_be(),
                zone: backend.zone,
                service: backend.service,
                node: if backend.elsewhere { F::addr(*socket(OTHER_NODE).ip()) } else { F::Addr::ZERO },
            };
            state.shared.prefilter(prefilter_hash(row.addr, row.port));
            state.side.backends.insert(id, row);
            state.shared.next_hops.insert(id, backend.next_hop);
        }
        // One has no row.
        for device in DEVICES.into_iter().filter(|device| *device != OTHER_UPLINK) {
            state.shared.bridge_ports.insert(device, port_zone(device).into());
        }
        if let Some((backend, age, bytes)) = self.begun {
            let flow = key::<F>(self.tuple, self.zone());
            let id = if F::TRANSPORT == 34 { ID.to_be() as u32 } else { (ID as u32).to_be() };
            let row = FragmentRow {
                backend: Word { low: backend, generation: 1 },
                src_port: flow.src_port,
                dst_port: flow.dst_port,
                seen: 0u32.wrapping_sub(age),
                bytes,
                total: 0,
                protocol: flow.protocol as u32,
            };
            state.learned.fragments.insert(FragmentKey::new(&flow, id), row);
        }
        for (index, flow) in self.flows.iter().enumerate() {
            let key = if index == 0 { self.first_key(flow) } else { key(flow.tuple, flow.zone) };
            let row = FlowRow {
                backend: flow.backend,
                seen: 0u32.wrapping_sub(flow.age),
                bits: flow.bits,
                addr: F::addr(flow.to.0),
                port: flow.to.1.to_be(),
                mac: flow.mac,
                ifindex: flow.ifindex,
            };
            state.learned.flows.insert(key, row);
        }
        state
    }

    fn first_key<F: Net>(&self, flow: &Flow) -> FlowKey<F> {
        let (protocol, source, source_port, ..) = self.tuple;
        let zone = self.zone();
        let backend = &self.backends[0];
        match self.first {
            First::Nothing => key(flow.tuple, flow.zone),
            First::Its => key(self.tuple, zone),
            First::ItsReplies => {
                let zone = if backend.zone == ZONE_OF_CLIENT { zone } else { backend.zone };
                key((protocol, backend.at.0, backend.at.1, source, source_port), zone)
            }
        }
    }

    /// The packet's bytes, and whether its checksum covers what may change.
    pub fn packet<F: Net>(&self) -> (Vec<u8>, bool) {
        let mut bytes = self.wire::<F>().bytes::<F>();
        for (index, byte) in &self.bytes {
            // In the headers, where it matters.
            let index = index.index(bytes.len().min(F::TRANSPORT + 20));
            bytes[index] = *byte;
        }
        if let Some(cut) = &self.cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let no_checksum = bytes.get(F::TRANSPORT + 6..F::TRANSPORT + 8) == Some(&[0, 0]);
        let message = matches!(self.shape, Shape::Error { .. } | Shape::Echo);
        // SCTP's covers neither addresses nor, by the rules of what is served, a change of ports.
        (bytes, message || !no_checksum && self.tuple.0 != Protocol::Sctp)
    }

    fn wire<F: Net>(&self) -> Wire {
        let (protocol, source, source_port, destination, destination_port) = self.tuple;
        let (client, called) =
            (format!("{source}:{source_port}"), format!("{destination}:{destination_port}"));
        let wire = of(protocol, &client, &called);
        let tcp = protocol == Protocol::Tcp;
        match self.shape {
            Shape::Syn if tcp => wire.syn(),
            Shape::SynAck if tcp => wire.syn_ack(),
            Shape::Fin if tcp => wire.fin(),
            Shape::Rst if tcp => wire.rst(),
            Shape::NoChecksum if protocol == Protocol::Udp => wire.no_checksum(),
            Shape::Hops(hops) => wire.hops(hops),
            Shape::Headers(options, _) if F::TRANSPORT == 34 => wire.options(options * 4),
            Shape::Headers(_, ref chain) => wire.extensions(&chain.iter().map(extension).collect::<Vec<_>>()),
            Shape::Fragment(from, to) => wire.piece(ID, from * 8, to * 8),
            Shape::Shortened(len, padding) => wire.shortened(len).padded(padding),
            Shape::Error { complaint, router, quoted } => {
                let (address, port) = self.backends[0].at;
                let backend = format!("{address}:{port}");
                // The other direction of what the flow is known by.
                let replies = matches!(self.first, First::ItsReplies);
                let (from, to) = if replies { (&client, &backend) } else { (&called, &client) };
                let at = if router { "198.51.100.1:0" } else { to };
                of(protocol, from, to).error_from(complaint, at).quoting(quoted)
            }
            Shape::Echo => echo(&client, &called),
            Shape::Inside => wire.inside(OTHER_NODE, NODE),
            Shape::Plain | Shape::Syn | Shape::SynAck | Shape::Fin | Shape::Rst | Shape::NoChecksum => wire,
        }
    }
}
