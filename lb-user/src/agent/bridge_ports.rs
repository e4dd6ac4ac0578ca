//! BridgePorts: in which zone each port is, where there are several bridges, whose programs look it up.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use aya::maps::{HashMap as Rows, MapData};

use super::table::Table;
use crate::maps::{self, Pins};

/// See the module. A port whose program runs has a row: it is written before the program is attached, and removed
/// after that is detached. Where a port moves to another bridge it is written over, which is one step for the packets.
pub struct BridgePorts {
    rows: Rows<MapData, u32, u32>,
    table: Table<u32, u32>,
}

impl BridgePorts {
    /// Opens the map. What an agent before us wrote stays until [`Self::retain`].
    ///
    /// # Errors
    /// Why it can't be opened.
    pub fn open(pins: &Pins) -> Result<BridgePorts> {
        let rows = maps::bridge_ports(&pins.maps())?;
        let table = Table::adopt(&rows);
        Ok(BridgePorts { rows, table })
    }

    /// Writes these rows.
    ///
    /// # Errors
    /// There are too many.
    pub fn add(&mut self, zones: &HashMap<u32, u32>) -> Result<()> {
        self.table.add(&mut self.rows, zones).context("writing in which zone the bridges' ports are")?;
        Ok(())
    }

    /// Removes all others.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn retain(&mut self, zones: &HashMap<u32, u32>) -> Result<()> {
        self.table
            .retain(&mut self.rows, zones)
            .context("forgetting in which zone ports were that have left")?;
        Ok(())
    }
}
