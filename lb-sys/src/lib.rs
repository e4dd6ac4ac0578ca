//! What the kernel can be asked for and no crate asks: bpf(2) beyond aya, netlink messages, arrays in memory.
//! Knows nothing of services.

pub mod bpf;
mod diag;
mod mapped;
pub mod netlink;
mod netns;
pub mod packet;
mod rcu;
pub mod xdp;

pub use diag::{Diag, UdpSocket};
pub use mapped::Mapped;
pub use netns::cookie as netns_cookie;
pub use rcu::wait_for_readers;
