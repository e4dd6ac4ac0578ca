//! What the path asks of its surroundings: a packet's bytes and what is remembered.

use core::cell::Cell;

use bytemuck::Pod;

use super::parse::{Note, Parsed};
use crate::{
    abi::{
        AffinityKey, AffinityRow, AnswerKey, BackendRow, BackendWord, Counter, FlowKey, FlowRow, FragmentKey,
        FragmentRow, FrontendKey, FrontendRow, HomeRow, Mac, ReachRow, ServiceRow, SetRow, Settings, SlotRow,
        SnatRow, Stop,
    },
    family::{Address, Family, scramble},
    wire::Protocol,
};

/// Checked views on a packet's bytes, from its Ethernet header on.
pub trait Packet {
    /// Bytes of the whole packet, also of the part that can't be read yet.
    fn size(&self) -> u32;
    /// Interface index of the device the program runs on.
    fn ifindex(&self) -> u32;
    /// Whether it has a VLAN tag, which is none of its bytes.
    fn tagged(&self) -> bool;
    /// Makes the first `len` bytes readable.
    fn pull(&mut self, len: u32);
    /// A copy of what lies at `offset`, if it is readable.
    fn load<T: Pod>(&self, offset: usize) -> Option<T>;
    /// Writes at `offset`; whether it could.
    fn store<T: Pod>(&mut self, offset: usize, value: &T) -> bool;
    /// Applies a difference to the transport checksum at `offset`; whether it could.
    fn update_checksum(&mut self, offset: usize, difference: u32, kind: SumKind) -> bool;
    /// Makes the packet so long, by zeros at its end or by cutting it off; whether it could. What a device
    /// would have to do to it (segmentation) no longer is. A slow way, for answers.
    fn resize(&mut self, len: u32) -> bool;
    /// Makes room for `len` bytes, which are to be written, between the link header and the network header;
    /// whether it could.
    /// What a device still has to finish moves along.
    fn make_room(&mut self, len: u32) -> bool;
    /// Whether the device with that interface index takes it, or all the parts that it is to be segmented into.
    fn fits(&self, ifindex: u32) -> bool;
    /// What the device with that interface index takes, in bytes from the network header on; 0: there is none.
    fn mtu(&self, ifindex: u32) -> u32;
    /// How many bytes of what it carries each part has into which a device is to segment it; 0: it is none of those.
    fn segment(&self) -> u32;
    /// Puts it into another packet, whose network header this is: room is made before its own, and what a device
    /// still has to do to it is told of both; whether it could.
    fn wrap<F: Family>(&mut self, outer: &F::Header) -> bool;
    /// Takes it out of the packet that it is in, of the same family; whether it could.
    fn unwrap<F: Family>(&mut self) -> bool;
    /// Writes what the network header's layer and those above consist of from now on: as [`Self::store`],
    /// but nothing that a checksum of the packet makes up for.
    fn replace<T: Pod>(&mut self, offset: usize, value: &T) -> bool;
    /// Whether a device still has to finish the transport checksum at `offset` (CHECKSUM_PARTIAL).
    fn unfinished(&mut self, offset: usize) -> bool;
    /// Tells what knows the sum of the whole packet (CHECKSUM_COMPLETE) that bytes which no checksum of
    /// the packet covers changed by `difference`.
    fn update_sum(&mut self, difference: u32);
}

/// A packet whose bytes are written where they lie, which costs least.
pub trait InPlace: Packet {
    /// What lies at `offset`, if it is there.
    fn at<T: Pod>(&mut self, offset: usize) -> Option<&mut T>;
}

/// What a change of a transport checksum is about.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct SumKind {
    /// TCP or UDP; UDP over IPv4 may have no checksum (RFC 768), which stays so.
    pub protocol: Protocol,
    /// The addresses of the pseudo header changed, and not the transport header.
    pub pseudo_header: bool,
    /// IPv6: the address change is not made up for by a header checksum.
    pub ipv6: bool,
}

/// State that is the same for both families.
pub trait Common {
    /// What was fixed at load.
    fn settings(&self) -> &Settings;
    /// The time in ticks.
    fn now(&self) -> u32;
    /// A random word.
    fn random(&self) -> u32;
    /// Whether an address, or address and port, may be a frontend's or a backend's ([`interest_hash`]).
    fn interesting(&self, hash: u32) -> bool;
    /// A service's word.
    fn service(&self, id: u32) -> Option<ServiceRow>;
    /// A set of slots.
    fn set(&self, index: u32) -> Option<SetRow>;
    /// A slot.
    fn slot(&self, index: u32) -> Option<SlotRow>;
    /// The way to a backend.
    fn reach(&self, index: u32) -> Option<ReachRow>;
    /// The MAC that a bridge answers with for an address.
    fn answer(&self, key: &AnswerKey) -> Option<Mac>;
    /// Where an address is at home, if that is known.
    fn home(&self, key: &AnswerKey) -> Option<HomeRow>;
    /// Counts an outcome.
    fn count(&self, counter: Counter);
    /// Accounts a client's packet to its service.
    fn account(&self, service: u32, bytes: u32);
}

/// State of one address family. With [`Common`], every read and write the path may do.
pub trait Tables<F: Family>: Common {
    /// Begins the [`Note`] of a packet: one function after the other deals with it. `proven`: there is a row of
    /// its flow among the proven ones.
    fn note(&self, parsed: &Parsed<F>, proven: bool);
    /// What was kept of the packet.
    fn noted(&self) -> Option<&Note<F>>;
    /// The row of a flow's direction. It may be recycled while it is held: in place, only times and
    /// bits are written.
    fn flow(&self, table: Table, key: &FlowKey<F>) -> Option<&Cell<FlowRow<F>>>;
    /// The proof that an unproven flow's client has to give, see [`crate::abi::UnprovenRow`].
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
    /// The row of a port of the node's that is lent, by its flow's replies. What is written in place is times
    /// and bits.
    fn snat(&self, key: &FlowKey<F>) -> Option<&Cell<SnatRow<F>>>;
    /// Lends a port, if it is not.
    fn insert_snat(&self, key: &FlowKey<F>, row: &SnatRow<F>) -> Result<(), InsertError>;
    /// Moves one of [`PORT_CURSORS`](crate::abi::maps::PORT_CURSORS) counts on by so many steps, in one step for who asks at once; where it was.
    fn turn(&self, count: u32, steps: u32) -> u32;
    /// A port is lent no longer.
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
    Proven,
    /// All others, in a smaller table.
    Unproven,
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
pub fn noted<F: Family, T: Tables<F>>(tables: &T) -> Result<&Note<F>, Stop> {
    tables.noted().ok_or(Stop::Unsettled)
}

/// The bit of an address and port (0: of the address whatever the port) in the map of interest,
/// before it is reduced to the map's size.
#[inline(always)]
pub fn interest_hash<A: Address>(addr: A, port: u16) -> u32 {
    let hash = addr.mix();
    if port == 0 { hash } else { scramble(hash ^ port as u32) }
}
