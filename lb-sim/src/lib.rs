//! The surroundings of the decision core in memory: [`Maps`] that the agent writes, [`Tables`] that a packet
//! finds there, and a [`Packet`] in a vector. `explain`, the packet cases, golden scripts, fuzzing and the tests
//! of planning run on them.

mod maps;
mod packet;
mod run;
mod tables;

pub use maps::{Backends, Learned, Maps, Shared, Side};
pub use packet::Packet;
pub use run::{Outcome, decide};
pub use tables::Tables;
