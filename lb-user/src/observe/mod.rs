//! What people and programs see of a running instance. Reads the pinned maps and the agent's view;
//! works with no agent running.

pub mod clock;
pub mod view;
