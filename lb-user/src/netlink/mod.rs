//! What netlink says about this network namespace: links, addresses, neighbours, the bridges' tables.

mod bypass;
mod dump;
mod watch;
mod world;

pub use bypass::bypassed;
pub use watch::Watcher;
pub use world::{Address, Fdb, Link, LinkKind, Location, Neighbour, Neighbours, Role, World};
