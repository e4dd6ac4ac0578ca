//! What netlink says about this network namespace: links, addresses, neighbours, the bridges' tables,
//! routes.

mod bypass;
mod diag;
mod dump;
pub mod neighbour;
pub mod netns;
mod raw;
mod routes;
mod watch;
mod world;
mod xdp;

pub use bypass::bypassed;
pub use diag::{Diag, UdpSocket};
pub use routes::{Hop, Route, Routes, Via};
pub use watch::Watcher;
pub use world::{Address, Fdb, Forgotten, Link, LinkKind, Location, Neighbour, Neighbours, Role, World};
pub use xdp::xdp_refusal;
