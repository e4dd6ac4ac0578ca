//! Packets that come in at the uplink and leave again there, in XDP and in tc: measured with live frames by a program
//! of the tests.

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::{
    program,
    results::{Metric, Results},
    workload::metric,
};
use crate::setup::say;

/// A program that only sends frames back: what all steps around a program take.
pub const ALONE: &str = "XDP_TX alone";
/// The program of the uplink in XDP.
pub const XDP: &str = "lb, XDP";
/// That in tc.
pub const TC: &str = "lb, tc";

/// Segments of one TCP connection.
pub const ONE: Metric = metric(20, "established, 1 flow", "1/s", true);
/// Of many.
pub const MANY: Metric = metric(21, "established, 512 flows", "1/s", true);
const NEW: Metric = metric(22, "new flows", "1/s", true);

#[derive(Deserialize)]
struct Report {
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    kind: String,
    /// Nanoseconds a packet, of the contestants in order.
    rounds: Vec<[f64; 3]>,
}

/// Packets per second through each.
pub fn measure(quick: bool) -> Result<Results> {
    say("uplink: packets with live frames");
    let text = program::run("uplink-cost", &["--json"], quick)?;
    let report: Report = serde_json::from_str(&text).with_context(|| format!("uplink-cost said {text}"))?;
    let how = "Frames of 72 bytes, TCP over IPv4, from a program that writes them into the wire to a program that \
               drops them, all on one CPU; with tc, an XDP program that passes them on is before it.";
    let contestants = vec![ALONE, XDP, TC];
    let mut results = Results::new("Uplink", how.to_owned(), ALONE, contestants.clone());
    for row in report.rows {
        let known = [ONE, MANY, NEW].into_iter().find(|metric| metric.name == row.kind);
        let metric = known.with_context(|| format!("uplink-cost measures {}", row.kind))?;
        for round in row.rounds {
            contestants.iter().zip(round).for_each(|(name, ns)| results.note(metric, name, 1e9 / ns));
        }
    }
    Ok(results)
}
