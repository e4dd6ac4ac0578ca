//! Calls of sockets on tables in memory, in both families.

extern crate std;

use core::cell::{Cell, RefCell};
use std::{collections::HashMap, vec, vec::Vec};

use bytemuck::Zeroable as _;

use super::*;
use crate::{
    abi::{
        AffinityKey, AffinityRow, BackendState, BackendWord, Cidr, Counter, FlowRow, FragmentKey,
        FragmentRow, FrontendKey, FrontendKind, FrontendRow, Mac, NeighKey, NextHopKind, NextHopRow, Scopes,
        ServiceRow, SetRow, Settings, SlotRow, SnatRow, SourceGuardRow, Word, set_flags,
    },
    family::{Address as _, V4, V6},
    path::{Common, Insert, InsertError, PacketState, Parsed, Table},
};

/// Last parts of addresses.
const NODE: u8 = 1;
const VIP: u8 = 10;
const STRANGER: u8 = 99;
/// The backends, by id.
const BACKENDS: [u8; 3] = [0, 201, 202];
const PORT: u16 = 80_u16.to_be();
const TARGET_PORT: u16 = 8080_u16.to_be();

fn addr<F: Family>(last: u8) -> F::Addr {
    let bytes = [10, 0, 0, last, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    bytemuck::pod_read_unaligned(&bytes[..size_of::<F::Addr>()])
}

fn peer<F: Family>(last: u8, port: u16) -> Peer<F> {
    Peer { addr: addr::<F>(last), port }
}

/// A service, row 1, with two backends.
struct Node<F: Family> {
    settings: Settings,
    frontends: HashMap<FrontendKey<F>, FrontendRow>,
    set: SetRow,
    backends: Vec<BackendRow<F>>,
    /// The sources that are in range.
    sources: Vec<F::Addr>,
    random: Cell<u32>,
    room: bool,
    affinity: RefCell<HashMap<AffinityKey<F>, AffinityRow>>,
    sockets: RefCell<HashMap<SocketKey<F>, SocketRow<F>>>,
    counted: RefCell<Vec<Counter>>,
}

impl<F: Family> Node<F> {
    fn new() -> Self {
        let mut settings = Settings::zeroed();
        settings.return_path = NextHopKind::Host as u32;
        settings.cidrs4 = [Cidr::NONE; 4];
        settings.cidrs6 = [Cidr::NONE; 4];
        settings.host4 = addr::<V4>(NODE);
        settings.host6 = addr::<V6>(NODE);
        let backend = |id: usize| BackendRow {
            node: F::Addr::ZERO,
            word: BackendWord::new(BackendState::Active(Scopes::Cluster), 0, 7).0,
            addr: addr::<F>(BACKENDS[id]),
            port: TARGET_PORT,
            zone: 0,
            service: 1,
        };
        let mut node = Node {
            settings,
            frontends: HashMap::new(),
            set: SetRow { len: 2, service: 1, ..SetRow::default() },
            backends: vec![BackendRow::default(), backend(1), backend(2)],
            sources: Vec::new(),
            random: Cell::new(1),
            room: true,
            affinity: RefCell::default(),
            sockets: RefCell::default(),
            counted: RefCell::default(),
        };
        node.serve(FrontendKind::ClusterIp);
        node
    }

    fn serve(&mut self, kind: FrontendKind) {
        for (port, protocol, kind) in [(PORT, 17, kind), (PORT, 6, kind), (0, 0, FrontendKind::Address)] {
            let key = FrontendKey { addr: addr::<F>(VIP), port, zone: 0, protocol };
            self.frontends.insert(key, FrontendRow { service: 1, kind: kind as u32 });
        }
    }

    fn set_state(&mut self, id: usize, state: BackendState, generation: u32) {
        self.backends[id].word = BackendWord::new(state, 0, generation).0;
    }

    /// The id of the backend at an end.
    fn backend_at(&self, at: Peer<F>) -> usize {
        let here = |row: &BackendRow<F>| row.addr == at.addr && row.port == at.port;
        self.backends.iter().position(here).expect("a backend's address")
    }
}

impl<F: Family> Common for Node<F> {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn now(&self) -> u32 {
        0
    }

    fn random(&self) -> u32 {
        self.random.set(self.random.get().wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f));
        self.random.get() >> 16
    }

    fn prefilter(&self, hash: u32) -> bool {
        hash == prefilter_hash(addr::<F>(VIP), 0)
            || BACKENDS.iter().any(|last| hash == prefilter_hash(addr::<F>(*last), TARGET_PORT))
    }

    fn service(&self, id: u32) -> Option<ServiceRow> {
        (id == 1).then_some(Word { low: 1, generation: 1 })
    }

    fn set(&self, index: u32) -> Option<SetRow> {
        (index == 1).then_some(self.set)
    }

    fn slot(&self, index: u32) -> Option<SlotRow> {
        (index < 2).then_some(SlotRow { backend: index + 1, service: 1 })
    }

    fn next_hop(&self, _index: u32) -> Option<NextHopRow> {
        None
    }

    fn proxy_neigh(&self, _key: &NeighKey) -> Option<Mac> {
        None
    }

    fn source_guard(&self, _key: &NeighKey) -> Option<SourceGuardRow> {
        None
    }

    fn bridge_port(&self, _ifindex: u32) -> Option<u16> {
        None
    }

    fn count(&self, counter: Counter) {
        self.counted.borrow_mut().push(counter);
    }

    fn account(&self, _service: u32, _bytes: u32) {}
}

impl<F: Family> Tables<F> for Node<F> {
    fn begin(&self, _: &Parsed<F>, _: bool) {}

    fn state(&self) -> Option<&PacketState<F>> {
        None
    }

    fn proof(&self, _: &FlowKey<F>) -> Option<&Cell<u32>> {
        None
    }

    fn flow(&self, _: Table, _: &FlowKey<F>) -> Option<&Cell<FlowRow<F>>> {
        None
    }

    fn insert_flow(&self, _: Table, _: FlowKey<F>, _: FlowRow<F>, _: Insert) -> Result<(), InsertError> {
        Err(InsertError::Full)
    }

    fn remove_flow(&self, _: Table, _: &FlowKey<F>) {}

    fn snat(&self, _: &FlowKey<F>) -> Option<&Cell<SnatRow<F>>> {
        None
    }

    fn insert_snat(&self, _: &FlowKey<F>, _: &SnatRow<F>) -> Result<(), InsertError> {
        Err(InsertError::Full)
    }

    fn advance_cursor(&self, _: u32, _: u32) -> u32 {
        0
    }

    fn remove_snat(&self, _: &FlowKey<F>) {}

    fn claim(&self, _: &Cell<SnatRow<F>>, _: u32) -> bool {
        false
    }

    fn fragments(&self, _: &FragmentKey<F>) -> Option<&Cell<FragmentRow>> {
        None
    }

    fn keep_fragments(&self, _: FragmentKey<F>, _: FragmentRow) {}

    fn forget_fragments(&self, _: &FragmentKey<F>) {}

    fn frontend(&self, key: &FrontendKey<F>) -> Option<FrontendRow> {
        self.frontends.get(key).copied()
    }

    fn affinity(&self, key: &AffinityKey<F>) -> Option<AffinityRow> {
        self.affinity.borrow().get(key).copied()
    }

    fn keep_affinity(&self, key: AffinityKey<F>, row: AffinityRow) {
        self.affinity.borrow_mut().insert(key, row);
    }

    fn in_range(&self, _set: u32, addr: F::Addr) -> bool {
        self.sources.contains(&addr)
    }

    fn backend(&self, id: u32) -> Option<(BackendWord, &BackendRow<F>)> {
        let row = self.backends.get(id as usize)?;
        Some((BackendWord(row.word), row))
    }
}

impl<F: Family> Sockets<F> for Node<F> {
    fn socket(&self, key: &SocketKey<F>) -> Option<SocketRow<F>> {
        self.sockets.borrow().get(key).copied()
    }

    fn keep_socket(&self, key: SocketKey<F>, row: SocketRow<F>) -> bool {
        if self.room {
            self.sockets.borrow_mut().insert(key, row);
        }
        self.room
    }
}

/// A call of a socket.
struct Call<F: Family> {
    cookie: u32,
    caller: Caller,
    protocol: Option<Protocol>,
    peer: Peer<F>,
}

impl<F: Family> Socket<F> for Call<F> {
    fn cookie(&self) -> [u32; 2] {
        [self.cookie, 0]
    }

    fn caller(&self) -> Caller {
        self.caller
    }

    fn protocol(&self) -> Option<Protocol> {
        self.protocol
    }

    fn peer(&self) -> Peer<F> {
        self.peer
    }

    fn set_peer(&mut self, peer: Peer<F>) {
        self.peer = peer;
    }
}

fn tcp<F: Family>(cookie: u32, peer: Peer<F>) -> Call<F> {
    Call { cookie, caller: Caller::Host, protocol: Some(Protocol::Tcp), peer }
}

/// One datagram to the frontend: what became of it, and where it went.
fn datagram<F: Family>(node: &Node<F>, cookie: u32) -> (Access, Peer<F>, Option<Counter>) {
    node.counted.borrow_mut().clear();
    let mut call =
        Call { cookie, caller: Caller::Host, protocol: Some(Protocol::Udp), peer: peer(VIP, PORT) };
    let access = send(&mut call, node);
    (access, call.peer, node.counted.borrow().last().copied())
}

/// Who a datagram from there is shown to be from.
fn seen<F: Family>(node: &Node<F>, cookie: u32, from: Peer<F>) -> Peer<F> {
    let mut call = Call { cookie, caller: Caller::Host, protocol: Some(Protocol::Udp), peer: from };
    shown(&mut call, node);
    call.peer
}

/// What is changed about the node, what is called, what that gets.
type Case<F> = (&'static str, fn(&mut Node<F>), (u8, u16), Access, Option<Counter>);

fn connects<F: Family>() {
    use Access::{Granted, Refused, Unreachable};
    let cases: [Case<F>; 12] = [
        ("a service", |_| {}, (VIP, PORT), Granted, Some(Counter::SocketConnected)),
        ("nobody's address", |_| {}, (STRANGER, PORT), Granted, None),
        ("no port, as resolvers ask", |_| {}, (VIP, 0), Granted, None),
        ("another port", |_| {}, (VIP, 81), Refused, Some(Counter::NoPort)),
        ("no backend", |node| node.set.len = 0, (VIP, PORT), Refused, Some(Counter::NoBackend)),
        (
            "an address that no service has",
            |node| {
                node.settings.cidrs4[0] =
                    Cidr { net: addr::<V4>(STRANGER), mask: <V4 as Family>::Addr::ONES };
                node.settings.cidrs6[0] =
                    Cidr { net: addr::<V6>(STRANGER), mask: <V6 as Family>::Addr::ONES };
            },
            (STRANGER, PORT),
            Unreachable,
            Some(Counter::UnassignedVip),
        ),
        (
            "internal policy Local, none here",
            |node| node.set.flags = set_flags::INTERNAL_LOCAL,
            (VIP, PORT),
            Unreachable,
            Some(Counter::NoLocalBackend),
        ),
        (
            "external policy Local does not hold the host",
            |node| {
                node.serve(FrontendKind::NodePort);
                node.set.flags = set_flags::EXTERNAL_LOCAL;
            },
            (VIP, PORT),
            Granted,
            Some(Counter::SocketConnected),
        ),
        (
            "a source range without the node",
            |node| {
                node.serve(FrontendKind::LoadBalancer);
                node.set.source_ranges = 5;
            },
            (VIP, PORT),
            Unreachable,
            Some(Counter::SourceRange),
        ),
        (
            "a source range with the node",
            |node| {
                node.serve(FrontendKind::LoadBalancer);
                node.set.source_ranges = 5;
                node.sources.push(addr::<F>(NODE));
            },
            (VIP, PORT),
            Granted,
            Some(Counter::SocketConnected),
        ),
        ("no room", |node| node.room = false, (VIP, PORT), Unreachable, Some(Counter::TableFull)),
        (
            "one backend takes new flows",
            |node| node.set_state(1, BackendState::Draining, 7),
            (VIP, PORT),
            Granted,
            Some(Counter::SocketConnected),
        ),
    ];
    for (name, change, (last, port), access, counter) in cases {
        let mut node = Node::<F>::new();
        change(&mut node);
        let mut call = tcp(1, peer(last, port));
        assert_eq!(connect(&mut call, &node), access, "{name}");
        assert_eq!(node.counted.borrow().last().copied(), counter, "{name}");
        if counter == Some(Counter::SocketConnected) {
            let id = node.backend_at(call.peer);
            assert!(BackendWord(node.backends[id].word).state().is_active(), "{name}");
        } else {
            assert_eq!(call.peer, peer(last, port), "{name}: untouched");
        }
    }
}

#[test]
fn where_a_socket_connects_to() {
    connects::<V4>();
    connects::<V6>();
}

#[test]
fn protocols_that_are_not_balanced_are_left_alone() {
    let node = Node::<V4>::new();
    let mut ping = Call { cookie: 1, caller: Caller::Host, protocol: None, peer: peer(VIP, 81) };
    assert_eq!(connect(&mut ping, &node), Access::Granted);
    assert_eq!(ping.peer, peer(VIP, 81));
}

fn spread<F: Family>() {
    let node = Node::<F>::new();
    let mut taken = [0; 3];
    for cookie in 0..1000 {
        let mut call = tcp(cookie, peer(VIP, PORT));
        assert_eq!(connect(&mut call, &node), Access::Granted);
        taken[node.backend_at(call.peer)] += 1;
    }
    assert!(taken[1] > 400 && taken[2] > 400, "{taken:?}");
}

#[test]
fn all_backends_get_their_share() {
    spread::<V4>();
    spread::<V6>();
}

/// What is changed about the node, which kind of frontend, and whether a pod's socket is translated.
type OfPod<F> = (&'static str, fn(&mut Node<F>), FrontendKind, bool);

fn pods<F: Family>() {
    let cases: [OfPod<F>; 7] = [
        ("a service", |_| {}, FrontendKind::ClusterIp, true),
        ("a refusal is the packets' as well", |node| node.set.len = 0, FrontendKind::ClusterIp, false),
        ("affinity", |node| node.set.affinity = 60, FrontendKind::ClusterIp, false),
        ("source ranges", |node| node.set.source_ranges = 5, FrontendKind::LoadBalancer, false),
        ("source ranges hold elsewhere", |node| node.set.source_ranges = 5, FrontendKind::ClusterIp, true),
        (
            "whatever the node is to them",
            |node| {
                node.set.source_ranges = 5;
                node.sources.push(addr::<F>(NODE));
            },
            FrontendKind::LoadBalancer,
            false,
        ),
        (
            "affinity without a backend",
            |node| (node.set.affinity, node.set.len) = (60, 0),
            FrontendKind::ClusterIp,
            false,
        ),
    ];
    for (name, change, kind, translated) in cases {
        let mut node = Node::<F>::new();
        node.serve(kind);
        change(&mut node);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            node.counted.borrow_mut().clear();
            let to = peer(VIP, PORT);
            let mut call = Call { cookie: 1, caller: Caller::Pod, protocol: Some(protocol), peer: to };
            let access =
                if protocol == Protocol::Tcp { connect(&mut call, &node) } else { send(&mut call, &node) };
            assert_eq!(access, Access::Granted, "{name}");
            assert_eq!(call.peer != to, translated, "{name}");
            assert_eq!(!node.counted.borrow().is_empty(), translated, "{name}");
        }
        assert!(node.affinity.borrow().is_empty(), "{name}: nobody's backend is kept");
    }
}

#[test]
fn what_depends_on_a_pods_address_is_left_to_its_packets() {
    pods::<V4>();
    pods::<V6>();
}

#[test]
fn affinity_takes_the_host_for_one_client() {
    let mut node = Node::<V6>::new();
    node.set.affinity = 60;
    let mut taken = [0; 3];
    for cookie in 0..20 {
        let mut call = tcp(cookie, peer(VIP, PORT));
        assert_eq!(connect(&mut call, &node), Access::Granted);
        taken[node.backend_at(call.peer)] += 1;
    }
    taken.sort_unstable();
    assert_eq!(taken, [0, 0, 20]);
    let known = AffinityKey { client: addr::<V6>(NODE), service: 1 };
    assert!(node.affinity.borrow().contains_key(&known));
}

fn shows<F: Family>() {
    let node = Node::<F>::new();
    let mut call = tcp(1, peer(VIP, PORT));
    assert_eq!(connect(&mut call, &node), Access::Granted);
    let backend = call.peer;
    assert_eq!(seen(&node, 1, backend), peer(VIP, PORT));
    assert_eq!(seen(&node, 2, backend), backend, "another socket speaks to it by its own name");
    for other in [peer(STRANGER, TARGET_PORT), Peer { port: PORT, ..backend }] {
        assert_eq!(seen(&node, 1, other), other);
    }
}

#[test]
fn an_application_is_shown_what_it_named() {
    shows::<V4>();
    shows::<V6>();
}

fn moves<F: Family>() {
    use Access::Granted;
    let mut node = Node::<F>::new();
    let (access, first, counter) = datagram(&node, 1);
    assert_eq!((access, counter), (Granted, Some(Counter::SocketSent)));
    for _ in 0..20 {
        assert_eq!(datagram(&node, 1), (Granted, first, Some(Counter::SocketSent)), "it stays");
    }
    assert_eq!(seen(&node, 1, first), peer(VIP, PORT));
    let id = node.backend_at(first);
    let second = peer(BACKENDS[3 - id], TARGET_PORT);

    node.set_state(id, BackendState::Draining, 7);
    assert_eq!(datagram(&node, 1).1, first, "a draining backend keeps its sockets");
    node.set_state(id, BackendState::Removed, 7);
    assert_eq!(datagram(&node, 1), (Granted, second, Some(Counter::SocketMoved)));
    assert_eq!(datagram(&node, 1), (Granted, second, Some(Counter::SocketSent)));
    for from in [first, second] {
        assert_eq!(seen(&node, 1, from), peer(VIP, PORT), "answers that were under way, too");
    }

    // The row of the way back may be evicted alone.
    let back =
        SocketKey { cookie: [1, 0], addr: second.addr, port: second.port, end: SocketEnd::Backend as u16 };
    node.sockets.borrow_mut().remove(&back);
    assert_eq!(datagram(&node, 1).1, second);
    assert_eq!(seen(&node, 1, second), peer(VIP, PORT), "made again");

    // The row of the map has been given to a backend anew; then to another service's.
    node.set_state(3 - id, BackendState::Active(Scopes::Both), 8);
    assert_eq!(datagram(&node, 1), (Granted, second, Some(Counter::SocketMoved)));
    node.set_state(id, BackendState::Active(Scopes::Both), 8);
    node.backends[3 - id].service = 2;
    assert_eq!(datagram(&node, 1), (Granted, first, Some(Counter::SocketMoved)));
    node.set_state(id, BackendState::Removed, 8);
    node.set.len = 0;
    assert_eq!(datagram(&node, 1), (Access::Refused, peer(VIP, PORT), Some(Counter::NoBackend)));
    node.frontends.clear();
    assert_eq!(datagram(&node, 1), (Granted, peer(VIP, PORT), None), "nobody's any more");
}

#[test]
fn a_socket_that_is_not_connected_moves_with_its_next_datagram() {
    moves::<V4>();
    moves::<V6>();
}
