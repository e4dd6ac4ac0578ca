//! What is remembered of the host's sockets.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use aya::maps::{HashMap, Map, MapData, MapError};
use lb_common::{
    abi::{BackendRow, BackendWord, SocketEnd, SocketKey, SocketRow, maps::of_family},
    family::{Family, V4, V6},
    wire::Protocol,
};

use super::{Mapped, Maps, OpenError, data};

/// The tables of both families.
pub struct Sockets {
    v4: Table<V4>,
    v6: Table<V6>,
}

type Table<F> = HashMap<MapData, SocketKey<F>, SocketRow<F>>;

impl Sockets {
    /// Opens the maps pinned below `dir`.
    pub fn open(dir: &Path) -> Result<Sockets, OpenError> {
        Ok(Sockets { v4: table(dir)?, v6: table(dir)? })
    }

    /// Whether a socket, by its cookie and where it is connected to, was given a backend that no longer
    /// serves.
    pub fn is_stranded(&self, cookie: u64, peer: SocketAddr, maps: &Maps) -> Result<bool, MapError> {
        match peer.ip() {
            IpAddr::V4(addr) => stranded(&self.v4, &maps.v4.backends, cookie, addr.into(), peer.port()),
            IpAddr::V6(addr) => stranded(&self.v6, &maps.v6.backends, cookie, addr.into(), peer.port()),
        }
    }
}

fn table<F: Family>(dir: &Path) -> Result<Table<F>, OpenError> {
    let map = &of_family::<F>().sockets;
    let (data, _) = data(dir, map, size_of::<SocketRow<F>>())?;
    let failed = |source| OpenError::Map { path: dir.join(map.name), source };
    HashMap::try_from(Map::LruHashMap(data)).map_err(failed)
}

fn stranded<F: Family>(
    table: &Table<F>,
    backends: &Mapped<BackendRow<F>>,
    cookie: u64,
    addr: F::Addr,
    port: u16,
) -> Result<bool, MapError> {
    let cookie = [cookie as u32, (cookie >> 32) as u32];
    let key = SocketKey { cookie, addr, port: port.to_be(), end: SocketEnd::Backend as u16 };
    match table.get(&key, 0) {
        Ok(row) => Ok(!serves(backends, &row)),
        Err(MapError::KeyNotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

fn serves<F: Family>(backends: &Mapped<BackendRow<F>>, row: &SocketRow<F>) -> bool {
    if row.backend.low >= backends.len() {
        return false;
    }
    let word = BackendWord(backends.word(row.backend.low));
    word.0.generation == row.backend.generation && word.state().keeps(Protocol::Udp)
}
