//! Runs of programs (`BPF_PROG_TEST_RUN`) on packets that arrive on a device of this namespace.

use std::os::fd::BorrowedFd;

use anyhow::{Context, Result};
use lb_sys::bpf::Run;

use super::Summed;

const BPF_F_TEST_SKB_CHECKSUM_COMPLETE: u32 = 1 << 2;
/// Indexes of words of `struct __sk_buff`.
const IFINDEX: usize = 10;
const GSO_SIZE: usize = 44;

/// Runs a tc program: its return value and the packet's bytes afterwards. `segment`: see [`crate::state::At`].
pub fn test_run(
    program: BorrowedFd<'_>,
    ifindex: u32,
    packet: &[u8],
    segment: u32,
    summed: Summed,
) -> Result<(i32, Vec<u8>)> {
    let mut out = vec![0u8; packet.len() + 256];
    let (value, size) = run_once(program, ifindex, packet, &mut out, segment, summed)?;
    out.truncate(size);
    Ok((value, out))
}

/// As [`test_run`], into a buffer; an empty one gets nothing, which is no error. The size is that of the packet.
pub fn run_once(
    program: BorrowedFd<'_>,
    ifindex: u32,
    packet: &[u8],
    out: &mut [u8],
    segment: u32,
    summed: Summed,
) -> Result<(i32, usize)> {
    let mut context = [0u32; GSO_SIZE + 1];
    (context[IFINDEX], context[GSO_SIZE]) = (ifindex, segment);
    let flags = if summed == Summed::Complete { BPF_F_TEST_SKB_CHECKSUM_COMPLETE } else { 0 };
    Run { packet, context: &context, out, flags, ..Run::default() }.on(program).context("BPF_PROG_TEST_RUN")
}

/// Runs an XDP program: its return value and the packet's bytes afterwards.
pub fn test_run_xdp(program: BorrowedFd<'_>, ifindex: u32, packet: &[u8]) -> Result<(i32, Vec<u8>)> {
    /// `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    const WORDS: usize = 6;
    let context: [u32; WORDS] = [0, packet.len() as u32, 0, ifindex, 0, 0];
    let mut out = vec![0u8; packet.len() + 256];
    let run = Run { packet, context: &context, out: &mut out, ..Run::default() };
    let (value, size) = run.on(program).context("BPF_PROG_TEST_RUN")?;
    out.truncate(size);
    Ok((value, out))
}
