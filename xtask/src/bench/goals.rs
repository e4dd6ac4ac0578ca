//! What is to be reached, and whether it was.

use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;

use super::{
    outside::{self, CONNECTIONS, DATAGRAMS},
    results::{DIRECT, Metric, Results, Spread},
    uplink,
    workload::Workload,
};

/// A ratio that is to be reached.
struct Goal {
    metric: Metric,
    contestant: &'static str,
    to: &'static str,
    /// At least (more is better) or at most (less is better).
    ratio: f64,
}

const fn goal(
    workload: Workload,
    metric: usize,
    contestant: &'static str,
    to: &'static str,
    ratio: f64,
) -> Goal {
    of(workload.metrics()[metric], contestant, to, ratio)
}

const fn of(metric: Metric, contestant: &'static str, to: &'static str, ratio: f64) -> Goal {
    Goal { metric, contestant, to, ratio }
}

/// Of packets per second with the least program there is, where a quarter of its whole cost comes on top.
const A_QUARTER: f64 = 1.0 / 1.25;

const GOALS: [Goal; 21] = [
    goal(Workload::Iperf1, 0, "lb, 1", DIRECT, 1.0),
    goal(Workload::Iperf1, 0, "lb, 1", "limit", 0.97),
    goal(Workload::Iperf1, 0, "lb, 50k", DIRECT, 1.0),
    goal(Workload::Iperf8, 0, "lb, 1", DIRECT, 1.0),
    goal(Workload::Iperf8, 0, "lb, 1", "limit", 0.97),
    goal(Workload::Connections, 0, "lb, 1", DIRECT, 1.05),
    goal(Workload::Connections, 0, "lb, 1", "direct, tracked", 1.2),
    goal(Workload::Connections, 0, "lb, 1", "limit", 0.97),
    goal(Workload::Connections, 0, "lb, 50k", "lb, 1", 0.95),
    goal(Workload::Connections, 2, "lb, 1", DIRECT, 0.9),
    goal(Workload::Connections, 0, "lb, 10k", "iptables, 10k", 4.0),
    goal(Workload::Fresh, 0, "lb, 1", "limit", 0.93),
    goal(Workload::Datagrams, 0, "lb, 1", "limit", 0.95),
    goal(Workload::Datagrams, 0, "lb, 1", "iptables, 1", 2.0),
    of(uplink::ONE, uplink::XDP, uplink::ALONE, A_QUARTER),
    of(uplink::MANY, uplink::XDP, uplink::ALONE, A_QUARTER),
    of(uplink::ONE, uplink::XDP, uplink::TC, 3.0),
    of(uplink::MANY, uplink::XDP, uplink::TC, 3.0),
    of(DATAGRAMS, outside::TC, outside::IPTABLES, 1.0),
    of(DATAGRAMS, outside::XDP, outside::TC, 1.0),
    of(CONNECTIONS, outside::TC, outside::IPTABLES, 1.0),
];

/// Quartiles further apart than this part of the median say nothing about a goal between them.
const WIDE: f64 = 0.1;

/// How a goal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Reached.
    Met,
    /// Not reached.
    Missed,
    /// The machine was too busy to tell.
    TooNoisy,
}

impl Verdict {
    /// As people read it.
    pub fn words(self) -> &'static str {
        match self {
            Verdict::Met => "met",
            Verdict::Missed => "missed",
            Verdict::TooNoisy => "too noisy to tell",
        }
    }
}

/// One goal as it stands after a run.
#[derive(Serialize)]
pub struct Judged {
    /// What is compared.
    pub what: String,
    /// What is to be reached.
    pub goal: String,
    /// What was found.
    pub found: String,
    /// How it stands.
    pub verdict: Verdict,
}

fn verdict(found: Spread, goal: f64, more: bool) -> Verdict {
    let wide = (found.high - found.low) / found.median > WIDE;
    if wide && found.low < goal && goal < found.high {
        Verdict::TooNoisy
    } else if (found.median >= goal) == more || found.median == goal {
        Verdict::Met
    } else {
        Verdict::Missed
    }
}

/// Every goal about which something was measured.
pub fn judge(results: &Results) -> Vec<Judged> {
    let judge = |goal: &Goal| {
        let metric = goal.metric;
        let found = results.ratio(&metric, goal.contestant, goal.to)?;
        let (sign, more) = if metric.more { (">=", true) } else { ("<=", false) };
        Some(Judged {
            what: format!("{}: {} to {}", metric.name, goal.contestant, goal.to),
            goal: format!("{sign} {:.2}", goal.ratio),
            found: format!("{:.2} ({:.2}-{:.2})", found.median, found.low, found.high),
            verdict: verdict(found, goal.ratio, more),
        })
    };
    GOALS.iter().filter_map(judge).collect()
}

/// The goals as a table.
pub fn table(results: &Results) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(["GOAL", "WANTED", "FOUND", "VERDICT"]);
    for judged in judge(results) {
        table.add_row([judged.what.as_str(), &judged.goal, &judged.found, judged.verdict.words()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        let spread = |low, median, high| Spread { low, median, high };
        assert_eq!(verdict(spread(1.0, 1.1, 1.2), 1.0, true), Verdict::Met);
        assert_eq!(verdict(spread(0.98, 0.99, 1.0), 1.0, true), Verdict::Missed);
        assert_eq!(verdict(spread(0.7, 1.1, 1.2), 1.0, true), Verdict::TooNoisy);
        assert_eq!(verdict(spread(0.8, 0.85, 0.89), 0.9, false), Verdict::Met);
        assert_eq!(verdict(spread(0.92, 0.95, 0.99), 0.9, false), Verdict::Missed);
    }
}
