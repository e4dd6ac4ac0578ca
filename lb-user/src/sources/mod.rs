//! Sources: what the outside world asks for, read into a [`Model`](crate::model::Model).
//!
//! A source knows files or APIs and nothing of maps. Each way in ends in the same model.

pub mod file;
pub mod follow;
pub mod problem;
pub mod watch;

mod fields;
mod values;
mod yaml;
