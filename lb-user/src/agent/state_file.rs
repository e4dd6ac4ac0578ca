//! What an agent must find again after a restart or a boot: the addresses it gave and its hash seed.

use std::{fs, io, path::Path};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::node::NodeAddresses;
use crate::{
    files::{self, Sync},
    model::addresses::Allocations,
};

/// The file `kept.json` of an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StateFile {
    /// Seed of Maglev's tables where the config names none.
    pub hash_seed: u64,
    /// Addresses given from `serviceCIDRs`.
    pub addresses: Allocations,
    /// What the node was known by where the config does not say it.
    #[serde(default)]
    pub node: NodeAddresses,
}

impl StateFile {
    /// Reads the file; a new one with a random seed if there is none.
    pub fn read(path: &Path) -> Result<StateFile> {
        match fs::read(path) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| {
                format!(
                    "{} is damaged: remove it, and services without an address get new ones",
                    path.display()
                )
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut seed = [0; 8];
                let read = rustix::rand::getrandom(&mut seed[..], rustix::rand::GetRandomFlags::empty());
                read.context("drawing a hash seed")?;
                Ok(StateFile {
                    hash_seed: u64::from_ne_bytes(seed),
                    addresses: Allocations::default(),
                    node: (None, None),
                })
            }
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Replaces the file; it is on the disk before this returns. One that says the same is left alone, so that
    /// nothing need be written to start.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        files::replace(path, &serde_json::to_vec_pretty(self)?, Sync::Now)
    }
}
