//! An agent in a node of a lab.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::ended;
use crate::{build::workspace, lab::Lab};

/// A running agent and its instance. Dropped, it is ended and uninstalled.
pub struct Agent {
    lab: Lab,
    node: String,
    lb: PathBuf,
    instance: String,
    log: PathBuf,
    arguments: Vec<OsString>,
    /// How many of the arguments every agent of a lab has.
    common: usize,
    process: Child,
}

impl Agent {
    /// Starts `lb run` in the node of a lab that has one, with more options if given.
    pub fn start(lab: &Lab, lb: &Path, config: &Path, instance: &str, more: &[&str]) -> Result<Agent> {
        Agent::start_on(lab, "node", lb, config, instance, more)
    }

    /// Starts `lb run` in one of a lab's nodes.
    pub fn start_on(
        lab: &Lab,
        node: &str,
        lb: &Path,
        config: &Path,
        instance: &str,
        more: &[&str],
    ) -> Result<Agent> {
        let devices = ["--bridge", "v-net-0", "--uplink", "eth0"];
        Agent::start_at(lab, node, &devices, lb, config, instance, more)
    }

    /// Starts `lb run` in one of a lab's nodes, for these devices.
    pub fn start_at(
        lab: &Lab,
        node: &str,
        devices: &[&str],
        lb: &Path,
        config: &Path,
        instance: &str,
        more: &[&str],
    ) -> Result<Agent> {
        let dir = workspace().join("target/lab");
        fs::create_dir_all(&dir)?;
        let log =
            dir.join(if instance == "lab" { "agent.log".to_owned() } else { format!("{instance}.log") });
        let given = [&["run"], devices, &["--instance", instance, "--config"]].concat();
        let mut arguments: Vec<OsString> = given.into_iter().map(OsString::from).collect();
        arguments.push(config.into());
        let common = arguments.len();
        arguments.extend(more.iter().map(OsString::from));
        let process = spawn(lab, node, lb, &log, &arguments)?;
        let (node, instance) = (node.to_owned(), instance.to_owned());
        Ok(Agent { lab: lab.clone(), node, lb: lb.to_owned(), instance, log, arguments, common, process })
    }

    /// Starts it again, with the same options, after it was ended; returns when it is ready.
    pub fn start_again(&mut self) -> Result<()> {
        self.process = spawn(&self.lab, &self.node, &self.lb, &self.log, &self.arguments)?;
        self.wait_ready()
    }

    /// The same with other options than those that every agent of a lab has.
    pub fn start_with(&mut self, more: &[&str]) -> Result<()> {
        self.arguments.truncate(self.common);
        self.arguments.extend(more.iter().map(OsString::from));
        self.start_again()
    }

    /// Tries to start a second one of the instance; how that ended and what it said.
    pub fn start_second(&self) -> Result<(ExitStatus, String)> {
        let mut command = self.lab.command(&self.node, &self.lb.to_string_lossy())?;
        let output =
            command.args(&self.arguments).stdin(Stdio::null()).output().context("starting an agent")?;
        Ok((output.status, String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    /// Waits until it has published its services.
    pub fn wait_ready(&mut self) -> Result<()> {
        let start = Instant::now();
        while !self.log()?.contains("ready: ") {
            if let Some(status) = self.process.try_wait()? {
                bail!("the agent ended ({status}):\n{}", self.log()?);
            }
            if ended() || start.elapsed() > Duration::from_secs(60) {
                bail!("the agent is not ready:\n{}", self.log()?);
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The node it runs in.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The name of its instance.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// What it has said so far.
    pub fn log(&self) -> Result<String> {
        fs::read_to_string(&self.log).with_context(|| format!("reading {}", self.log.display()))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// An `lb` command about this instance.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.lab.command(&self.node, &self.lb.to_string_lossy())?;
        command.args(arguments).args(["--instance", &self.instance]).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs an `lb` command, shown to the user.
    pub fn lb(&self, arguments: &[&str]) -> Result<()> {
        println!("\n\x1b[1m{}$ lb {}\x1b[0m", self.node, arguments.join(" "));
        print!("{}", self.output(arguments)?);
        Ok(())
    }

    /// What an `lb` command prints.
    pub fn output(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments)?.output().context("running lb")?;
        if !output.status.success() {
            bail!("`lb {}`: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What an `lb` command prints as JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.output(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("{arguments:?} printed {text}"))
    }

    /// Sends it a signal and waits for its end; what it has set up stays.
    pub fn signal(&mut self, signal: Signal) -> Result<ExitStatus> {
        if let Some(status) = self.process.try_wait()? {
            return Ok(status);
        }
        if let Some(pid) = Pid::from_raw(self.process.id() as i32) {
            let _ = kill_process(pid, signal);
        }
        self.process.wait().context("waiting for the agent")
    }

    /// Ends it and leaves the node as it was.
    pub fn end(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        self.output(&["uninstall", "--all"]).map(drop)
    }
}

fn spawn(lab: &Lab, node: &str, lb: &Path, log: &Path, arguments: &[OsString]) -> Result<Child> {
    let file = File::create(log).with_context(|| format!("making {}", log.display()))?;
    let mut command = lab.command(node, &lb.to_string_lossy())?;
    command.args(arguments).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    command.spawn().context("starting the agent")
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.end();
    }
}
