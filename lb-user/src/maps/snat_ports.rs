//! Ports of the node's that are allocated, and no longer used by anybody.

use std::path::Path;

use aya::maps::{HashMap, Map, MapData, MapError};
use lb_common::{
    abi::{FlowKey, Lifetimes, SnatRow, maps::of_family},
    family::{Family, V4, V6},
    wire::Protocol,
};

use super::{OpenError, open, walk};

/// For so many ticks after its end a row is left to the programs, which allocate its port themselves to whom it is
/// the first choice of.
const LEFT: u32 = 60;

/// Forgets the rows of both families whose flows have been over for a while; how many. Nobody asks again for those
/// of backends that have gone. The lifetimes are in ticks.
///
/// A port that a program takes in the very moment in which its old row goes is allocated without one: the next
/// packet of the client writes it again.
///
/// # Errors
/// When a map can't be read.
pub fn sweep(dir: &Path, now: u32, lifetimes: &Lifetimes) -> Result<usize, OpenError> {
    let ended = lifetimes.longer_by(LEFT);
    Ok(family::<V4>(dir, now, &ended)? + family::<V6>(dir, now, &ended)?)
}

fn family<F: Family>(dir: &Path, now: u32, ended: &Lifetimes) -> Result<usize, OpenError> {
    let map = &of_family::<F>().snat;
    let is_over = |key: &FlowKey<F>, row: &SnatRow<F>| {
        Protocol::from_number(key.protocol as u8).is_none_or(|protocol| row.row.expired(protocol, now, ended))
    };
    let mut over = Vec::new();
    walk(dir, map, |key, row| {
        if is_over(&key, &row) {
            over.push(key);
        }
    })?;
    if over.is_empty() {
        return Ok(0);
    }
    let failed = |source: MapError| OpenError::Map { path: dir.join(map.name), source };
    let (data, _) = open(dir, map)?;
    let mut rows =
        HashMap::<MapData, FlowKey<F>, SnatRow<F>>::try_from(Map::HashMap(data)).map_err(failed)?;
    // Looked at again: it may have been allocated anew since.
    over.retain(|key| rows.get(key, 0).is_ok_and(|row| is_over(key, &row)) && rows.remove(key).is_ok());
    Ok(over.len())
}
