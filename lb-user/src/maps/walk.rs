//! A map of hashes or ranges from end to end: how many rows it holds, and which.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use bytemuck::{Pod, try_pod_read_unaligned};
use lb_common::abi::maps::MapInfo;

use super::{OpenError, open};

/// `BPF_MAP_LOOKUP_BATCH` of linux/bpf.h.
const LOOKUP_BATCH: libc::c_long = 24;
/// Rows that are read at once: more than are ever in one bucket, which is not read in parts.
const BATCH: u32 = 1 << 13;

/// `union bpf_attr` for that command.
#[repr(C)]
struct Attributes {
    /// Where to go on, a pointer; null: at the start.
    from: u64,
    /// Where the next call goes on, a pointer.
    next: u64,
    /// Room for keys, a pointer.
    keys: u64,
    /// Room for rows, a pointer.
    rows: u64,
    /// Room, in rows; then those that were read.
    count: u32,
    map: u32,
    elem_flags: u64,
    flags: u64,
}

/// Rows in use and rows that there can be, of the map pinned below `dir`.
pub fn count(dir: &Path, map: &MapInfo) -> Result<(u32, u32), OpenError> {
    each(dir, map, |_, _| {})
}

/// Gives every key and row to `see`.
///
/// # Errors
/// When the map can't be read.
pub fn walk<K: Pod, V: Pod>(dir: &Path, map: &MapInfo, mut see: impl FnMut(K, V)) -> Result<(), OpenError> {
    each(dir, map, |key, row| {
        if let (Ok(key), Ok(row)) = (try_pod_read_unaligned(key), try_pod_read_unaligned(row)) {
            see(key, row);
        }
    })?;
    Ok(())
}

/// As [`count`], and gives every key and row to `see`, as their bytes. Reads the map in batches, which are in
/// the kernel since 5.13 for all kinds: a row costs a copy, and no LRU takes that for a use of it. What
/// comes and goes meanwhile may be seen or not; no more than the map can hold is.
fn each(dir: &Path, map: &MapInfo, mut see: impl FnMut(&[u8], &[u8])) -> Result<(u32, u32), OpenError> {
    let failed = |source: io::Error| OpenError::Count { path: dir.join(map.name), source };
    let (data, info) = open(dir, map)?;
    let (key, row, max) = (info.key_size() as usize, info.value_size() as usize, info.max_entries());
    let batch = BATCH.min(max);
    let mut keys = vec![0u8; batch as usize * key];
    let mut rows = vec![0u8; batch as usize * row];
    // The kernel says where to go on by a bucket's number or by a key.
    let mut at = [vec![0u8; key.max(size_of::<u32>())], vec![0u8; key.max(size_of::<u32>())]];
    let mut used = 0;
    let mut first = true;
    while used < max {
        let [from, next] = &mut at;
        let mut attributes = Attributes {
            from: if first { 0 } else { from.as_ptr() as u64 },
            next: next.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            rows: rows.as_mut_ptr() as u64,
            count: batch,
            map: data.fd().as_fd().as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the attributes are those of the command, and each of the buffers they point to has the
        // room that the kernel takes from the map's sizes and `count`.
        let done = unsafe {
            libc::syscall(libc::SYS_bpf, LOOKUP_BATCH, &raw mut attributes, size_of::<Attributes>())
        };
        let end = match done {
            0 => false,
            _ => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ENOENT) => true,
                error => return Err(failed(error)),
            },
        };
        let read = attributes.count as usize;
        for (key, row) in keys.chunks_exact(key).zip(rows.chunks_exact(row)).take(read) {
            see(key, row);
        }
        used += attributes.count;
        if end {
            break;
        }
        at.swap(0, 1);
        first = false;
    }
    Ok((used.min(max), max))
}
