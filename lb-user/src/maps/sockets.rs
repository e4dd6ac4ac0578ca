//! What is remembered of the host's sockets.

use std::{collections::HashSet, net::SocketAddr, path::Path};

use aya::maps::{HashMap, Map, MapData, MapError};
use lb_common::{
    abi::{BackendRow, BackendState, BackendWord, SocketEnd, SocketKey, SocketRow},
    family::{Family, V4, V6},
};

use super::{Mapped, Maps, OpenError, Side, data};
use crate::observe::Addresses;

/// The tables of both families.
pub struct Sockets {
    v4: Table<V4>,
    v6: Table<V6>,
}

type Table<F> = HashMap<MapData, SocketKey<F>, SocketRow<F>>;

impl Sockets {
    /// Opens the maps pinned below `dir`.
    pub fn open(dir: &Path) -> Result<Sockets, OpenError> {
        Ok(Sockets { v4: table(dir, "SOCKETS4")?, v6: table(dir, "SOCKETS6")? })
    }

    /// The sockets, by cookie, that were given a backend which no longer serves, with its address. Some
    /// may be closed, or connected elsewhere by now.
    pub fn stranded(&self, maps: &Maps) -> Result<HashSet<(u64, SocketAddr)>, MapError> {
        let mut found = HashSet::new();
        of_family(&self.v4, &maps.v4, &mut found)?;
        of_family(&self.v6, &maps.v6, &mut found)?;
        Ok(found)
    }
}

fn table<F: Family>(dir: &Path, name: &str) -> Result<Table<F>, OpenError> {
    let (data, _) = data(dir, name, size_of::<SocketRow<F>>())?;
    HashMap::try_from(Map::LruHashMap(data)).map_err(|source| OpenError::Map { path: dir.join(name), source })
}

fn of_family<F: Addresses>(
    table: &Table<F>,
    side: &Side<F>,
    found: &mut HashSet<(u64, SocketAddr)>,
) -> Result<(), MapError> {
    for entry in table.iter() {
        let (key, row) = match entry {
            Ok(entry) => entry,
            // It has gone since the last step.
            Err(MapError::KeyNotFound) => continue,
            Err(error) => return Err(error),
        };
        if key.end == SocketEnd::Backend as u16 && !serves(&side.backends, &row) {
            let [low, high] = key.cookie;
            let backend = SocketAddr::new(F::ip(key.addr), u16::from_be(key.port));
            found.insert((low as u64 | (high as u64) << 32, backend));
        }
    }
    Ok(())
}

fn serves<F: Family>(backends: &Mapped<BackendRow<F>>, row: &SocketRow<F>) -> bool {
    if row.backend.low >= backends.len() {
        return false;
    }
    let word = BackendWord(backends.word(row.backend.low));
    let state = word.state();
    word.0.generation == row.backend.generation && (state.is_active() || state == BackendState::Draining)
}
