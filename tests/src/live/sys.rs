//! Programs written by hand and what carries them: their maps, links and runs, by the `bpf` system call.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use anyhow::{Context as _, Result, ensure};
use xtask::bpf;

/// Commands, types and flags of linux/bpf.h and linux/if_link.h.
const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP: libc::c_long = 1;
const MAP_UPDATE: libc::c_long = 2;
const TEST_RUN: libc::c_long = 10;
const LINK_CREATE: libc::c_int = 28;
const ARRAY: u64 = 2;
const XDP: u64 = 6;
const ATTACH_TCX_INGRESS: u64 = 46;
const ATTACH_XDP: u64 = 37;
const XDP_DRIVER: u64 = 1 << 2;
const LIVE_FRAMES: u32 = 1 << 1;

/// One instruction: code, registers (destination low), offset and value.
pub fn op(code: u8, registers: u8, offset: i16, value: i32) -> u64 {
    code as u64 | (registers as u64) << 8 | (offset as u16 as u64) << 16 | (value as u32 as u64) << 32
}

/// Two instructions that put a map into a register.
pub fn map(register: u8, of: BorrowedFd<'_>) -> [u64; 2] {
    const OF_DESCRIPTOR: u8 = 1;
    [op(0x18, register | OF_DESCRIPTOR << 4, 0, of.as_raw_fd()), 0]
}

/// Loads an XDP program.
pub fn load(name: &str, instructions: &[u64]) -> Result<OwnedFd> {
    bpf::load(XDP, instructions).with_context(|| format!("loading the program that {name}"))
}

/// Puts an XDP program on a device, in its driver. It goes when the value is dropped.
pub fn attach_xdp(program: BorrowedFd<'_>, ifindex: u32) -> Result<OwnedFd> {
    attach(program, ifindex, ATTACH_XDP | XDP_DRIVER << 32).context("attaching an XDP program")
}

/// Puts a tc program on what a device receives. It goes when the value is dropped.
pub fn attach_tc(program: BorrowedFd<'_>, ifindex: u32) -> Result<OwnedFd> {
    attach(program, ifindex, ATTACH_TCX_INGRESS).context("attaching a tc program")
}

fn attach(program: BorrowedFd<'_>, ifindex: u32, how: u64) -> io::Result<OwnedFd> {
    // prog_fd, target_ifindex; attach_type, flags
    bpf::bpf(LINK_CREATE, &[program.as_raw_fd() as u64 | (ifindex as u64) << 32, how])
}

/// Rows of bytes by number.
pub struct Array {
    fd: OwnedFd,
    size: usize,
}

impl Array {
    /// So many rows of so many bytes, all zero.
    pub fn new(rows: u32, size: usize) -> Result<Array> {
        // map_type, key_size; value_size, max_entries
        let attributes = [ARRAY | 4 << 32, size as u64 | (rows as u64) << 32];
        Ok(Array { fd: bpf::bpf(MAP_CREATE, &attributes).context("making a map")?, size })
    }

    /// It.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Writes a row.
    pub fn set(&self, row: u32, value: &[u8]) -> Result<()> {
        ensure!(value.len() == self.size, "a row of {} bytes", value.len());
        self.element(MAP_UPDATE, row, value.as_ptr() as u64).context("writing a row")
    }

    /// Reads a row.
    pub fn get(&self, row: u32) -> Result<Vec<u8>> {
        let mut value = vec![0u8; self.size];
        self.element(MAP_LOOKUP, row, value.as_mut_ptr() as u64).context("reading a row")?;
        Ok(value)
    }

    fn element(&self, command: libc::c_long, row: u32, value: u64) -> io::Result<()> {
        // map_fd; key; value; flags
        let attributes = [self.fd.as_raw_fd() as u64, &raw const row as u64, value, 0];
        call(command, &attributes)
    }
}

/// Runs an XDP program on so many frames of this length, which then go where it says.
pub fn run_live(program: BorrowedFd<'_>, len: usize, frames: u32) -> Result<()> {
    // Batches fit a veth's ring of 256.
    const BATCH: u64 = 64;
    let data = vec![0u8; len];
    let attributes = [
        program.as_raw_fd() as u64, // prog_fd, retval
        len as u64,                 // data_size_in, data_size_out
        data.as_ptr() as u64,
        0,             // data_out
        frames as u64, // repeat, duration
        0,             // ctx_size_in, ctx_size_out
        0,
        0,
        LIVE_FRAMES as u64, // flags, cpu
        BATCH,
    ];
    call(TEST_RUN, &attributes).context("running a program on live frames (kernel 5.18)")
}

/// Carries a command out that answers with nothing.
fn call(command: libc::c_long, attributes: &[u64]) -> io::Result<()> {
    let mut union = [0u64; 18];
    union[..attributes.len()].copy_from_slice(attributes);
    // SAFETY: a union with zeros behind what is used, whose pointers are to live memory.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, union.as_mut_ptr(), size_of_val(&union) as u32) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
