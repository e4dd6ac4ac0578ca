//! The agent and the command line of `lb`.

pub mod agent;
pub mod apply;
pub mod attach;
pub mod cli;
pub mod compile;
pub mod explain;
pub mod files;
pub mod log;
pub mod maps;
pub mod model;
pub mod netlink;
pub mod observe;
pub mod plan;
pub mod sources;
pub mod system;
