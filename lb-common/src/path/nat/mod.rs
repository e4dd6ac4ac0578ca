//! NAT: what becomes of a flow's addresses, by its kind.

pub mod dnat;
pub mod dsr;
pub mod ports;
pub mod snat;

use super::{flow_table::Found, hook::Hook, packet::Packet, state::Parsed, tables::Tables};
use crate::{
    abi::{BackendRow, FlowKey, FlowRow, flow_bits},
    family::Family,
};

/// The kinds of translation. What comes from outside alone can be of the last two.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Nat {
    /// To the backend's address, from the client's own.
    Dnat,
    /// To the backend's address, from a port of the node's.
    Snat,
    /// Inside another packet to the backend's node, unchanged.
    Dsr,
}

impl Nat {
    /// That of a known flow, by its row.
    #[inline(always)]
    pub fn of<F: Family>(hook: Hook, row: &FlowRow<F>) -> Nat {
        if snat::is_of(hook, row) {
            Nat::Snat
        } else if dsr::is_of(hook, row) {
            Nat::Dsr
        } else {
            Nat::Dnat
        }
    }

    /// That of a new flow to a backend.
    #[inline(always)]
    pub fn to<F: Family, T: Tables<F>>(tables: &T, hook: Hook, backend: &BackendRow<F>) -> Nat {
        if dsr::is_needed(hook, backend) {
            Nat::Dsr
        } else if snat::is_needed(tables, hook, backend) {
            Nat::Snat
        } else {
            Nat::Dnat
        }
    }
}

/// The addresses and ports that a packet gets. Inside another it keeps its own: what it would get otherwise.
#[inline(always)]
pub fn translated<F: Family, T: Tables<F>>(
    tables: &T,
    hook: Hook,
    key: &FlowKey<F>,
    row: &FlowRow<F>,
) -> FlowKey<F> {
    match Nat::of(hook, row) {
        Nat::Snat => snat::translated(tables, key, row),
        Nat::Dnat | Nat::Dsr => dnat::translated(key, row),
    }
}

/// Notes a client's packet of a known flow.
#[inline(always)]
pub fn request<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    hook: Hook,
    parsed: &Parsed<F>,
    found: Found<'_, F>,
) {
    match Nat::of(hook, &found.1) {
        Nat::Dnat => dnat::request(packet, tables, hook, parsed, found),
        Nat::Snat => snat::request(packet, tables, parsed, found),
        Nat::Dsr => dsr::keep(tables, parsed, found),
    }
}

/// Notes on all rows of a client's flow that it is over.
#[inline(always)]
pub fn end<F: Family, T: Tables<F>>(tables: &T, hook: Hook, parsed: &Parsed<F>, (row, known): Found<'_, F>) {
    FlowRow::set_bits(row, known.bits | flow_bits::RESET);
    match Nat::of(hook, &known) {
        Nat::Dnat => dnat::end(tables, &parsed.key, &known),
        Nat::Snat => snat::end(tables, &parsed.key, &known),
        Nat::Dsr => {}
    }
}
