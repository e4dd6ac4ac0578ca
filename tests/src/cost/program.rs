//! Programs as they are measured.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use anyhow::{Context, Result};

use lb_sys::bpf::{self, Kind};

use crate::kernel::{Summed, test_run::run_once};

/// Runs a program once on a fresh copy of a packet.
pub fn run(program: BorrowedFd<'_>, ifindex: u32, packet: &[u8]) -> Result<i32> {
    run_once(program, ifindex, packet, &mut [], 0, Summed::None).map(|(value, _)| value)
}

/// A program that leaves every packet alone (TC_ACT_UNSPEC): what it costs is what measuring costs.
pub fn empty() -> Result<OwnedFd> {
    bpf::constant(Kind::Tc, -1).context("can't load an empty program: run as root")
}

/// Time spent in a program, and how often it ran, as long as the kernel keeps statistics.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Nanoseconds.
    pub ns: u64,
    /// Runs.
    pub runs: u64,
}

impl Spent {
    /// So far.
    pub fn of(program: impl AsFd) -> Result<Spent> {
        let path = format!("/proc/self/fdinfo/{}", program.as_fd().as_raw_fd());
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        let field = |name: &str| -> Result<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            Ok(line.with_context(|| format!("no {name} in {path}"))?.trim().parse()?)
        };
        Ok(Spent { ns: field("run_time_ns")?, runs: field("run_cnt")? })
    }
}
