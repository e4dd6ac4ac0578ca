//! Calls of sockets on tables in memory, in both families.

mod node;

use lb_common::{
    abi::{
        AffinityKey, BackendState, BackendWord, Cidr, Counter, FrontendKind, Scopes, SocketEnd, SocketKey,
        set_flags,
    },
    family::{Address as _, Family, V4, V6},
    path::{Access, Caller, Peer, connect, send},
    wire::Protocol,
};

use self::node::{
    BACKENDS, Call, NODE, Node, PORT, RANGES, STRANGER, TARGET_PORT, VIP, addr, connection, datagram, host,
    peer, seen,
};

/// What is changed about the node, what is called, what that gets.
type Case<F> = (&'static str, fn(&mut Node<F>), (u8, u16), Access, Option<Counter>);

fn connects<F: Family>() {
    use Access::{Granted, Refused, Unreachable};
    let cases: [Case<F>; 12] = [
        ("a service", |_| {}, (VIP, PORT), Granted, Some(Counter::SocketConnected)),
        ("nobody's address", |_| {}, (STRANGER, PORT), Granted, None),
        ("no port, as resolvers ask", |_| {}, (VIP, 0), Granted, None),
        ("another port", |_| {}, (VIP, 81), Refused, Some(Counter::NoPort)),
        ("no backend", |node| node.set().len = 0, (VIP, PORT), Refused, Some(Counter::NoBackend)),
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
            |node| node.set().flags = set_flags::INTERNAL_LOCAL,
            (VIP, PORT),
            Unreachable,
            Some(Counter::NoLocalBackend),
        ),
        (
            "external policy Local does not hold the host",
            |node| {
                node.serve(FrontendKind::NodePort);
                node.set().flags = set_flags::EXTERNAL_LOCAL;
            },
            (VIP, PORT),
            Granted,
            Some(Counter::SocketConnected),
        ),
        (
            "a source range without the node",
            |node| {
                node.serve(FrontendKind::LoadBalancer);
                node.set().source_ranges = RANGES;
            },
            (VIP, PORT),
            Unreachable,
            Some(Counter::SourceRange),
        ),
        (
            "a source range with the node",
            |node| {
                node.serve(FrontendKind::LoadBalancer);
                node.set().source_ranges = RANGES;
                node.allow_node();
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
        let found = connection(&mut node, 1, peer(last, port));
        assert_eq!((found.0, found.2), (access, counter), "{name}");
        if counter == Some(Counter::SocketConnected) {
            let id = node.backend_at(found.1);
            assert!(BackendWord(node.backend(id).word).state().is_active(), "{name}");
        } else {
            assert_eq!(found.1, peer(last, port), "{name}: untouched");
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
    let mut node = Node::<V4>::new();
    let mut ping = Call { cookie: 1, caller: Caller::Host, protocol: None, peer: peer(VIP, 81) };
    assert_eq!(node.call(|tables| connect(&mut ping, tables)).0, Access::Granted);
    assert_eq!(ping.peer, peer(VIP, 81));
}

fn spread<F: Family>() {
    let mut node = Node::<F>::new();
    let mut taken = [0; 3];
    for cookie in 0..1000 {
        let (access, backend, _) = connection(&mut node, cookie, peer(VIP, PORT));
        assert_eq!(access, Access::Granted);
        taken[node.backend_at(backend) as usize] += 1;
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
        ("a refusal is the packets' as well", |node| node.set().len = 0, FrontendKind::ClusterIp, false),
        ("affinity", |node| node.set().affinity = 60, FrontendKind::ClusterIp, false),
        ("source ranges", |node| node.set().source_ranges = RANGES, FrontendKind::LoadBalancer, false),
        (
            "source ranges hold elsewhere",
            |node| node.set().source_ranges = RANGES,
            FrontendKind::ClusterIp,
            true,
        ),
        (
            "whatever the node is to them",
            |node| {
                node.set().source_ranges = RANGES;
                node.allow_node();
            },
            FrontendKind::LoadBalancer,
            false,
        ),
        (
            "affinity without a backend",
            |node| (node.set().affinity, node.set().len) = (60, 0),
            FrontendKind::ClusterIp,
            false,
        ),
    ];
    for (name, change, kind, translated) in cases {
        let mut node = Node::<F>::new();
        node.serve(kind);
        change(&mut node);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let to = peer(VIP, PORT);
            let mut call = Call { caller: Caller::Pod, ..host(1, protocol, to) };
            let (access, counter) = node.call(|tables| match protocol {
                Protocol::Tcp => connect(&mut call, tables),
                _ => send(&mut call, tables),
            });
            assert_eq!(access, Access::Granted, "{name}");
            assert_eq!(call.peer != to, translated, "{name}");
            assert_eq!(counter.is_some(), translated, "{name}");
        }
        assert!(node.learned.affinity.is_empty(), "{name}: nobody's backend is kept");
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
    node.set().affinity = 60;
    let mut taken = [0; 3];
    for cookie in 0..20 {
        let (access, backend, _) = connection(&mut node, cookie, peer(VIP, PORT));
        assert_eq!(access, Access::Granted);
        taken[node.backend_at(backend) as usize] += 1;
    }
    taken.sort_unstable();
    assert_eq!(taken, [0, 0, 20]);
    let known = AffinityKey { client: addr::<V6>(NODE), service: 1 };
    assert!(node.learned.affinity.contains_key(&known));
}

fn shows<F: Family>() {
    let mut node = Node::<F>::new();
    let (access, backend, _) = connection(&mut node, 1, peer(VIP, PORT));
    assert_eq!(access, Access::Granted);
    assert_eq!(seen(&mut node, 1, backend), peer(VIP, PORT));
    assert_eq!(seen(&mut node, 2, backend), backend, "another socket speaks to it by its own name");
    for other in [peer(STRANGER, TARGET_PORT), Peer { port: PORT, ..backend }] {
        assert_eq!(seen(&mut node, 1, other), other);
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
    let (access, first, counter) = datagram(&mut node, 1);
    assert_eq!((access, counter), (Granted, Some(Counter::SocketSent)));
    for _ in 0..20 {
        assert_eq!(datagram(&mut node, 1), (Granted, first, Some(Counter::SocketSent)), "it stays");
    }
    assert_eq!(seen(&mut node, 1, first), peer(VIP, PORT));
    let id = node.backend_at(first);
    let second = peer(BACKENDS[3 - id as usize], TARGET_PORT);

    node.set_state(id, BackendState::Draining, 7);
    assert_eq!(datagram(&mut node, 1).1, first, "a draining backend keeps its sockets");
    node.set_state(id, BackendState::Removed, 7);
    assert_eq!(datagram(&mut node, 1), (Granted, second, Some(Counter::SocketMoved)));
    assert_eq!(datagram(&mut node, 1), (Granted, second, Some(Counter::SocketSent)));
    for from in [first, second] {
        assert_eq!(seen(&mut node, 1, from), peer(VIP, PORT), "answers that were under way, too");
    }

    // The row of the way back may be evicted alone.
    let back =
        SocketKey { cookie: [1, 0], addr: second.addr, port: second.port, end: SocketEnd::Backend as u16 };
    node.learned.sockets.remove(&back);
    assert_eq!(datagram(&mut node, 1).1, second);
    assert_eq!(seen(&mut node, 1, second), peer(VIP, PORT), "made again");

    // The row of the map has been given to a backend anew; then to another service's.
    node.set_state(3 - id, BackendState::Active(Scopes::Both), 8);
    assert_eq!(datagram(&mut node, 1), (Granted, second, Some(Counter::SocketMoved)));
    node.set_state(id, BackendState::Active(Scopes::Both), 8);
    node.backend(3 - id).service = 2;
    assert_eq!(datagram(&mut node, 1), (Granted, first, Some(Counter::SocketMoved)));
    node.set_state(id, BackendState::Removed, 8);
    node.set().len = 0;
    assert_eq!(datagram(&mut node, 1), (Access::Refused, peer(VIP, PORT), Some(Counter::NoBackend)));
    node.side.frontends.clear();
    assert_eq!(datagram(&mut node, 1), (Granted, peer(VIP, PORT), None), "nobody's any more");
}

#[test]
fn a_socket_that_is_not_connected_moves_with_its_next_datagram() {
    moves::<V4>();
    moves::<V6>();
}
