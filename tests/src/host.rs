//! The decision core on the host, on packets and rows of cases.

use bumpalo::Bump;
use lb_common::{
    abi::Settings,
    path::{Hook, Verdict},
    wire::Ethernet,
};
pub use lb_sim::Outcome;
use lb_sim::{Packet, Tables, decide};

use crate::{
    family::Net,
    kernel::ROWS,
    state::{At, State, is_for_another, mtu},
};

/// Runs the decision core on one packet.
pub fn run<F: Net>(state: &State<F>, at: At, packet: &[u8]) -> (Verdict, Outcome<F>) {
    run_on(state, at, packet, packet.len())
}

/// The same on a packet of which only the link header can be read until more is asked for.
pub fn run_in_pieces<F: Net>(state: &State<F>, at: At, packet: &[u8]) -> (Verdict, Outcome<F>) {
    run_on(state, at, packet, packet.len().min(size_of::<Ethernet>()))
}

fn run_on<F: Net>(state: &State<F>, at: At, bytes: &[u8], readable: usize) -> (Verdict, Outcome<F>) {
    let arena = Bump::new();
    let tables = tables(&arena, state, at.settings);
    let mut packet = Packet { readable, tagged: at.tagged, segment: at.segment, ..packet(bytes, at.ifindex) };
    let verdict = decide(&tables, at.hook, &mut packet);
    (verdict, tables.outcome(packet.bytes))
}

/// What a packet leaves of which nobody has taken notice.
pub fn untouched<F: Net>(state: &State<F>, packet: &[u8]) -> Outcome<F> {
    tables(&Bump::new(), state, Settings::DEFAULT).outcome(packet.to_vec())
}

fn tables<'a, F: Net>(arena: &'a Bump, state: &'a State<F>, settings: Settings) -> Tables<'a, F> {
    Tables::new(arena, (&state.shared, &state.side, ROWS), &state.learned, settings)
}

fn packet(bytes: &[u8], ifindex: u32) -> Packet {
    Packet { mtu, for_another: is_for_another(ifindex, bytes), ..Packet::new(bytes.to_vec(), ifindex) }
}

/// The decision core on packets that come one after the other, over tables that they change.
pub struct Running<'a, F: Net>(Tables<'a, F>);

impl<'a, F: Net> Running<'a, F> {
    /// Over tables that begin so, in programs with these settings. Their rows live in `arena`.
    pub fn new(arena: &'a Bump, state: &'a State<F>, settings: Settings) -> Self {
        Running(tables(arena, state, settings))
    }

    /// Runs it on the next packet: what it gets, and its bytes afterwards.
    pub fn run(&mut self, hook: Hook, ifindex: u32, bytes: &[u8]) -> (Verdict, Vec<u8>) {
        self.0.next();
        let mut packet = packet(bytes, ifindex);
        let verdict = decide(&self.0, hook, &mut packet);
        (verdict, packet.bytes)
    }

    /// What all packets have left, themselves aside.
    pub fn outcome(self) -> Outcome<F> {
        self.0.outcome(Vec::new())
    }
}
