//! Set-up, build, lab, demonstration, tests and benchmarks. A library, so that the tests bring up the
//! same lab.

pub mod bench;
pub mod build;
pub mod fuzz;
pub mod lab;
pub mod old_kernel;
pub mod run;
pub mod setup;
pub mod test;
