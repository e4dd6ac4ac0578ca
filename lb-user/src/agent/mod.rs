//! The agent: sources -> model -> compile -> plan -> apply, kept going by what changes.

mod answers;
mod devices;
mod drivers;
mod dsr;
mod ephemeral;
mod facts;
mod groups;
mod homes;
mod kept;
mod listening;
mod next_hops;
pub(crate) mod node;
pub mod options;
mod pods;
mod ports;
pub(crate) mod programs;
mod publish;
mod pulse;
mod resolver;
mod run;
pub mod signals;
mod snat;
mod sockets;
mod start;
mod state;
mod table;
mod uninstall;
mod warnings;
mod ways;

pub use options::{Options, SocketLb};
pub use run::run;
pub use uninstall::{Uninstalled, uninstall};
