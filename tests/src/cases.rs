//! The cases, one file per subject, and the rows they share.

mod bridges;
mod choice;
mod clash;
mod direct;
mod dsr;
mod flooded;
mod foreign;
mod forward;
mod fragments;
mod frontends;
mod gone;
mod hairpin;
mod headers;
mod icmp;
mod lifecycle;
mod malformed;
mod neighbour;
mod oversized;
mod refused;
mod snat;
mod spoofed;
mod unassured;
mod uplinks;
mod vlan;
mod xdp;

use lb_common::wire::Protocol::{self, Tcp};

use crate::{
    case::{Case, case},
    family::Net,
    packet::{first, of, tcp},
    state::State,
    world::{BACKEND, CLIENT, VIP},
};

/// Every case, read as family `F`.
pub fn all<F: Net>() -> Vec<Case<F>> {
    [
        forward::cases::<F>(),
        fragments::cases(),
        hairpin::cases(),
        icmp::cases(),
        oversized::cases(),
        headers::cases(),
        bridges::cases(),
        vlan::cases(),
        lifecycle::cases(),
        gone::cases(),
        flooded::cases(),
        choice::cases(),
        clash::cases(),
        direct::cases(),
        unassured::cases(),
        uplinks::cases(),
        spoofed::cases(),
        foreign::cases(),
        malformed::cases(),
        neighbour::cases(),
        frontends::cases(),
        refused::cases(),
        snat::cases(),
        xdp::cases(),
        dsr::cases(),
    ]
    .concat()
}

/// A flow of [`CLIENT`] to [`VIP`] over these rows that [`BACKEND`] has answered; red and blue are at their ports.
fn answered<F: Net>(name: impl Into<String>, state: State<F>, protocol: Protocol) -> Case<F> {
    let answer = match protocol {
        Tcp => tcp(BACKEND, CLIENT).syn_ack(),
        protocol => of(protocol, BACKEND, CLIENT),
    };
    case(name, state).begins(first(protocol, CLIENT, VIP)).answers(answer)
}

/// The same, and the client has shown that it heard it.
fn assured<F: Net>(name: impl Into<String>, state: State<F>, protocol: Protocol) -> Case<F> {
    answered(name, state, protocol).asks(of(protocol, CLIENT, VIP)).assures()
}
