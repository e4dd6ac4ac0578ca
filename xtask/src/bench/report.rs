//! The report: a table for the terminal, a page, the numbers, and a picture.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};
use comfy_table::{Table, presets::NOTHING};
use serde_json::{Value, json};

use super::{
    control::{self, Figure},
    goals,
    results::{Metric, Results},
};
use crate::setup::say;

fn figure(value: f64) -> String {
    match value {
        _ if value >= 1000.0 => format!("{value:.0}"),
        _ if value >= 100.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// One cell: the median, and the ratio to the base with its quartiles.
fn cell(results: &Results, metric: &Metric, contestant: &str) -> String {
    let Some(spread) = results.spread(metric, contestant) else { return "-".to_owned() };
    match results.ratio(metric, contestant, results.base) {
        Some(ratio) if contestant != results.base => {
            format!("{}  {:.2} ({:.2}-{:.2})", figure(spread.median), ratio.median, ratio.low, ratio.high)
        }
        _ => figure(spread.median),
    }
}

fn title(metric: &Metric) -> String {
    format!("{}, {}{}", metric.name, metric.unit, if metric.more { "" } else { " (less is better)" })
}

/// Medians, and ratios to the base.
fn table(results: &Results) -> Table {
    let mut table = Table::new();
    let mut header = vec![String::new()];
    header.extend(results.values.keys().map(title));
    table.load_preset(NOTHING).set_header(header);
    for contestant in &results.contestants {
        let mut row = vec![(*contestant).to_owned()];
        row.extend(results.values.keys().map(|metric| cell(results, metric, contestant)));
        table.add_row(row);
    }
    table
}

/// What was measured on, in words.
fn machine() -> String {
    let system = rustix::system::uname();
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "Linux {}, {} CPUs ({}), load average {} at the end",
        system.release().to_string_lossy(),
        std::thread::available_parallelism().map_or(0, usize::from),
        model.map_or("unknown", |(_, model)| model.trim()),
        load.split(' ').next().unwrap_or_default(),
    )
}

/// How workloads of pods are measured.
pub const HOW: &str = "Every \
client and server is a pod of the same lab; both ends of connections and requests run on one CPU, those of \
iperf3 (cubic) on two; all devices have the queueing discipline they come with \
(noqueue); br_netfilter is off but where rules of kube-proxy need it.";

/// Everything a run has found.
pub struct Report {
    /// Of the workloads: pods', outside's, frames at the uplink.
    pub results: Vec<Results>,
    /// Of the control plane.
    pub figures: Vec<Figure>,
    /// Of packets in the program, as a table.
    pub costs: Option<String>,
}

impl Report {
    /// Prints the tables.
    pub fn print(&self) {
        for results in &self.results {
            println!("\n{}\n\n{}\n\n{}", results.title, table(results), goals::table(results));
        }
        if !self.figures.is_empty() {
            println!("\n{}", control::table(&self.figures));
        }
        if let Some(costs) = &self.costs {
            println!("\n{costs}");
        }
    }

    /// Writes `report.md`, `results.json` and pictures into a directory.
    pub fn write(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let mut files = vec![
            ("report.md".to_owned(), self.page()),
            ("results.json".to_owned(), serde_json::to_string_pretty(&self.numbers())?),
        ];
        files.extend(self.results.iter().map(|results| (picture_of(results), picture(results))));
        for (name, text) in files {
            let path = dir.join(name);
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        }
        say(&format!("written: {}", dir.join("report.md").display()));
        Ok(())
    }

    fn page(&self) -> String {
        let mut text = format!("# lb, measured\n\n{}.\n", machine());
        for results in &self.results {
            let Results { title, how, base, .. } = results;
            let _ = writeln!(
                text,
                "\n## {title}\n\n{how} Medians; behind them the ratio to {base}, round by round, with its \
                 quartiles.\n\n![ratios to {base}]({})\n",
                picture_of(results)
            );
            let _ = writeln!(text, "| | {} |", results.contestants.join(" | "));
            let _ = writeln!(text, "|---|{}", "---|".repeat(results.contestants.len()));
            for metric in results.values.keys() {
                let cells = results.contestants.iter().map(|contestant| cell(results, metric, contestant));
                let _ =
                    writeln!(text, "| {} | {} |", self::title(metric), cells.collect::<Vec<_>>().join(" | "));
            }
            let _ = writeln!(text, "\n| goal | wanted | found | verdict |\n|---|---|---|---|");
            for judged in goals::judge(results) {
                let goals::Judged { what, goal, found, verdict } = judged;
                let _ = writeln!(text, "| {what} | {goal} | {found} | {} |", verdict.words());
            }
        }
        if !self.figures.is_empty() {
            let _ = writeln!(text, "\n## Control plane\n\n| | found | | at most |\n|---|---|---|---|");
            for Figure { what, value, unit, at_most } in &self.figures {
                let at_most = at_most.map_or_else(String::new, |most| most.to_string());
                let _ = writeln!(text, "| {what} | {value:.2} | {unit} | {at_most} |");
            }
        }
        if let Some(costs) = &self.costs {
            let _ = writeln!(text, "\n## Program\n\n```\n{}\n```", costs.trim_end());
        }
        text
    }

    fn numbers(&self) -> Value {
        let results = self.results.iter().map(|results| {
            let metrics = results.values.iter().map(|(metric, values)| {
                json!({"name": metric.name, "unit": metric.unit, "moreIsBetter": metric.more, "values": values})
            });
            json!({
                "title": results.title,
                "how": results.how,
                "base": results.base,
                "contestants": results.contestants,
                "metrics": metrics.collect::<Vec<_>>(),
                "goals": goals::judge(results),
            })
        });
        json!({
            "machine": machine(),
            "results": results.collect::<Vec<_>>(),
            "controlPlane": self.figures,
            "program": self.costs,
        })
    }
}

/// The file of the picture of some results.
fn picture_of(results: &Results) -> String {
    format!("{}.svg", results.title.to_lowercase().replace(' ', "-"))
}

/// Width of the picture, and what its parts take, in pixels.
const WIDTH: f64 = 860.0;
const LABEL: f64 = 150.0;
const BAR: f64 = 18.0;
/// How much better than direct a bar can show.
const MOST: f64 = 2.0;

/// A bar for each contestant of each metric: how many times as good as the base.
fn picture(results: &Results) -> String {
    let mut body = String::new();
    let mut y = 60.0;
    let scale = (WIDTH - LABEL - 90.0) / MOST;
    for metric in results.values.keys() {
        let _ = writeln!(body, r#"<text x="16" y="{y}" class="title">{}</text>"#, title(metric));
        y += 8.0;
        for contestant in results.contestants.iter().filter(|name| **name != results.base) {
            let Some(ratio) = results.ratio(metric, contestant, results.base) else { continue };
            let good = |ratio: f64| if metric.more { ratio } else { 1.0 / ratio };
            let (mid, one, other) = (good(ratio.median), good(ratio.low), good(ratio.high));
            let place = |ratio: f64| LABEL + ratio.min(MOST) * scale;
            let kind = if contestant.starts_with("lb") { "lb" } else { "other" };
            let (middle, text) = (y + BAR / 2.0, y + BAR - 5.0);
            let _ = writeln!(
                body,
                concat!(
                    r#"<text x="{}" y="{text}" class="name">{contestant}</text>"#,
                    r#"<rect x="{LABEL}" y="{}" width="{}" height="{}" rx="2" class="{kind}"/>"#,
                    r#"<line x1="{}" x2="{}" y1="{middle}" y2="{middle}" class="spread"/>"#,
                    r#"<text x="{}" y="{text}" class="value">{mid:.2}</text>"#
                ),
                LABEL - 8.0,
                y + 2.0,
                place(mid) - LABEL,
                BAR - 4.0,
                place(one),
                place(other),
                place(mid.max(one).max(other)) + 6.0,
                text = text,
                contestant = contestant,
                LABEL = LABEL,
                kind = kind,
                middle = middle,
                mid = mid,
            );
            y += BAR;
        }
        y += 30.0;
    }
    let one = LABEL + scale;
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" font-family="sans-serif">
<style>
.head {{ font-size: 16px; font-weight: bold }} .title {{ font-size: 13px; font-weight: bold }}
.name {{ font-size: 12px; text-anchor: end }} .value {{ font-size: 12px }}
.lb {{ fill: #2a7de1 }} .other {{ fill: #b8bec6 }} .spread {{ stroke: #333; stroke-width: 1.5 }}
</style>
<rect width="100%" height="100%" fill="#fff"/>
<text x="16" y="28" class="head">Times as good as {}, also where less is better (line: quartiles)</text>
<line x1="{one}" x2="{one}" y1="44" y2="{}" stroke="#c33" stroke-dasharray="4 3"/>
{body}</svg>
"##,
        results.base,
        y - 20.0
    )
}
