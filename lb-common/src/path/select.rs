//! Select: from a frontend to a backend for a new flow.

use super::step::{Next, Step};
use super::tables::{Tables, state_of};
use super::{hook::Hook, packet::Packet, prefilter::is_unassigned, state::PacketState};
use crate::{
    abi::{
        AffinityKey, AffinityRow, BackendRef, BackendRow, Event, FlowKey, FrontendKey, FrontendKind,
        FrontendRow, Scope, SetRow, Stop, ZONE_UPLINK, flow_bits, set_flags,
    },
    family::{Address, Family, scramble},
};

/// How many slots are tried when a chosen backend can't take the flow.
pub const TRIES: u32 = 3;

/// Notes a backend for a new flow, whose rows [`Step::Open`] makes then. With [`Step::Select`] again there is another to
/// try, at most [`TRIES`] in all.
#[inline(always)]
pub fn select<F: Family, P: Packet, T: Tables<F>>(
    _: &mut P,
    tables: &T,
    _: Hook,
    _: Next,
) -> Result<Next, Stop> {
    let state = state_of(tables)?;
    let parsed = &state.parsed;
    let target = target(tables, &parsed.key)?;
    let attempt = state.attempts.get() as u32;
    // Who has sent it here has chosen as we do: one of this node's, if it knows what we know.
    let here = state.decapsulated.get();
    let among = if here && attempt != 0 { Among::Here } else { Among::All };
    let offer = offer(tables, &parsed.key, target, Client::Known, among)?;
    state.attempts.set(attempt as u8 + 1);
    if let Some(choice) = backend(tables, &offer, attempt)
        && (!here || is_here(choice.row))
    {
        state.backend.set(choice.backend);
        state.keep.set(offer.keep);
        // A tuple that is another flow's at this backend: first another backend, then another port.
        state.port.set(if attempt < 2 { 0 } else { other_port(offer.hash, attempt) });
        return Ok(Step::Open.into());
    }
    if attempt + 1 < TRIES { Ok(Step::Select.into()) } else { Err(Stop::Unsettled) }
}

/// One of the ports besides its own that a client can have on the backend's side.
#[inline(always)]
pub fn other_port(hash: u32, attempt: u32) -> u32 {
    const OTHER_PORTS: u32 = flow_bits::PORT_MASK;
    1 + hash.wrapping_add(attempt) % OTHER_PORTS
}

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

/// Whether a flow's source is the client's address.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Client {
    /// It is.
    Known,
    /// The client has no address yet: what depends on it can't be decided.
    Unknown,
}

/// Which backends are asked for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Among {
    /// Those that the service's policies leave.
    All,
    /// Of those, this node's.
    Here,
}

/// The backends that a client may get, and which of them it is to get. All that is decided once for a new
/// flow, so that the tries after it are few instructions: the verifier walks each of them.
#[derive(Copy, Clone)]
pub struct Offer {
    /// The service row.
    pub service: u32,
    /// Whether the client is to get the same backend again.
    pub keep: bool,
    /// Names a slot, and another port of the client where one is needed.
    pub hash: u32,
    scope: Scope,
    first: u32,
    len: u32,
    /// The backend that the client had; generation 0: none.
    kept: BackendRef,
}

/// A backend that takes new flows.
pub struct Choice<'a, F: Family> {
    /// Its id and generation.
    pub backend: BackendRef,
    /// Its row.
    pub row: &'a BackendRow<F>,
}

/// Whether a packet to `key`'s destination is for a service.
#[inline(always)]
pub fn is_frontend<F: Family, T: Tables<F>>(tables: &T, key: &FlowKey<F>) -> bool {
    tables.frontend(&called(key)).is_some()
}

/// The key of the frontend at a flow's destination.
#[inline(always)]
fn called<F: Family>(key: &FlowKey<F>) -> FrontendKey<F> {
    FrontendKey { addr: key.dst, port: key.dst_port, zone: ZONE_UPLINK, protocol: key.protocol as u32 }
}

/// The service that a packet to `key`'s destination is for, or what becomes of it without one.
#[inline(always)]
pub fn target<F: Family, T: Tables<F>>(tables: &T, key: &FlowKey<F>) -> Result<Target, Stop> {
    if let Some(row) = tables.frontend(&called(key)) {
        return Ok(Target { service: row.service, kind: FrontendKind::from_bits(row.kind) });
    }
    if is_owned::<F, T>(tables, key.dst) {
        return Err(Stop::NoPort);
    }
    Err(if is_unassigned::<F, T>(tables, key.dst) { Stop::UnassignedVip } else { Stop::NoFrontend })
}

/// Whether an address is a service's and nobody else's: a [`FrontendKind::Address`].
#[inline(always)]
pub fn is_owned<F: Family, T: Tables<F>>(tables: &T, addr: F::Addr) -> bool {
    address::<F, T>(tables, addr).is_some_and(|row| row.kind == FrontendKind::Address as u32)
}

/// The row of an address that frontends have: none for the host's own.
#[inline(always)]
pub fn address<F: Family, T: Tables<F>>(tables: &T, addr: F::Addr) -> Option<FrontendRow> {
    tables.frontend(&FrontendKey { addr, port: 0, zone: ZONE_UPLINK, protocol: 0 })
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

/// What a target offers to a client, or why not: [`Stop::NotOurs`] where only its packets tell. Affinity never
/// overrules that a backend takes no new flows.
#[inline(always)]
pub fn offer<F: Family, T: Tables<F>>(
    tables: &T,
    key: &FlowKey<F>,
    target: Target,
    client: Client,
    among: Among,
) -> Result<Offer, Stop> {
    let settings = tables.settings();
    let Target { service, kind } = target;
    let word = tables.service(service).ok_or(Stop::Unsettled)?;
    let set = tables.set(word.low).ok_or(Stop::Unsettled)?;
    if set.service != service {
        return Err(Stop::Unsettled);
    }
    let ranged = kind == FrontendKind::LoadBalancer && set.source_ranges != 0;
    if client == Client::Unknown && (ranged || set.affinity != 0) {
        return Err(Stop::NotOurs);
    }
    if ranged && !tables.in_range(set.source_ranges, key.src) {
        return Err(Stop::SourceRange);
    }
    let scope = match among {
        Among::All => scope(kind, &set, settings.outside != 0),
        Among::Here => Scope::Local,
    };
    let (first, len) = match scope {
        Scope::Cluster => (set.first, set.len),
        Scope::Local => (set.local_first, set.local_len),
    };
    if len == 0 {
        return Err(if set.len == 0 { Stop::NoBackend } else { Stop::NoLocalBackend });
    }
    let keep = set.affinity != 0;
    let (mut kept, mut hash) = (BackendRef::default(), slot_hash(key, settings.hash_seed));
    if keep {
        hash = client_hash(key.src, settings.hash_seed);
        if let Some(known) = tables.affinity(&AffinityKey { client: key.src, service })
            && tables.now().wrapping_sub(known.seen) <= set.affinity
            && let Some((word, row)) = tables.backend(known.backend.low)
            && word.0.generation == known.backend.generation
            && word.takes(scope)
            && row.service == service
        {
            kept = known.backend;
        }
    } else if set.flags & set_flags::RANDOM != 0 {
        hash = tables.random();
    }
    Ok(Offer { service, keep, hash, scope, first, len, kept })
}

/// The backend of the `attempt`-th try for a new flow; `None`: this one can't, try again.
#[inline(always)]
pub fn backend<'a, F: Family, T: Tables<F>>(
    tables: &'a T,
    offer: &Offer,
    attempt: u32,
) -> Option<Choice<'a, F>> {
    let mut id = offer.kept.low;
    if attempt != 0 || offer.kept.generation == 0 {
        // Another try starts elsewhere in the table. The product maps 32 bits evenly onto the length.
        let hash = offer.hash.wrapping_add(attempt.wrapping_mul(0x9e37_79b9));
        let index = offer.first.wrapping_add(((hash as u64 * offer.len as u64) >> 32) as u32);
        let slot = tables.slot(index)?;
        if slot.service != offer.service {
            return None;
        }
        id = slot.backend;
    }
    let (word, row) = tables.backend(id)?;
    let backend = BackendRef { low: id, generation: word.0.generation };
    (word.takes(offer.scope) && row.service == offer.service).then_some(Choice { backend, row })
}

/// Notes whose backend a client is to get again; the timeout begins anew with each flow.
#[inline(always)]
pub fn keep<F: Family, T: Tables<F>>(tables: &T, client: F::Addr, service: u32, backend: BackendRef) {
    let row = AffinityRow { backend, seen: tables.now(), reserved: 0 };
    tables.keep_affinity(AffinityKey { client, service }, row);
}

/// A new flow is recorded.
#[inline(always)]
pub fn recorded<F: Family, T: Tables<F>>(tables: &T, state: &PacketState<F>, service: u32) {
    if state.keep.get() {
        keep(tables, state.parsed.key.src, service, state.backend.get());
    }
    tables.count(Event::NewFlow.into());
}

/// Whether a backend is on this node.
#[inline(always)]
fn is_here<F: Family>(backend: &BackendRow<F>) -> bool {
    backend.node == F::Addr::ZERO && backend.zone != ZONE_UPLINK
}
