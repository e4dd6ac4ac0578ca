//! The network namespaces whose sockets are translated beside the host's.

use std::{collections::HashSet, path::Path};

use aya::maps::{HashMap, MapData, MapError};

use lb_common::abi::maps::COOKIES;

use super::{OpenError, hash};

/// Their cookies. The kernel never gives one twice: a row that is left does no harm.
pub struct Cookies(HashMap<MapData, [u32; 2], u32>);

impl Cookies {
    /// Opens the map pinned below `dir`.
    pub fn open(dir: &Path) -> Result<Cookies, OpenError> {
        Ok(Cookies(hash(dir, &COOKIES)?))
    }

    /// Makes these the ones that there are.
    pub fn set(&mut self, wanted: &HashSet<u64>) -> Result<(), MapError> {
        let wanted: HashSet<[u32; 2]> =
            wanted.iter().map(|cookie| [*cookie as u32, (*cookie >> 32) as u32]).collect();
        let known: HashSet<[u32; 2]> = self.0.keys().collect::<Result<_, _>>()?;
        for cookie in known.difference(&wanted) {
            self.0.remove(cookie)?;
        }
        for cookie in wanted.difference(&known) {
            self.0.insert(cookie, 1, 0)?;
        }
        Ok(())
    }
}
