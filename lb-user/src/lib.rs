//! The agent and the command line of `lb`.

pub mod model;
