//! Attaching.
mod rcu;
pub use rcu::wait_for_readers;
