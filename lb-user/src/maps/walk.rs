//! A map of hashes or ranges from end to end: how many rows it holds, and which.

use std::{io, os::fd::AsFd as _, path::Path};

use bytemuck::{Pod, try_pod_read_unaligned};
use lb_common::abi::maps::MapInfo;
use lb_sys::bpf::lookup_batch;

use super::{OpenError, open};

/// Rows that are read at once: more than are ever in one bucket, which is not read in parts.
const BATCH: u32 = 1 << 13;

/// Rows in use and rows that there can be, of the map pinned below `dir`.
pub fn count(dir: &Path, map: &MapInfo) -> Result<(u32, u32), OpenError> {
    batches(dir, map, |_, _, _| {})
}

/// Gives every key and row to `see`.
///
/// # Errors
/// When the map can't be read.
pub fn walk<K: Pod, V: Pod>(dir: &Path, map: &MapInfo, mut see: impl FnMut(K, V)) -> Result<(), OpenError> {
    batches(dir, map, |count, keys, rows| {
        let (keys, rows) = (keys.chunks_exact(keys.len() / count), rows.chunks_exact(rows.len() / count));
        for (key, row) in keys.zip(rows) {
            if let (Ok(key), Ok(row)) = (try_pod_read_unaligned(key), try_pod_read_unaligned(row)) {
                see(key, row);
            }
        }
    })?;
    Ok(())
}

/// As [`count`], and gives the bytes of the keys and rows to `see`, as many at once as a system call reads. Such
/// batches are in the kernel since 5.13 for all kinds: a row costs a copy, and no LRU takes that for a use of it.
/// What comes and goes meanwhile may be seen or not; no more than the map can hold is.
///
/// # Errors
/// When the map can't be read.
pub fn batches(
    dir: &Path,
    map: &MapInfo,
    mut see: impl FnMut(usize, &[u8], &[u8]),
) -> Result<(u32, u32), OpenError> {
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
        let from = (!first).then_some(&from[..]);
        let (read, end) =
            lookup_batch(data.fd().as_fd(), from, next, (&mut keys, &mut rows), batch).map_err(failed)?;
        if read > 0 {
            let count = read as usize;
            see(count, &keys[..count * key], &rows[..count * row]);
        }
        used += read;
        if end {
            break;
        }
        at.swap(0, 1);
        first = false;
    }
    Ok((used.min(max), max))
}
