//! `cargo xtask bench`: what is compared, side by side and in turn, on labs of its own.
//!
//! One lab per contestant is up; all but the one that is measured are idle. A round measures every
//! workload with every contestant once, so that a slow moment of the machine meets all of them; what
//! counts are the ratios within a round, their median and their quartiles.

mod clients;
mod contestant;
mod control;
mod goals;
mod limit;
mod outside;
mod program;
mod report;
mod results;
mod rules;
mod uplink;
mod workload;

use anyhow::{Context as _, Result, bail};

use crate::{
    build::{self, workspace},
    run::{catch_signals, ended},
    setup::{self, say},
};
use contestant::Contestant;
use report::Report;
use results::Results;
use workload::Workload;

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Options {
    /// Fewer contestants, rounds and seconds: within five minutes
    #[arg(long)]
    quick: bool,
    /// Only what has this in its name: a workload, `program` (nanoseconds of each
    /// kind of packet), `control` (the control plane), `outside` (node ports and
    /// backends on other nodes) or `uplink` (packets there, in XDP and in tc)
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Rounds; each measures everything once
    #[arg(long)]
    rounds: Option<u32>,
    /// Seconds of each run
    #[arg(long)]
    seconds: Option<u32>,
}

/// What `--only` calls the control plane.
const CONTROL: &str = "control";
/// What `--only` calls the cost of a packet in the program.
const PROGRAM: &str = "program";

/// What `--only` calls node ports to other nodes.
const OUTSIDE: &str = "outside";
/// What `--only` calls packets at the uplink.
const UPLINK: &str = "uplink";

/// See the module.
pub fn bench(options: &Options) -> Result<()> {
    let asked = |name: &str| options.only.as_ref().is_none_or(|part| name.contains(part.as_str()));
    let chosen: Vec<Workload> = Workload::ALL.into_iter().filter(|workload| asked(workload.name())).collect();
    let others = [CONTROL, PROGRAM, OUTSIDE, UPLINK];
    let [control, program, outside, uplink] = others.map(asked);
    if chosen.is_empty() && !others.into_iter().any(asked) {
        let names = Workload::ALL.map(Workload::name).join(", ");
        let asked = options.only.as_deref().unwrap_or_default();
        bail!(
            "nothing to measure has a name with {asked:?} in it; there are: {names}, {}",
            others.join(", ")
        );
    }
    setup::toolchain()?;
    setup::tools()?;
    let lb = build::agent()?;
    if !setup::is_root() {
        bail!("benchmarks load programs and make network namespaces: run `cargo xtask bench` as root");
    }
    catch_signals()?;
    let (rounds, seconds) = if options.quick { (3, 1) } else { (10, 2) };
    let (rounds, seconds) = (options.rounds.unwrap_or(rounds), options.seconds.unwrap_or(seconds));
    let costs = if program { Some(program::measure(options.quick)?) } else { None };
    let figures = if control { control::measure(&lb, options.quick)? } else { Vec::new() };
    let mut results = Vec::new();
    if uplink {
        results.push(uplink::measure(options.quick)?);
    }
    if outside {
        results.push(outside::measure(&lb, rounds, seconds)?);
    }
    if !chosen.is_empty() {
        let mut contestants = contestant::up(&lb, options.quick)?;
        let found = measure(&mut contestants, &chosen, rounds, seconds);
        for contestant in &mut contestants {
            contestant.end()?;
        }
        results.push(found?);
    }
    let report = Report { results, figures, costs };
    report.print();
    report.write(&workspace().join("target/bench"))
}

fn measure(
    contestants: &mut [Contestant],
    workloads: &[Workload],
    rounds: u32,
    seconds: u32,
) -> Result<Results> {
    let names = contestants.iter().map(|contestant| contestant.name).collect();
    let how = format!("{rounds} rounds of {seconds} s. {}", report::HOW);
    let mut results = Results::new("Pods", how, results::DIRECT, names);
    for round in 1..=rounds {
        say(&format!("round {round} of {rounds}"));
        for workload in workloads {
            for contestant in contestants.iter_mut() {
                if ended() {
                    bail!("ended in round {round} of {rounds}: no figures");
                }
                let found = workload.run(contestant, seconds);
                for (metric, value) in found.with_context(|| format!("measuring {}", contestant.name))? {
                    results.note(metric, contestant.name, value);
                }
            }
        }
    }
    Ok(results)
}
