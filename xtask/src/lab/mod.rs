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

mod hosts;
mod netns;
pub mod request;
mod server;

use std::{
    fs,
    path::PathBuf,
    process::{Command as Process, Stdio},
};

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;

pub use hosts::{Lab, Pod};
pub use netns::{enter, within};
pub use server::{serve, serve_pod};

use crate::setup;

/// `cargo xtask lab ...`
#[derive(Subcommand)]
pub enum Command {
    /// Brings it up, with its servers
    Up,
    /// Takes it down and ends its servers
    Down,
    /// Runs a command in the network of one of its hosts (node, red, blue, green, client)
    Exec {
        /// The host
        host: String,
        /// The command
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<String>,
    },
    /// The servers of a lab that is up, until they are ended
    #[command(hide = true)]
    Serve,
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
    let lab = Lab::new(PREFIX);
    match command {
        Command::Up => {
            setup::tools()?;
            lab.up()?;
            start_servers()?;
            println!(
                "up: node, red, blue, green, client (`cargo xtask lab exec red -- curl -s 10.244.1.3:8080`)"
            );
            Ok(())
        }
        Command::Down => {
            end_servers();
            lab.down();
            println!("down");
            Ok(())
        }
        Command::Exec { host, command } => {
            let (program, arguments) = command.split_first().context("no command")?;
            let status = lab.command(host, program)?.args(arguments).status();
            let status = status.with_context(|| format!("running {program}"))?;
            std::process::exit(status.code().unwrap_or(1));
        }
        Command::Serve => {
            serve(&lab)?;
            loop {
                std::thread::park();
            }
        }
    }
}

/// Servers that outlive this command: a process of their own, found again by its id.
fn start_servers() -> Result<()> {
    let program = std::env::current_exe()?;
    let mut servers = Process::new(program);
    servers.args(["lab", "serve"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
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
