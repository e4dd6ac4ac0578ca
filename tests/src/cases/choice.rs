//! From a frontend to a backend.

use lb_common::{
    abi::{BackendState, Counter, NextHopKind, NextHopRow, SlotRow, set_flags},
    path::Egress::Peer,
    wire::Protocol::{Tcp, Udp},
};

use crate::{
    case::{Case, case},
    family::Net,
    packet::{tcp, udp},
    state::{BLUE, BRIDGE, GREEN, RED, State, slots_of},
    world::{BACKEND, CLIENT, VIP, web, web_by},
};

pub fn cases<F: Net>() -> Vec<Case<F>> {
    vec![
        no_slots(),
        none_active(),
        unreachable(),
        unreachable_later(),
        foreign_slot(),
        foreign_set(),
        foreign_backend(),
        one_protocol_only(),
        other_port(),
        random(),
        spread(),
    ]
}

/// Service 1 with no slot to choose from.
fn no_slots<F: Net>() -> Case<F> {
    case("no backend: refused", State::default().service(1, &[(Tcp, VIP), (Udp, VIP)], &[]))
        .pod(RED, tcp(CLIENT, VIP).syn())
        .rejects(Counter::NoBackend)
        .pod(RED, udp(CLIENT, VIP))
        .rejects(Counter::NoBackend)
        .no_row(udp(CLIENT, VIP))
}

fn none_active<F: Net>() -> Case<F> {
    case("slots of a set that is about to be replaced: dropped", web())
        .change(|state| state.set_state(1, BackendState::Draining))
        .pod(RED, tcp(CLIENT, VIP).syn())
        .drops(Counter::Unsettled)
        .change(|state| state.set_state(1, BackendState::Removed))
        .pod(RED, udp(CLIENT, VIP))
        .drops(Counter::Unsettled)
}

fn unreachable<F: Net>() -> Case<F> {
    case("no way to the backend: dropped", web_by(BACKEND, BRIDGE.zone, NextHopRow::default()))
        .pod(RED, tcp(CLIENT, VIP).syn())
        .drops(Counter::Unreachable)
        .also(Counter::NewFlow)
}

fn unreachable_later<F: Net>() -> Case<F> {
    case("no way to the backend any more: dropped, until there is one again", web())
        .begins(tcp(CLIENT, VIP).syn())
        .change(|state| {
            state.shared.next_hops.insert(1, NextHopRow::default());
        })
        .pod(RED, tcp(CLIENT, VIP))
        .drops(Counter::Unreachable)
        .change(|state| {
            state.shared.next_hops.insert(1, GREEN.reached(NextHopKind::Peer));
        })
        .pod(RED, tcp(CLIENT, VIP))
        .request(Peer(GREEN.ifindex), BACKEND)
        .but(|packet| packet.link_to(GREEN.at))
}

/// A second service that owns what the first one's rows still name.
fn two<F: Net>() -> State<F> {
    web().service(2, &[(Tcp, "10.96.0.11:80")], &[2]).backend(
        2,
        2,
        "10.244.1.4:8080",
        BRIDGE.zone,
        GREEN.reached(NextHopKind::Peer),
    )
}

fn foreign_slot<F: Net>() -> Case<F> {
    case("a slot that was given to another service is not used", two())
        .change(|state| {
            state.shared.slots.insert(slots_of(1), SlotRow { backend: 2, service: 2 });
        })
        .pod(RED, tcp(CLIENT, VIP).syn())
        .drops(Counter::Unsettled)
}

fn foreign_set<F: Net>() -> Case<F> {
    case("a set that was given to another service is not used", two())
        .change(|state| state.shared.services.get_mut(&1).expect("service 1").low = 2)
        .pod(RED, tcp(CLIENT, VIP).syn())
        .drops(Counter::Unsettled)
}

fn foreign_backend<F: Net>() -> Case<F> {
    case("a backend's id that was given to another service is not used", two())
        .change(|state| {
            state.shared.slots.insert(slots_of(1), SlotRow { backend: 2, service: 1 });
        })
        .pod(RED, tcp(CLIENT, VIP).syn())
        .drops(Counter::Unsettled)
}

fn one_protocol_only<F: Net>() -> Case<F> {
    case("a service of one protocol", {
        State::default().service(1, &[(Tcp, VIP)], &[1]).backend(
            1,
            1,
            BACKEND,
            BRIDGE.zone,
            BLUE.reached(NextHopKind::Peer),
        )
    })
    .pod(RED, udp(CLIENT, VIP))
    .passes(Counter::NoFrontend)
    .begins(tcp(CLIENT, VIP))
}

fn other_port<F: Net>() -> Case<F> {
    case("a port that the service does not have", web())
        .pod(RED, tcp(CLIENT, "10.96.0.10:81").syn())
        .passes(Counter::NoFrontend)
}

fn random<F: Net>() -> Case<F> {
    case("a choice at random", web())
        .change(|state| state.shared.sets.get_mut(&1).expect("set 1").flags = set_flags::RANDOM)
        .begins(tcp(CLIENT, VIP).syn())
}

/// Weights are slots: one for blue, two for green. Which flow gets which is the hash's business, so it
/// is asked; that the hash spreads is another test's.
fn spread<F: Net>() -> Case<F> {
    let slots = [1, 2, 2];
    let state = State::default()
        .service(1, &[(Tcp, VIP), (Udp, VIP)], &slots)
        .backend(1, 1, BACKEND, BRIDGE.zone, BLUE.reached(NextHopKind::Peer))
        .backend(2, 1, "10.244.1.4:8080", BRIDGE.zone, GREEN.reached(NextHopKind::Peer));
    let mut spread = case("weights are slots", state);
    let mut chosen = [0, 0];
    for port in 40_000..40_060 {
        let packet = udp(&format!("10.244.1.2:{port}"), VIP);
        let backend = slots[super::clash::first_slot::<F>(&packet, slots.len())];
        chosen[backend as usize - 1] += 1;
        spread = spread.pod(RED, packet);
        spread = match backend {
            1 => spread.opens(Peer(BLUE.ifindex), BACKEND),
            _ => spread.opens(Peer(GREEN.ifindex), "10.244.1.4:8080"),
        };
    }
    assert!(chosen.iter().all(|count| *count > 5), "hardly a spread: {chosen:?}");
    spread
}
