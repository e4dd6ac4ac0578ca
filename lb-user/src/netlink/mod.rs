//! What netlink says about this network namespace: links, addresses, neighbours, the bridges' tables,
//! routes.

mod bypass;
mod events;
mod kernel;
mod known;
pub mod neighbour;
pub mod netns;
mod questions;
mod reader;
mod watch;
mod world;

pub use bypass::{bypassed, unseen};
pub use known::Wants;
pub use watch::Watcher;
pub use world::{
    Address, Fdb, Forgotten, Hop, Link, LinkKind, Location, Neighbour, Neighbours, Role, Via, World,
};
