//! A node for one test: a network namespace with a bridge, files, and the real binary.

use std::{
    env,
    fs::{self, DirBuilder, File},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use xtask::lab::enter;

use crate::wait::until;

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

    /// Starts `lb run` on the bridge; it is ready.
    pub fn ready(&self, instance: &str, config: &str) -> Result<Agent<'_>> {
        self.ready_on("--bridge br0", instance, config)
    }

    /// The same on these devices.
    pub fn ready_on(&self, devices: &str, instance: &str, config: &str) -> Result<Agent<'_>> {
        let mut agent = self.agent_on(devices, instance, config)?;
        agent.wait_for("ready: ", 0)?;
        Ok(agent)
    }

    /// Starts `lb run` on these devices.
    pub fn agent_on(&self, devices: &str, instance: &str, config: &str) -> Result<Agent<'_>> {
        let file = File::create(self.log())?;
        let mut command = self.run(devices, instance, config)?;
        command.stdout(file.try_clone()?).stderr(file);
        self.start(instance, command)
    }

    /// `lb run` on these devices, to be started with [`Self::start`].
    pub fn run(&self, devices: &str, instance: &str, config: &str) -> Result<Command> {
        self.command(&binary()?, &format!("run {devices} --instance {instance} --config {config}"))
    }

    /// Starts an agent. What it says is read from [`Self::log`].
    pub fn start(&self, instance: &str, mut command: Command) -> Result<Agent<'_>> {
        let process = command.spawn()?;
        Ok(Agent { node: self, instance: instance.to_owned(), log: self.log(), process })
    }

    /// The file that agents log to.
    pub fn log(&self) -> PathBuf {
        self.directory.join("agent.log")
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

    /// Its pipes, where it was started with such.
    pub fn process(&mut self) -> &mut Child {
        &mut self.process
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.process.id() as i32).context("no process")?;
        kill_process(pid, signal).context("sending a signal")
    }

    /// Ends it by SIGTERM, as it should: within a second, beside what it waits for a processor, with success.
    pub fn end(&mut self) -> Result<()> {
        const MOST: Duration = Duration::from_secs(1);
        if let Some(status) = self.process.try_wait()? {
            bail!("has ended with {status} already");
        }
        self.signal(Signal::TERM)?;
        let start = Instant::now();
        let before = waited(self.process.id());
        let mut waits = Duration::ZERO;
        while start.elapsed() < MOST + waits {
            waits = waits.max(waited(self.process.id()).saturating_sub(before));
            if let Some(status) = self.process.try_wait()? {
                ensure!(status.success(), "ended with {status}");
                return Ok(());
            }
            sleep(Duration::from_millis(10));
        }
        self.signal(Signal::KILL)?;
        bail!("has not ended {:?} after SIGTERM", start.elapsed());
    }

    /// Waits until `lb ARGUMENTS` about its instance prints `text`.
    pub fn wait_until(&mut self, arguments: &str, text: &str) -> Result<String> {
        let mut said = String::new();
        let found = until(|| {
            let output = self.node.lb(&format!("{arguments} --instance {}", self.instance))?;
            said = String::from_utf8_lossy(&output.stdout).into_owned();
            self.runs()?;
            Ok(said.contains(text).then(|| said.clone()))
        });
        found.with_context(|| format!("`lb {arguments}` never says {text:?}: {said}"))
    }

    /// Waits until `lb status` about its instance ends with that code and says that.
    pub fn status(&self, code: i32, text: &str) -> Result<()> {
        let mut found = None;
        let as_expected = until(|| {
            let Output { status, stdout, .. } =
                self.node.lb(&format!("status --instance {}", self.instance))?;
            let said = String::from_utf8_lossy(&stdout).into_owned();
            let so = status.code() == Some(code) && said.contains(text);
            found = Some((status, said));
            Ok(so.then_some(()))
        });
        as_expected.with_context(|| format!("never code {code} and {text:?}, but {found:?}"))
    }

    /// That it has not ended.
    fn runs(&mut self) -> Result<()> {
        match self.process.try_wait()? {
            Some(status) => bail!("the agent ended ({status})"),
            None => Ok(()),
        }
    }

    /// What it has said.
    pub fn log(&self) -> Result<String> {
        fs::read_to_string(&self.log).context("reading the agent's log")
    }

    /// Waits until it says `text` after the first `from` bytes of its log; all that it has said since.
    pub fn wait_for(&mut self, text: &str, from: usize) -> Result<String> {
        let mut log = String::new();
        let found = until(|| {
            log = self.log()?;
            let new = log.get(from..).unwrap_or_default();
            // Whole lines only.
            if let Some(at) = new.find(text)
                && new[at..].contains('\n')
            {
                return Ok(Some(new.to_owned()));
            }
            self.runs().map(|()| None)
        });
        found.with_context(|| format!("the agent never says {text:?}:\n{log}"))
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
        if self.end().is_err() {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
        let _ = self.lb("uninstall --all");
    }
}

/// A small file system of its own. Gone at the end.
pub struct Disk(PathBuf);

impl Disk {
    /// At a path, whose directories are made, of a size as mount(8) has it.
    pub fn mount(path: PathBuf, size: &str) -> Result<Disk> {
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("mode=700,size={size}"), "tmpfs"])
            .arg(&path))?;
        Ok(Disk(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Leaves no byte free, until the file that it gives is removed.
    pub fn fill(&self) -> Result<PathBuf> {
        let file = self.0.join("filler");
        let fill = format!("cat /dev/zero > {} 2>/dev/null || true", file.display());
        run(Command::new("sh").arg("-c").arg(fill))?;
        Ok(file)
    }

    /// Takes no more writes.
    pub fn read_only(&self) -> Result<()> {
        run(Command::new("mount").args(["-o", "remount,ro"]).arg(&self.0))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("-l").arg(&self.0));
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// For how long the threads that a process has were ready and had no processor, together.
fn waited(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let waited = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').nth(1)?.parse::<u64>().ok()
    });
    Duration::from_nanos(waited.sum())
}

/// User and system time of a process.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, after_name) = stat.rsplit_once(')').context("a line of stat")?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}
