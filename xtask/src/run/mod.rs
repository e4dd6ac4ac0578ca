//! `cargo xtask run`: from a fresh machine to services that are balanced, shown by real requests.

mod agent;
pub mod checks;
mod expected;

use std::{
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

pub use agent::Agent;

use crate::{
    build::{self, workspace},
    lab::{self, Lab, Nodes, Size},
    setup::{self, say},
};

/// Options of `cargo xtask run`.
#[derive(clap::Args)]
pub struct Options {
    /// End after the demonstration, with the exit code of its checks
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    size: Size,
    /// Options of `lb run`: the agent on this host's own bridge, without the lab
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    agent: Vec<String>,
}

/// Set by Ctrl-C and SIGTERM.
static ENDED: AtomicBool = AtomicBool::new(false);

/// Whether the user has asked to end.
pub fn ended() -> bool {
    ENDED.load(Ordering::Relaxed)
}

/// Notes Ctrl-C and SIGTERM instead of dying of them, so that everything is cleaned up.
pub fn catch_signals() -> Result<()> {
    ctrlc::set_handler(|| ENDED.store(true, Ordering::Relaxed)).context("catching signals")
}

/// See the module.
pub fn run(options: &Options) -> Result<()> {
    setup::toolchain()?;
    if !options.agent.is_empty() {
        let lb = build::agent()?;
        say("starting the agent");
        let error = setup::elevated(lb).arg("run").args(&options.agent).exec();
        return Err(error).context("starting the agent");
    }
    setup::tools()?;
    let lb = build::agent()?;
    if !setup::is_root() {
        // The rest as root, by the program that is already built: cargo itself never runs as root.
        let mut again = Command::new("sudo");
        again.arg(std::env::current_exe()?).env("LB_BUILT", "1");
        again.args(["run", "--nodes", options.size.nodes.count()]);
        if options.once {
            again.arg("--once");
        }
        return Err(again.exec()).context("network namespaces need root, and sudo does not start");
    }
    catch_signals()?;
    say(&format!("bringing up the lab: {}", options.size.nodes.hosts()));
    let lab = Lab::of(lab::PREFIX, options.size.nodes);
    lab.up()?;
    let extent = if options.once { Extent::Once } else { Extent::Live };
    let result = demonstrate(&lab, &lb, extent);
    say("cleaning up");
    lab.down();
    result
}

/// How much of the demonstration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The checks, then what happens until the user has seen enough.
    Live,
    /// The checks.
    Once,
    /// A tenth of the requests and no throughput, for an emulated machine.
    Short,
}

/// An agent on every node of a lab that is up, requests through its services, and that nothing is left after it.
pub fn demonstrate(lab: &Lab, lb: &Path, extent: Extent) -> Result<()> {
    lab::serve(lab)?;
    let mut agents = start(lab, lb)?;
    agents[0].lb(&["get", "services"])?;
    for agent in &agents {
        agent.lb(&["get", "ports"])?;
    }
    let checks = expected::of(lab.nodes());
    let passed = match extent {
        Extent::Live | Extent::Once => checks::requests(lab, checks, 1)? & checks::throughput(lab)?,
        Extent::Short => checks::requests(lab, checks, 10)?,
    };
    for agent in &agents {
        agent.lb(&["get", "services"])?;
    }
    if extent == Extent::Live && !ended() {
        live(&agents[0], lab.nodes().pods()[0].name)?;
    }
    for agent in &mut agents {
        agent.end()?;
        checks::nothing_left(lab, agent.node(), agent.instance())?;
    }
    if !passed {
        bail!("some checks failed");
    }
    Ok(())
}

/// Starts an agent on every node and waits until all serve.
fn start(lab: &Lab, lb: &Path) -> Result<Vec<Agent>> {
    let (config, logs) = match lab.nodes() {
        Nodes::One => ("examples/lab.yaml", "agent.log"),
        Nodes::Three => ("examples/three-nodes.yaml", "lab-NODE.log"),
    };
    say(&format!("starting the agent on v-net-0 with {config} (its log: target/lab/{logs})"));
    let start = |node: &&str| {
        let instance = match lab.nodes() {
            Nodes::One => "lab".to_owned(),
            Nodes::Three => format!("lab-{node}"),
        };
        Agent::start_on(lab, node, lb, &workspace().join(config), &instance, &[])
    };
    let mut agents = lab.nodes().names().iter().map(start).collect::<Result<Vec<Agent>>>()?;
    for agent in &mut agents {
        agent.wait_ready()?;
    }
    Ok(agents)
}

/// Shows what happens until the user has seen enough.
fn live(agent: &Agent, pod: &str) -> Result<()> {
    println!("\nTry it from another terminal:  cargo xtask lab exec {pod} -- curl -s 10.96.0.10");
    while !ended() {
        let show = |arguments: &[&str]| agent.output(arguments);
        let (services, flows) = (show(&["get", "services"])?, show(&["get", "flows"])?);
        // Home, and clear to the end: no flicker.
        print!("\x1b[H\x1b[J\x1b[1mlb\x1b[0m on v-net-0, Ctrl-C ends\n\n{services}\n");
        let flows: Vec<&str> = flows.lines().take(16).collect();
        println!("{}", flows.join("\n"));
        for _ in 0..10 {
            if !ended() {
                sleep(Duration::from_millis(100));
            }
        }
    }
    Ok(())
}

/// A command whose output nobody reads.
pub(crate) fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}
