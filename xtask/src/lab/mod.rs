//! The lab: a node with a bridge and pods and a client outside, as network namespaces.
//!
//! ```text
//!                 .-------------- node ---------------.
//!  client --------| eth0        v-net-0 10.244.1.1/24  |
//!  192.168.1.100  | 192.168.1.11   |    |    |         |
//!                 '----------------+----+----+---------'
//!                                 red  blue green
//!                                  .2   .3   .4
//! ```
//!
//! Or three of them on a LAN, with routes between the networks of their pods:
//!
//! ```text
//!  client ---------.   .-------------- node1 --------------.
//!  192.168.1.100   |---| eth0        v-net-0 10.244.1.1/24  |
//!                  |   | 192.168.1.11   |    |              |
//!                 lan  '----------------+----+--------------'
//!                  |                  red1  blue1
//!                  |                   .2    .3
//!                  |--- node2: 192.168.1.12, 10.244.2.0/24, red2, blue2
//!                  '--- node3: 192.168.1.13, 10.244.3.0/24, red3, blue3
//! ```

mod hosts;
mod netns;
mod outside;
mod pass;
pub mod request;
mod server;
mod topology;

use std::{
    fs,
    path::PathBuf,
    process::{Command as Process, Stdio},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};

pub use hosts::Lab;
pub use netns::{enter, within};
pub use server::{serve, serve_at, serve_pod};
pub use topology::{Nodes, Pod};

use crate::setup;

/// `cargo xtask lab ...`
#[derive(Subcommand)]
pub enum Command {
    /// Brings it up, with its servers
    Up(Size),
    /// Takes it down and ends its servers
    Down,
    /// Runs a command in the network of one of its hosts (node, red, blue, green, client; of three
    /// nodes node1, red1, blue1, node2, ..., client, lan)
    Exec {
        /// The host
        host: String,
        /// The command
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<String>,
    },
    /// The servers of a lab that is up, until they are ended
    #[command(hide = true)]
    Serve(Size),
}

/// The nodes that are asked for.
#[derive(Args, Clone, Copy, Debug)]
pub struct Size {
    /// How many nodes
    #[arg(long, value_enum, default_value_t)]
    pub nodes: Nodes,
}

/// Prefix of the namespaces of the lab that people use.
pub const PREFIX: &str = "lb";

fn pid_file() -> PathBuf {
    PathBuf::from("/run/lb/lab-servers.pid")
}

/// Carries one out.
pub fn command(command: &Command) -> Result<()> {
    if !setup::is_root() {
        bail!("network namespaces need root: run `sudo {} lab ...`", std::env::current_exe()?.display());
    }
    match command {
        Command::Up(Size { nodes }) => {
            setup::tools()?;
            Lab::of(PREFIX, *nodes).up()?;
            start_servers(*nodes)?;
            let from = nodes.pods()[0].name;
            println!("up: {} (`cargo xtask lab exec {from} -- curl -s 10.244.1.3:8080`)", nodes.hosts());
            Ok(())
        }
        Command::Down => {
            end_servers();
            Lab::new(PREFIX).down();
            println!("down");
            Ok(())
        }
        Command::Exec { host, command } => {
            let (program, arguments) = command.split_first().context("no command")?;
            let status = Lab::new(PREFIX).command(host, program)?.args(arguments).status();
            let status = status.with_context(|| format!("running {program}"))?;
            std::process::exit(status.code().unwrap_or(1));
        }
        Command::Serve(Size { nodes }) => {
            serve(&Lab::of(PREFIX, *nodes))?;
            loop {
                std::thread::park();
            }
        }
    }
}

/// Servers that outlive this command: a process of their own, found again by its id.
fn start_servers(nodes: Nodes) -> Result<()> {
    let program = std::env::current_exe()?;
    let mut servers = Process::new(program);
    servers.args(["lab", "serve", "--nodes", nodes.count()]);
    servers.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let servers = servers.spawn().context("starting the servers")?;
    fs::create_dir_all("/run/lb")?;
    fs::write(pid_file(), servers.id().to_string()).context("noting the servers' process")
}

fn end_servers() {
    let Ok(pid) = fs::read_to_string(pid_file()) else { return };
    let ours = fs::read_to_string(format!("/proc/{}/cmdline", pid.trim()))
        .is_ok_and(|line| line.contains("lab\0serve"));
    if let (true, Ok(pid)) = (ours, pid.trim().parse())
        && let Some(pid) = rustix::process::Pid::from_raw(pid)
    {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let _ = fs::remove_file(pid_file());
}
