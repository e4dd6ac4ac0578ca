//! Programs as they are measured, whatever their type.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result};

use crate::kernel::{
    Summed,
    test_run::{Ran, run_once},
};

/// What a program is attached to.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// A device's tc hook.
    Tc,
}

impl Type {
    /// Its `bpf_prog_type`.
    fn number(self) -> u32 {
        match self {
            Type::Tc => 3,
        }
    }

    /// The return value that leaves a packet alone.
    fn leave(self) -> i32 {
        match self {
            // TC_ACT_UNSPEC
            Type::Tc => -1,
        }
    }

    /// Runs a program once on a fresh copy of a packet.
    pub fn run(self, program: BorrowedFd<'_>, ifindex: u32, packet: &[u8]) -> Result<Ran> {
        match self {
            Type::Tc => run_once(program, ifindex, packet, &mut [], 0, Summed::None),
        }
    }
}

/// The part of `union bpf_attr` that loads a program.
#[repr(C)]
#[derive(Default)]
struct Attr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

const BPF_PROG_LOAD: libc::c_long = 5;

/// A program that leaves every packet alone: what it costs is what measuring costs.
pub fn empty(of: Type) -> Result<OwnedFd> {
    const MOVE: u64 = 0xb7;
    const EXIT: u64 = 0x95;
    let instructions = [MOVE | (of.leave() as u32 as u64) << 32, EXIT];
    let attr = Attr {
        prog_type: of.number(),
        insn_cnt: instructions.len() as u32,
        insns: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        ..Default::default()
    };
    // SAFETY: the pointers in `attr` are valid until the call returns.
    let fd =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attr, size_of::<Attr>() as u32) };
    if fd < 0 {
        return Err(io::Error::last_os_error()).context("can't load an empty program: run as root");
    }
    // SAFETY: the kernel has just given it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
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
