//! Ports of the node's: taking one for a flow is inserting the row of its replies where there is none, in a table that
//! never evicts.

use super::super::flow_table::{enter, find};
use super::super::step::{Next, Step};
use super::super::tables::{InsertError, Tables, prefilter_hash, state_of};
use super::super::{hook::Hook, packet::Packet, select::recorded};
use crate::{
    abi::{FlowKey, FlowRow, NextHopKind, SnatRow, Stop, flow_bits, maps::PORT_CURSOR_COUNT},
    family::{Address as _, Family},
    wire::Protocol,
};

/// How many ports are tried for a flow.
pub const PORT_TRIES: u32 = 32;

/// For how many ticks a port is kept for a client that has yet to show that it hears the backend, where
/// another flow wants it: a flood of clients that do not exist holds no port for longer.
const UNASSURED_TICKS: u32 = 5;

/// Lends a port to a new flow with the backend that was noted, and records it.
#[inline(always)]
pub fn allocate<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    _: Hook,
    _: Next,
) -> Result<Next, Stop> {
    let state = state_of(tables)?;
    let parsed = &state.parsed;
    let key = &parsed.key;
    let settings = tables.settings();
    let backend = state.backend.get();
    let (_, to) = tables.backend(backend.low).ok_or(Stop::Unsettled)?;
    let mut allocated = FlowKey {
        // By a mask: whole, LLVM would copy an IPv6 address by memmove.
        src: to.addr.masked(F::Addr::ONES),
        dst: F::host(settings),
        src_port: to.port,
        dst_port: key.src_port,
        zone: to.zone,
        protocol: key.protocol,
    };
    let old = || if state.stale.get() { find(tables, key) } else { None };
    let row = SnatRow {
        row: FlowRow {
            backend,
            seen: tables.now(),
            bits: flow_bits::REPLY
                | (NextHopKind::Uplink as u32) << flow_bits::RETURN_SHIFT
                | (key.zone as u32) << flow_bits::ZONE_SHIFT,
            addr: key.dst,
            port: key.dst_port,
            mac: parsed.source,
            ifindex: packet.ifindex(),
        },
        client: key.src,
        port: key.src_port,
        reserved: 0,
    };
    if parsed.protocol() == Protocol::Sctp {
        // Its checksum covers ports: the client's own, or none.
        if !take(tables, &allocated, &row)? {
            return Err(Stop::Clash);
        }
    } else {
        let ports = settings.snat_ports.max(1);
        let count = prefilter_hash(to.addr, to.port) % PORT_CURSOR_COUNT;
        // Asked for once more below: "R2 !read_ok" (kernel 6.18) where what it has not found is kept over the loop.
        let start = match old() {
            // A port that is used again gets the same one, most of the time. Towards another backend, that may be one
            // which somebody has yet to prove.
            Some((_, old)) if old.is_snat() && old.addr == to.addr && old.port == to.port => {
                (u16::from_be(old.snat_port()) as u32).wrapping_sub(settings.snat_first)
            }
            // Else the ports of the range take turns, towards each backend by themselves: the next one is that which
            // was allocated the longest ago. By ports that a hash chooses, 32 tries are used up where half to two thirds
            // of a range are allocated.
            _ => tables.advance_cursor(count, 1),
        } % ports;
        // Looked for first and then taken, so that the verifier walks what is little often and what is much once.
        let mut free = false;
        for attempt in 0..PORT_TRIES {
            let port = settings.snat_first + start.wrapping_add(attempt) % ports;
            allocated.dst_port = (port as u16).to_be();
            free = is_free(tables, &allocated, &row);
            if free {
                break;
            }
        }
        // The next flow need not try these. The number of tries, a constant in each of them, would be walked with all
        // that comes.
        let passed = (u16::from_be(allocated.dst_port) as u32).wrapping_sub(settings.snat_first + start);
        if passed != 0 {
            tables.advance_cursor(count, passed.wrapping_add(ports) % ports);
        }
        if !free || !take(tables, &allocated, &row)? {
            return Err(Stop::NoSnatPort);
        }
    }
    let request = FlowRow {
        bits: flow_bits::SNAT | (to.zone as u32) << flow_bits::ZONE_SHIFT,
        addr: to.addr,
        port: to.port,
        mac: [allocated.dst_port, 0, 0],
        ..row.row
    };
    let entered = enter(tables, key, request, old());
    if entered.is_err() {
        tables.remove_snat(&allocated);
        return entered.map(|()| Next::PASS);
    }
    recorded(tables, state, to.service);
    Ok(Step::Translate.into())
}

/// Takes one port for a flow, if nobody has it, or who had it is gone.
#[inline(always)]
fn take<F: Family, T: Tables<F>>(tables: &T, allocated: &FlowKey<F>, row: &SnatRow<F>) -> Result<bool, Stop> {
    match tables.insert_snat(allocated, row) {
        Ok(()) => return Ok(true),
        Err(InsertError::Full) => return Err(Stop::NoSnatPort),
        Err(InsertError::Exists) => {}
    }
    let Some(held) = tables.snat(allocated) else { return Ok(false) };
    let found = held.get();
    // Two may have seen that it is left. One of them has it.
    let ours = found.is_of(row) || is_left(tables, allocated, &found) && tables.claim(held, found.row.seen);
    if ours {
        tables.remove_snat(allocated);
    }
    Ok(ours && tables.insert_snat(allocated, row).is_ok())
}

/// Whether a flow may have a port.
#[inline(always)]
fn is_free<F: Family, T: Tables<F>>(tables: &T, allocated: &FlowKey<F>, row: &SnatRow<F>) -> bool {
    let Some(held) = tables.snat(allocated) else { return true };
    let found = held.get();
    found.is_of(row) || is_left(tables, allocated, &found)
}

/// Whether the flow that has a port is over, or nobody has shown that it is one.
#[inline(always)]
fn is_left<F: Family, T: Tables<F>>(tables: &T, allocated: &FlowKey<F>, found: &SnatRow<F>) -> bool {
    let Some(protocol) = Protocol::from_number(allocated.protocol as u8) else { return false };
    let now = tables.now();
    found.row.expired(protocol, now, &tables.settings().lifetimes)
        || !found.row.is_assured() && now.wrapping_sub(found.row.seen) > UNASSURED_TICKS
}

impl<F: Family> SnatRow<F> {
    /// Whether it is of the same client's flow to the same frontend.
    #[inline(always)]
    fn is_of(&self, other: &Self) -> bool {
        self.client == other.client
            && self.port == other.port
            && self.row.addr == other.row.addr
            && self.row.port == other.row.port
    }
}
