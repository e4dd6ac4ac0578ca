//! The agent: sources -> model -> compile -> plan -> apply, kept going by what changes.

mod announcer;
mod bridge_ports;
mod devices;
mod dsr;
mod ephemeral;
mod groups;
mod health_checks;
pub(crate) mod node;
pub mod options;
mod pods;
mod port_conflicts;
mod ports;
mod program_config;
pub(crate) mod programs;
mod proxy_neigh;
mod publish;
mod pulse;
mod resolver;
mod routes;
mod run;
pub mod signals;
mod snat;
mod sockets;
mod source_guard;
mod start;
mod state;
mod state_file;
mod table;
mod uninstall;
mod wanted_neighbours;
mod warnings;
mod xdp_probe;

pub use options::{Options, SocketLb};
pub use run::run;
pub use uninstall::{Uninstalled, uninstall};
