//! `BPF_PROG_TEST_RUN` with what aya leaves out: the flags for socket buffers, the device of a frame.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use anyhow::{Context, Result};

use super::Summed;

/// `struct { ... } test` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Attr {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_F_TEST_SKB_CHECKSUM_COMPLETE: u32 = 1 << 2;
/// Indexes of words of `struct __sk_buff`.
const IFINDEX: usize = 10;
const GSO_SIZE: usize = 44;

/// What a run returns, the packet aside.
pub struct Ran {
    /// The program's return value.
    pub value: i32,
    /// Bytes of the packet afterwards; they are in the buffer as far as it reaches.
    pub size: usize,
}

/// Runs a tc program on a packet that arrives on a device of this namespace: its return value and the
/// packet's bytes afterwards. `segment`: see [`crate::state::At`].
pub fn test_run(
    program: BorrowedFd<'_>,
    ifindex: u32,
    packet: &[u8],
    segment: u32,
    summed: Summed,
) -> Result<(i32, Vec<u8>)> {
    let mut out = vec![0u8; packet.len() + 256];
    let ran = run_once(program, ifindex, packet, &mut out, segment, summed)?;
    out.truncate(ran.size);
    Ok((ran.value, out))
}

/// As [`test_run`], into a buffer; an empty one gets nothing, which is no error.
pub fn run_once(
    program: BorrowedFd<'_>,
    ifindex: u32,
    packet: &[u8],
    out: &mut [u8],
    segment: u32,
    summed: Summed,
) -> Result<Ran> {
    let mut context = [0u32; GSO_SIZE + 1];
    (context[IFINDEX], context[GSO_SIZE]) = (ifindex, segment);
    let flags = if summed == Summed::Complete { BPF_F_TEST_SKB_CHECKSUM_COMPLETE } else { 0 };
    call(program, &context, packet, out, flags)
}

/// Runs an XDP program on a packet that arrives on a device of this namespace: its return value and the packet's bytes
/// afterwards.
pub fn test_run_xdp(program: BorrowedFd<'_>, ifindex: u32, packet: &[u8]) -> Result<(i32, Vec<u8>)> {
    /// `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    const WORDS: usize = 6;
    let context: [u32; WORDS] = [0, packet.len() as u32, 0, ifindex, 0, 0];
    let mut out = vec![0u8; packet.len() + 256];
    let ran = call(program, &context, packet, &mut out, 0)?;
    out.truncate(ran.size);
    Ok((ran.value, out))
}

fn call(program: BorrowedFd<'_>, context: &[u32], packet: &[u8], out: &mut [u8], flags: u32) -> Result<Ran> {
    let mut attr = Attr {
        prog_fd: program.as_raw_fd() as u32,
        data_size_in: packet.len() as u32,
        data_size_out: out.len() as u32,
        data_in: packet.as_ptr() as u64,
        data_out: if out.is_empty() { 0 } else { out.as_mut_ptr() as u64 },
        ctx_size_in: size_of_val(context) as u32,
        ctx_in: context.as_ptr() as u64,
        flags,
        ..Default::default()
    };
    // SAFETY: the pointers in `attr` are valid for the sizes beside them until the call returns.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut attr, size_of::<Attr>() as u32) };
    if result < 0 {
        return Err(io::Error::last_os_error()).context("BPF_PROG_TEST_RUN");
    }
    Ok(Ran { value: attr.retval as i32, size: attr.data_size_out as usize })
}
