//! What the path asks of its surroundings: what is remembered.

use core::cell::Cell;

use super::state::{PacketState, Parsed};
use crate::{
    abi::{
        AffinityKey, AffinityRow, BackendRow, BackendWord, Counter, FlowKey, FlowRow, FragmentKey,
        FragmentRow, FrontendKey, FrontendRow, Mac, NeighKey, NextHopRow, ServiceRow, SetRow, Settings,
        SlotRow, SnatRow, SourceGuardRow, Stop,
    },
    family::{Address, Family, scramble},
};

/// State that is the same for both families.
pub trait Common {
    /// What was fixed at load.
    fn settings(&self) -> &Settings;
    /// The time in ticks.
    fn now(&self) -> u32;
    /// A random word.
    fn random(&self) -> u32;
    /// Whether an address, or address and port, may be a frontend's or a backend's ([`prefilter_hash`]).
    fn prefilter(&self, hash: u32) -> bool;
    /// A service's word.
    fn service(&self, id: u32) -> Option<ServiceRow>;
    /// A set of slots.
    fn set(&self, index: u32) -> Option<SetRow>;
    /// A slot.
    fn slot(&self, index: u32) -> Option<SlotRow>;
    /// The way to a backend.
    fn next_hop(&self, index: u32) -> Option<NextHopRow>;
    /// The MAC that a bridge answers with for an address.
    fn proxy_neigh(&self, key: &NeighKey) -> Option<Mac>;
    /// The port at which an address is known.
    fn source_guard(&self, key: &NeighKey) -> Option<SourceGuardRow>;
    /// The zone that a port of a bridge is in, by its interface index.
    fn bridge_port(&self, ifindex: u32) -> Option<u16>;
    /// Counts an outcome.
    fn count(&self, counter: Counter);
    /// Accounts a client's packet to its service.
    fn account(&self, service: u32, bytes: u32);
}

/// State of one address family. With [`Common`], every read and write the path may do.
pub trait Tables<F: Family>: Common {
    /// Begins the [`PacketState`] of a packet: one function after the other deals with it. `assured`: there is a row of
    /// its flow among the assured ones.
    fn begin(&self, parsed: &Parsed<F>, assured: bool);
    /// The packet's flow is of this zone instead; the [`PacketState`] is to be asked for anew. `assured`: as above.
    fn set_zone(&self, zone: u16, assured: bool);
    /// What was kept of the packet.
    fn state(&self) -> Option<&PacketState<F>>;
    /// The row of a flow's direction. It may be recycled while it is held: in place, only times and
    /// bits are written.
    fn flow(&self, table: Table, key: &FlowKey<F>) -> Option<&Cell<FlowRow<F>>>;
    /// The proof that an unassured flow's client has to give, see [`crate::abi::UnassuredRow`].
    fn proof(&self, key: &FlowKey<F>) -> Option<&Cell<u32>>;
    /// Records a row.
    fn insert_flow(
        &self,
        table: Table,
        key: FlowKey<F>,
        row: FlowRow<F>,
        how: Insert,
    ) -> Result<(), InsertError>;
    /// Forgets a row.
    fn remove_flow(&self, table: Table, key: &FlowKey<F>);
    /// The row of a port of the node's that is allocated, by its flow's replies. What is written in place is times
    /// and bits.
    fn snat(&self, key: &FlowKey<F>) -> Option<&Cell<SnatRow<F>>>;
    /// Lends a port, if it is not.
    fn insert_snat(&self, key: &FlowKey<F>, row: &SnatRow<F>) -> Result<(), InsertError>;
    /// Moves one of [`PORT_CURSOR_COUNT`](crate::abi::maps::PORT_CURSOR_COUNT) counts on by so many steps, in one
    /// step for who asks at once; where it was.
    fn advance_cursor(&self, count: u32, steps: u32) -> u32;
    /// A port is allocated no longer.
    fn remove_snat(&self, key: &FlowKey<F>);
    /// Makes the time of a row now, unless it is no longer `seen`: of those who try at once one succeeds.
    fn claim(&self, row: &Cell<SnatRow<F>>, seen: u32) -> bool;
    /// What is known of a packet in fragments. As with [`Self::flow`], the row may be recycled while it is held.
    fn fragments(&self, key: &FragmentKey<F>) -> Option<&Cell<FragmentRow>>;
    /// Notes what a first fragment says. Nothing is said where that fails: the others are lost.
    fn keep_fragments(&self, key: FragmentKey<F>, row: FragmentRow);
    /// Forgets it.
    fn forget_fragments(&self, key: &FragmentKey<F>);
    /// The service a frontend leads to.
    fn frontend(&self, key: &FrontendKey<F>) -> Option<FrontendRow>;
    /// Whose backend a client had.
    fn affinity(&self, key: &AffinityKey<F>) -> Option<AffinityRow>;
    /// Notes whose backend a client has. Nothing is said where that fails: the next flow is chosen anew.
    fn keep_affinity(&self, key: AffinityKey<F>, row: AffinityRow);
    /// Whether an address is in a set of source ranges.
    fn in_range(&self, set: u32, addr: F::Addr) -> bool;
    /// A backend, its word read at once.
    fn backend(&self, id: u32) -> Option<(BackendWord, &BackendRow<F>)>;
}

/// The tables of flows. Both are LRU: a flood of clients that do not exist evicts itself.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Table {
    /// Flows whose clients are real.
    Assured,
    /// All others, in a smaller table.
    Unassured,
}

/// How to record a row.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Insert {
    /// Only where there is none.
    New,
    /// Whatever is there.
    Replace,
}

/// Why a row was not recorded.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// There is one already.
    Exists,
    /// The table would not take it.
    Full,
}

/// What was noted of a packet.
#[inline(always)]
pub fn state_of<F: Family, T: Tables<F>>(tables: &T) -> Result<&PacketState<F>, Stop> {
    tables.state().ok_or(Stop::Unsettled)
}

/// The bit of an address and port (0: of the address whatever the port) in the prefilter,
/// before it is reduced to the map's size.
#[inline(always)]
pub fn prefilter_hash<A: Address>(addr: A, port: u16) -> u32 {
    let hash = addr.mix();
    if port == 0 { hash } else { scramble(hash ^ port as u32) }
}
