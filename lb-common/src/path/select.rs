//! Select: from a frontend to a backend for a new flow.

use super::Tables;
use crate::{
    abi::{
        AffinityKey, AffinityRow, BackendRef, BackendRow, Cidr, Counter, FlowKey, FrontendKey, FrontendKind,
        Scope, SetRow, ZONE_UPLINK, set_flags,
    },
    family::{Address, Family, scramble},
};

/// How many slots are tried when a chosen backend can't take the flow.
pub const TRIES: u32 = 6;

/// The hash that picks a slot: every node with the same seed picks the same for a 5-tuple.
#[inline(always)]
pub fn slot_hash<F: Family>(key: &FlowKey<F>, seed: u32) -> u32 {
    let ports = (key.src_port as u32) << 16 | key.dst_port as u32;
    scramble(scramble(scramble(key.src.mix() ^ seed) ^ key.dst.mix()) ^ ports ^ key.protocol as u32)
}

/// The hash that picks a slot where a client keeps its backend: of its address alone.
#[inline(always)]
pub fn client_hash<A: Address>(client: A, seed: u32) -> u32 {
    scramble(client.mix() ^ seed)
}

/// What a client calls.
#[derive(Copy, Clone)]
pub struct Target {
    /// The service row.
    pub service: u32,
    /// Which frontend of it.
    pub kind: FrontendKind,
}

/// A backend that takes new flows.
pub struct Choice<'a, F: Family> {
    /// Its id and generation.
    pub backend: BackendRef,
    /// Its row.
    pub row: &'a BackendRow<F>,
    /// The client is to get it again.
    pub keep: bool,
}

/// The service that a packet to `key`'s destination is for, or what becomes of it without one.
#[inline(always)]
pub fn target<F: Family, T: Tables<F>>(tables: &T, key: &FlowKey<F>) -> Result<Target, Counter> {
    let mut frontend =
        FrontendKey { addr: key.dst, port: key.dst_port, zone: ZONE_UPLINK, protocol: key.protocol as u32 };
    if let Some(row) = tables.frontend(&frontend) {
        return Ok(Target { service: row.service, kind: FrontendKind::from_bits(row.kind) });
    }
    (frontend.port, frontend.protocol) = (0, 0);
    if tables.frontend(&frontend).is_some() {
        return Err(Counter::NoPort);
    }
    Err(if is_unowned::<F, T>(tables, key.dst) { Counter::Unowned } else { Counter::NoFrontend })
}

/// Whether an address that is no frontend's is one of the ranges of service addresses.
#[inline(always)]
pub fn is_unowned<F: Family, T: Tables<F>>(tables: &T, addr: F::Addr) -> bool {
    let [a, b, c, d] = F::cidrs(tables.settings());
    let holds = |cidr: &Cidr<F>| cidr.holds(addr);
    holds(a) || holds(b) || holds(c) || holds(d)
}

/// The backends a client may get: all usable ones, or those on this node. Policies of frontends that are
/// reached from outside hold for who comes from there: pods and the host itself get all.
#[inline(always)]
pub fn scope(kind: FrontendKind, set: &SetRow, outside: bool) -> Scope {
    let local = match kind {
        FrontendKind::ClusterIp => set.flags & set_flags::INTERNAL_LOCAL != 0,
        _ => outside && set.flags & set_flags::EXTERNAL_LOCAL != 0,
    };
    if local { Scope::Local } else { Scope::Cluster }
}

/// The backend of the `attempt`-th try for a new flow; `Ok(None)`: this one can't, try again.
#[inline(always)]
pub fn backend<'a, F: Family, T: Tables<F>>(
    tables: &'a T,
    key: &FlowKey<F>,
    target: Target,
    attempt: u32,
) -> Result<Option<Choice<'a, F>>, Counter> {
    let settings = tables.settings();
    let service = target.service;
    let word = tables.service(service).ok_or(Counter::NoBackend)?;
    let set = tables.set(word.low).ok_or(Counter::NoBackend)?;
    if set.service != service {
        return Ok(None); // The set was given away between two reads: look again.
    }
    if target.kind == FrontendKind::LoadBalancer
        && set.source_ranges != 0
        && !tables.in_range(set.source_ranges, key.src)
    {
        return Err(Counter::SourceRange);
    }
    let scope = scope(target.kind, &set, settings.outside != 0);
    let (first, len) = match scope {
        Scope::Cluster => (set.first, set.len),
        Scope::Local => (set.local_first, set.local_len),
    };
    if len == 0 {
        return Err(if set.len == 0 { Counter::NoBackend } else { Counter::NoLocalBackend });
    }
    let keep = set.affinity != 0;
    if keep && attempt == 0 {
        let kept = kept(tables, key.src, service, scope, set.affinity);
        if kept.is_some() {
            return Ok(kept);
        }
    }
    let hash = if keep {
        client_hash(key.src, settings.hash_seed)
    } else if set.flags & set_flags::RANDOM != 0 {
        tables.random()
    } else {
        slot_hash(key, settings.hash_seed)
    };
    // Another try starts elsewhere in the table. The product maps 32 bits evenly onto the length.
    let hash = hash.wrapping_add(attempt.wrapping_mul(0x9e37_79b9));
    let index = first.wrapping_add(((hash as u64 * len as u64) >> 32) as u32);
    let slot = tables.slot(index).ok_or(Counter::NoBackend)?;
    if slot.service != service {
        return Ok(None);
    }
    let Some((word, row)) = tables.backend(slot.backend) else { return Ok(None) };
    if !word.takes(scope) || row.service != service {
        return Ok(None);
    }
    let backend = BackendRef { low: slot.backend, generation: word.0.generation };
    Ok(Some(Choice { backend, row, keep }))
}

/// The backend that a client had, if it may have it again: affinity never overrules that a backend takes
/// no new flows.
#[inline(always)]
fn kept<'a, F: Family, T: Tables<F>>(
    tables: &'a T,
    client: F::Addr,
    service: u32,
    scope: Scope,
    timeout: u32,
) -> Option<Choice<'a, F>> {
    let known = tables.affinity(&AffinityKey { client, service })?;
    if tables.now().wrapping_sub(known.seen) > timeout {
        return None;
    }
    let (word, row) = tables.backend(known.backend.low)?;
    let same = word.0.generation == known.backend.generation && row.service == service;
    (same && word.takes(scope)).then_some(Choice { backend: known.backend, row, keep: true })
}

/// Notes whose backend a client is to get again; the timeout begins anew with each flow.
#[inline(always)]
pub fn keep<F: Family, T: Tables<F>>(tables: &T, client: F::Addr, service: u32, backend: BackendRef) {
    let row = AffinityRow { backend, seen: tables.now(), reserved: 0 };
    tables.keep_affinity(AffinityKey { client, service }, row);
}
