//! Select: from a frontend to a backend for a new flow.

use super::{Tables, parse::Parsed};
use crate::{
    abi::{BackendRef, BackendRow, BackendState, Counter, FlowKey, FrontendKey, ZONE_UPLINK, set_flags},
    family::{Address, Family, scramble},
};

/// How many slots are tried when a chosen backend can't take the flow.
pub const TRIES: u32 = 4;

/// The hash that picks a slot: every node with the same seed picks the same for a 5-tuple.
#[inline(always)]
pub fn slot_hash<F: Family>(key: &FlowKey<F>, seed: u32) -> u32 {
    let ports = (key.src_port as u32) << 16 | key.dst_port as u32;
    scramble(scramble(scramble(key.src.mix() ^ seed) ^ key.dst.mix()) ^ ports ^ key.protocol as u32)
}

/// A backend that takes new flows.
pub struct Choice<'a, F: Family> {
    /// Its id and generation.
    pub backend: BackendRef,
    /// Its row.
    pub row: &'a BackendRow<F>,
}

/// The service a packet is for.
#[inline(always)]
pub fn service<F: Family, T: Tables<F>>(tables: &T, parsed: &Parsed<F>) -> Result<u32, Counter> {
    let key = FrontendKey {
        addr: parsed.key.dst,
        port: parsed.key.dst_port,
        zone: ZONE_UPLINK,
        protocol: parsed.key.protocol as u32,
    };
    tables.frontend(&key).map(|frontend| frontend.service).ok_or(Counter::NoFrontend)
}

/// The backend of the `attempt`-th try for a flow of `service`; `Ok(None)`: this one can't, try again.
#[inline(always)]
pub fn backend<'a, F: Family, T: Tables<F>>(
    tables: &'a T,
    parsed: &Parsed<F>,
    service: u32,
    attempt: u32,
) -> Result<Option<Choice<'a, F>>, Counter> {
    let word = tables.service(service).ok_or(Counter::NoBackend)?;
    let set = tables.set(word.low).ok_or(Counter::NoBackend)?;
    if set.service != service {
        return Ok(None); // The set was given away between two reads: look again.
    }
    if set.len == 0 {
        return Err(Counter::NoBackend);
    }
    let hash = if set.flags & set_flags::RANDOM != 0 {
        tables.random()
    } else {
        slot_hash(&parsed.key, tables.settings().hash_seed)
    };
    // Another try starts elsewhere in the table. The product maps 32 bits evenly onto the length.
    let hash = hash.wrapping_add(attempt.wrapping_mul(0x9e37_79b9));
    let index = set.first.wrapping_add(((hash as u64 * set.len as u64) >> 32) as u32);
    let slot = tables.slot(index).ok_or(Counter::NoBackend)?;
    if slot.service != service {
        return Ok(None);
    }
    let Some((word, row)) = tables.backend(slot.backend) else { return Ok(None) };
    if word.state() != BackendState::Active || row.service != service {
        return Ok(None);
    }
    let backend = BackendRef { low: slot.backend, generation: word.0.generation };
    Ok(Some(Choice { backend, row }))
}
