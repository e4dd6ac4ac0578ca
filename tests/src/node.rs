//! A node for one test: a network namespace with a bridge, files, and the real binary.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use xtask::lab::enter;

/// The agent that `cargo xtask test` has built.
pub fn binary() -> Result<PathBuf> {
    let path = env::var_os("LB_BINARY").context("LB_BINARY names the agent: run `cargo xtask test`")?;
    Ok(path.into())
}

/// A network namespace with the bridge `br0` (10.128.0.1/9), and a directory. Both go at the end.
pub struct Node {
    namespace: String,
    /// Its files.
    pub directory: PathBuf,
}

impl Node {
    /// Under that name, which no other test has.
    pub fn new(namespace: &str) -> Result<Node> {
        let directory = env::temp_dir().join(format!("{namespace}-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let node = Node { namespace: namespace.to_owned(), directory };
        // What an interrupted run has left.
        let _ = ip(&format!("netns del {namespace}"));
        ip(&format!("netns add {namespace}"))?;
        for command in
            ["link set lo up", "link add br0 type bridge", "addr add 10.128.0.1/9 dev br0", "link set br0 up"]
        {
            ip(&format!("-n {namespace} {command}"))?;
        }
        Ok(node)
    }

    /// Writes a file; its path.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let (path, new) = (self.directory.join(name), self.directory.join("new"));
        fs::write(&new, text)?;
        fs::rename(new, &path)?;
        Ok(path)
    }

    /// A command in the node's network and directory.
    pub fn command(&self, program: &Path, arguments: &str) -> Result<Command> {
        let mut command = enter(&self.namespace, &program.to_string_lossy())?;
        command.args(arguments.split(' ')).current_dir(&self.directory).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs `lb`.
    pub fn lb(&self, arguments: &str) -> Result<Output> {
        self.command(&binary()?, arguments)?.output().context("running lb")
    }

    /// Runs `ip` in it.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        ip(&format!("-n {} {arguments}", self.namespace))
    }

    /// Starts `lb run` on the bridge.
    pub fn agent(&self, instance: &str, config: &str) -> Result<Agent<'_>> {
        self.agent_on("--bridge br0", instance, config)
    }

    /// Starts `lb run` on these devices.
    pub fn agent_on(&self, devices: &str, instance: &str, config: &str) -> Result<Agent<'_>> {
        let log = self.directory.join("agent.log");
        let file = File::create(&log)?;
        let arguments = format!("run {devices} --instance {instance} --config {config}");
        let process = self.command(&binary()?, &arguments)?.stdout(file.try_clone()?).stderr(file).spawn()?;
        Ok(Agent { node: self, instance: instance.to_owned(), log, process })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = ip(&format!("netns del {}", self.namespace));
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip").args(arguments.split(' ')).output().context("running ip")?;
    ensure!(output.status.success(), "`ip {arguments}`: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A running agent; ended and uninstalled at the end.
pub struct Agent<'n> {
    node: &'n Node,
    instance: String,
    log: PathBuf,
    process: Child,
}

impl Agent<'_> {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What it has said.
    pub fn log(&self) -> Result<String> {
        fs::read_to_string(&self.log).context("reading the agent's log")
    }

    /// Waits until it says `text` after the first `from` bytes of its log; all that it has said since.
    pub fn wait_for(&mut self, text: &str, from: usize) -> Result<String> {
        let start = Instant::now();
        loop {
            let log = self.log()?;
            let new = log.get(from..).unwrap_or_default();
            // Whole lines only.
            if let Some(at) = new.find(text)
                && new[at..].contains('\n')
            {
                return Ok(new.to_owned());
            }
            if let Some(status) = self.process.try_wait()? {
                bail!("the agent ended ({status}):\n{log}");
            }
            ensure!(start.elapsed() < Duration::from_secs(60), "the agent never says {text:?}:\n{log}");
            sleep(Duration::from_millis(5));
        }
    }

    /// What an `lb` command about its instance prints.
    pub fn lb(&self, arguments: &str) -> Result<String> {
        let output = self.node.lb(&format!("{arguments} --instance {}", self.instance))?;
        ensure!(output.status.success(), "`lb {arguments}`: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.process.id() as i32) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.process.wait();
        let _ = self.lb("uninstall --all");
    }
}
