//! The agent and the command line of `lb`.

pub mod maps;
pub mod model;
pub mod observe;
