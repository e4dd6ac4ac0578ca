//! `cargo xtask bench`: direct, limit and lb side by side, in turn.
//!
//! Three labs are up at once and idle but for the one that is measured: *direct* is pod to pod over
//! the bridge with nothing of ours; *limit* has programs that only redirect between the two pods;
//! *lb* has the agent, and its client calls a VIP.

mod connections;
mod limit;
#[allow(dead_code)]
mod rules;
#[allow(dead_code)]
mod workload;

use std::{collections::BTreeMap, net::SocketAddr, path::Path};

use anyhow::{Context as _, Result, bail};
use comfy_table::{Table, presets::NOTHING};

use crate::{
    build::{self, workspace},
    lab::Lab,
    run::{Agent, catch_signals, checks::iperf3, ended, quiet},
    setup::{self, say},
};

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Options {
    /// Rounds; each measures everything once
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// Seconds of each iperf3 run and each run of connections
    #[arg(long, default_value_t = 2)]
    seconds: u32,
}

/// What is compared, in the order of the table.
const CONTESTANTS: [&str; 3] = ["direct", "limit", "lb"];

/// A workload and its unit; higher is better unless it is a time.
const WORKLOADS: [(&str, &str, bool); 5] = [
    ("iperf3, one stream", "Gbit/s", true),
    ("iperf3, eight streams", "Gbit/s", true),
    ("connections", "1/s", true),
    ("connection, p50", "us", false),
    ("connection, p99", "us", false),
];

/// Measurements by workload and contestant.
type Results = BTreeMap<(usize, usize), Vec<f64>>;

/// See the module.
pub fn bench(options: &Options) -> Result<()> {
    setup::toolchain()?;
    setup::tools()?;
    let lb = build::agent()?;
    if !setup::is_root() {
        bail!("benchmarks load programs and make network namespaces: run as root");
    }
    catch_signals()?;
    say("bringing up three labs");
    let labs = CONTESTANTS.map(|name| Lab::new(&format!("lbbench-{name}")));
    let result = labs.iter().try_for_each(Lab::up).and_then(|()| measure(&labs, &lb, options));
    labs.iter().for_each(Lab::down);
    let results = result?;
    println!("{}", table(&results));
    println!(
        "medians of {} rounds in turn; ratio to direct in brackets, with the quartiles of the rounds' ratios",
        options.rounds
    );
    Ok(())
}

fn measure(labs: &[Lab; 3], lb: &Path, options: &Options) -> Result<Results> {
    let config = workspace().join("examples/lab.yaml");
    let mut servers = Vec::new();
    for lab in labs {
        // Hosts with kube-proxy have this on; the plain bridge has it off.
        lab.sysctl("node", "net/bridge/bridge-nf-call-iptables", "0").ok();
        servers.push(quiet(lab.command("blue", "iperf3")?.arg("-s")).spawn().context("starting iperf3")?);
        connections::serve(lab)?;
    }
    let _limit = limit::attach(&labs[1])?;
    let mut agent = Agent::start(&labs[2], lb, &config, "lbbench", &[])?;
    agent.wait_ready()?;
    std::thread::sleep(std::time::Duration::from_millis(500));

    let mut results = Results::new();
    let targets = ["10.244.1.3", "10.244.1.3", "10.96.0.14"];
    for round in 1..=options.rounds {
        for (contestant, (lab, to)) in labs.iter().zip(targets).enumerate() {
            if ended() {
                bail!("ended before the last round: no figures");
            }
            say(&format!("round {round} of {}: {}", options.rounds, CONTESTANTS[contestant]));
            let mut note =
                |workload: usize, value: f64| results.entry((workload, contestant)).or_default().push(value);
            note(0, iperf3(lab, "red", to, options.seconds, 1)?);
            note(1, iperf3(lab, "red", to, options.seconds, 8)?);
            let to: SocketAddr = (to.parse::<std::net::IpAddr>()?, connections::PORT).into();
            let run = connections::run(lab, to, options.seconds)?;
            note(2, run.per_second);
            note(3, run.p50_us);
            note(4, run.p99_us);
        }
    }
    agent.end()?;
    for mut server in servers {
        let _ = server.kill();
        let _ = server.wait();
    }
    Ok(results)
}

fn quantile(values: &[f64], part: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let index = (values.len().saturating_sub(1)) as f64 * part;
    values.get(index.round() as usize).copied().unwrap_or(f64::NAN)
}

fn table(results: &Results) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(["", "direct", "limit", "lb", "lb : direct", "lb : limit"]);
    for (workload, (name, unit, higher)) in WORKLOADS.into_iter().enumerate() {
        let of = |contestant: usize| results.get(&(workload, contestant)).map_or(&[][..], Vec::as_slice);
        let median = |contestant| format!("{:.1}", quantile(of(contestant), 0.5));
        let ratio = |against| {
            // Round by round, so that a slow moment of the machine meets both.
            let ratios: Vec<f64> = of(2).iter().zip(of(against)).map(|(lb, other)| lb / other).collect();
            let [low, mid, high] = [0.25, 0.5, 0.75].map(|part| quantile(&ratios, part));
            format!("{mid:.2} ({low:.2}-{high:.2})")
        };
        let better = if higher { "" } else { ", less is better" };
        let name = format!("{name}, {unit}{better}");
        table.add_row([name, median(0), median(1), median(2), ratio(0), ratio(1)]);
    }
    table
}
