//! The figures as a table.

use std::fmt;

use anyhow::Result;
use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;

use super::{Measured, Options, measure};

/// What a packet costs at the uplink.
#[derive(Debug, Serialize)]
pub struct Report {
    /// By kind of frames.
    pub rows: Vec<Row>,
}

/// One kind of frames. Each figure is a median with its quartiles: low, median, high.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What the frames were.
    pub kind: String,
    /// Nanoseconds a frame takes in all, with a program that only says XDP_TX.
    pub alone: [f64; 3],
    /// The same with `uplink_xdp`.
    pub xdp: [f64; 3],
    /// The same with `uplink_ingress`.
    pub tc: [f64; 3],
    /// What `uplink_xdp` takes more than XDP_TX alone.
    pub own: [f64; 3],
    /// That by all that XDP_TX alone takes.
    pub own_part: [f64; 3],
    /// Packets per second through XDP by those through tc.
    pub times_tc: [f64; 3],
    /// Nanoseconds a frame takes in all, by round: alone, XDP, tc.
    pub rounds: Vec<[f64; 3]>,
}

impl Report {
    /// Measures all of it. `progress` is told what is next.
    ///
    /// # Errors
    /// As [`measure`].
    pub fn new(options: Options, progress: &mut dyn FnMut(&str)) -> Result<Report> {
        Ok(Report { rows: measure(options, progress)?.iter().map(Row::new).collect() })
    }
}

impl Row {
    fn new(measured: &Measured) -> Row {
        let of = |figure: fn(&[f64; 3]) -> f64| {
            let mut values: Vec<f64> = measured.rounds.iter().map(figure).collect();
            values.sort_by(f64::total_cmp);
            let last = values.len().saturating_sub(1) as f64;
            [0.25, 0.5, 0.75]
                .map(|part| values.get((last * part).round() as usize).copied().unwrap_or(f64::NAN))
        };
        Row {
            kind: measured.kind.name(),
            alone: of(|[alone, ..]| *alone),
            xdp: of(|[_, xdp, _]| *xdp),
            tc: of(|[_, _, tc]| *tc),
            own: of(|[alone, xdp, _]| xdp - alone),
            own_part: of(|[alone, xdp, _]| (xdp - alone) / alone),
            times_tc: of(|[_, xdp, tc]| tc / xdp),
            rounds: measured.rounds.clone(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "At the uplink, nanoseconds per packet in all: median (quartiles) of blocks")?;
        let mut table = Table::new();
        table.load_preset(NOTHING).set_header([
            "packets",
            "XDP_TX alone",
            "lb, XDP",
            "lb, tc",
            "own cost",
            "of XDP_TX alone",
            "XDP by tc",
        ]);
        for row in &self.rows {
            let whole = |[low, ns, high]: [f64; 3]| format!("{ns:.0} ({low:.0}-{high:.0})");
            let ratio = |[low, ratio, high]: [f64; 3]| format!("{ratio:.2} ({low:.2}-{high:.2})");
            table.add_row([
                row.kind.clone(),
                whole(row.alone),
                whole(row.xdp),
                whole(row.tc),
                whole(row.own),
                ratio(row.own_part),
                ratio(row.times_tc),
            ]);
        }
        table.to_string().lines().try_for_each(|line| writeln!(f, "{}", line.trim()))
    }
}
