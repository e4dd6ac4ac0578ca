//! The figures as a table.

use std::{collections::BTreeMap, fmt, fs};

use anyhow::{Context, Result};
use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;

use super::{Cost, Options, measure_with};
use crate::verifier::{Effort, efforts};

/// Where figures are recorded.
pub const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/program-cost.txt");
const HEADER: &str = "\
# What a packet costs in the program at a bridge's port (port_ingress), so that a change that costs is
# seen in review. Figures of different machines do not compare, nor do those of a busy one: record
# before and after on the same idle machine, and look at the empty program's figures first, which are
# what measuring costs. Written as root by
# LB_UPDATE_COST=1 cargo run --release -p lb-tests --bin program-cost
";

/// What a program costs, to packets and to the verifier.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Nanoseconds per packet in `port_ingress`.
    pub costs: Vec<Cost>,
    /// Every program's instructions.
    pub programs: BTreeMap<String, Effort>,
}

impl Report {
    /// Measures all of it. `progress` is told what is next.
    ///
    /// # Errors
    /// Without root or the kernel object, or when a packet does not get what it is meant to get.
    pub fn new(options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Report> {
        progress("the verifier");
        Ok(Report { programs: efforts()?, costs: measure_with(options, progress)? })
    }

    /// Writes [`RECORD`].
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn record(&self) -> Result<()> {
        fs::write(RECORD, format!("{HEADER}\n{self}")).context(RECORD)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Nanoseconds per packet over the empty program's: median (quartiles) of blocks, by flows in the table"
        )?;
        writeln!(f, "{}", trimmed(&self.nanoseconds()))?;
        writeln!(f, "Instructions (after dead code is removed; walked by the verifier)")?;
        let mut table = Table::new();
        table.load_preset(NOTHING).set_header(["program", "instructions", "walked"]);
        for (name, effort) in &self.programs {
            table.add_row([name.clone(), effort.instructions.to_string(), effort.verified.to_string()]);
        }
        write!(f, "{}", trimmed(&table))
    }
}

impl Report {
    fn nanoseconds(&self) -> Table {
        let mut flows: Vec<u32> = self.costs.iter().map(|cost| cost.flows).collect();
        flows.sort_unstable();
        flows.dedup();
        let mut rows: Vec<(&Cost, Vec<String>)> = Vec::new();
        for cost in &self.costs {
            let cell = format!("{:.0} ({:.0}-{:.0})", cost.ns, cost.low, cost.high);
            let same = |other: &Cost| {
                (other.kind, other.protocol, other.family) == (cost.kind, cost.protocol, cost.family)
            };
            match rows.iter_mut().find(|(of, _)| same(of)) {
                Some((_, cells)) => cells.push(cell),
                None => rows.push((cost, vec![cell])),
            }
        }
        rows.sort_by_key(|(of, _)| (of.kind, of.family, of.protocol));
        let mut table = Table::new();
        let header = ["packet", "", ""].into_iter().map(str::to_owned);
        table.load_preset(NOTHING).set_header(header.chain(flows.iter().map(u32::to_string)));
        for (of, cells) in rows {
            let name = [of.kind.to_string(), of.family.to_owned(), of.protocol.to_owned()];
            table.add_row(name.into_iter().chain(cells));
        }
        table
    }
}

/// Its lines without the spaces at their ends.
fn trimmed(table: &Table) -> String {
    table.to_string().lines().map(|line| format!("{}\n", line.trim())).collect()
}
