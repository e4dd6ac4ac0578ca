//! The hosts of the lab and their wires.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::{Nodes, Pod, netns, topology::CLIENT};

/// A lab by the prefix of its namespaces, so that several can be up.
#[derive(Clone, Debug)]
pub struct Lab {
    prefix: String,
    nodes: Nodes,
}

impl Lab {
    /// The lab of one node with that prefix, up or not.
    pub fn new(prefix: &str) -> Lab {
        Lab::of(prefix, Nodes::One)
    }

    /// The lab of so many nodes with that prefix, up or not.
    pub fn of(prefix: &str, nodes: Nodes) -> Lab {
        Lab { prefix: prefix.to_owned(), nodes }
    }

    /// Which hosts it has.
    pub fn nodes(&self) -> Nodes {
        self.nodes
    }

    /// The namespace of a host.
    pub fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// A command that will run in a host's network, under its name.
    pub fn command(&self, host: &str, program: &str) -> Result<Command> {
        let mut command = netns::enter(&self.namespace(host), program)?;
        netns::set_host_name(&mut command, host);
        Ok(command)
    }

    /// Runs `work` in a host's network.
    pub fn within<T: Send + 'static>(
        &self,
        host: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        netns::within(&self.namespace(host), work)
    }

    /// Brings everything up; if that fails, takes down what there is.
    pub fn up(&self) -> Result<()> {
        if !self.namespaces().is_empty() {
            bail!("the lab {} is up already: `cargo xtask lab down` takes it down", self.prefix);
        }
        self.build().inspect_err(|_| self.down())
    }

    /// Brings everything up, after taking down what a run that was killed has left.
    pub fn up_anew(&self) -> Result<()> {
        self.down();
        self.up()
    }

    /// Takes everything down; what is not there is fine.
    pub fn down(&self) {
        for name in self.namespaces() {
            let _ = ip(&format!("netns del {name}"));
        }
    }

    /// The namespaces of a lab with this prefix, of however many nodes.
    fn namespaces(&self) -> Vec<String> {
        let Ok(names) = std::fs::read_dir("/run/netns") else { return Vec::new() };
        let ours = |name: &String| name.strip_prefix(&self.prefix).is_some_and(|rest| rest.starts_with('-'));
        names.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).filter(ours).collect()
    }

    fn build(&self) -> Result<()> {
        for (network, node) in (1..).zip(self.nodes.names()) {
            self.add_host(node)?;
            self.add_bridge(network)?;
        }
        for pod in self.nodes.pods() {
            self.add_pod(*pod)?;
        }
        self.add_host(CLIENT)?;
        self.wire()
    }

    /// Adds the bridge of a network to its node.
    pub fn add_bridge(&self, network: u8) -> Result<()> {
        let (node, bridge) = self.nodes.home(network);
        self.on(node, &format!("link add {bridge} type bridge"))?;
        self.on(node, &format!("addr add 10.244.{network}.1/24 dev {bridge}"))?;
        self.on(node, &format!("addr add fd00:244:{network:x}::1/64 dev {bridge} nodad"))?;
        self.on(node, &format!("link set {bridge} up"))
    }

    /// Takes a pod away, its port with it.
    pub fn remove_pod(&self, pod: Pod) -> Result<()> {
        self.on(self.nodes.home(pod.network).0, &format!("link del veth-{}", pod.name))?;
        ip(&format!("netns del {}", self.namespace(pod.name)))
    }

    /// Makes a pod and plugs it into its bridge.
    pub fn add_pod(&self, pod: Pod) -> Result<()> {
        self.add_host(pod.name)?;
        let (node, bridge) = self.nodes.home(pod.network);
        let port = format!("veth-{}", pod.name);
        self.add_wire((node, &port), (pod.name, "eth0"))?;
        self.on(node, &format!("link set {port} master {bridge} up"))?;
        self.give_addresses(pod)
    }

    /// Gives a pod's `eth0` its addresses and routes.
    pub fn give_addresses(&self, pod: Pod) -> Result<()> {
        let Pod { name, network, .. } = pod;
        self.on(name, &format!("addr add {}/24 dev eth0", pod.ipv4()))?;
        self.on(name, &format!("addr add {}/64 dev eth0 nodad", pod.ipv6()))?;
        self.on(name, "link set eth0 up")?;
        self.on(name, &format!("route add default via 10.244.{network}.1"))?;
        self.on(name, &format!("-6 route add default via fd00:244:{network:x}::1"))
    }

    /// Makes a host without any wire.
    pub fn add_host(&self, host: &str) -> Result<()> {
        ip(&format!("netns add {}", self.namespace(host)))?;
        self.on(host, "link set lo up")
    }

    /// Joins two hosts, each by a new device.
    pub fn add_wire(&self, one: (&str, &str), other: (&str, &str)) -> Result<()> {
        let [(first, device), (second, peer)] =
            [one, other].map(|(host, device)| (self.namespace(host), device));
        ip(&format!("link add {device} netns {first} type veth peer name {peer} netns {second}"))
    }

    /// `ip` in a host's network.
    pub fn on(&self, host: &str, arguments: &str) -> Result<()> {
        ip(&format!("-n {} {arguments}", self.namespace(host)))
    }

    /// What a command in a host's network prints.
    pub fn output(&self, host: &str, command: &str) -> Result<String> {
        let mut words = command.split(' ');
        output(self.command(host, words.next().unwrap_or_default())?.args(words))
    }

    /// Sets a kernel parameter of a host's network, by its path below /proc/sys.
    pub fn sysctl(&self, host: &str, path: &str, value: &str) -> Result<()> {
        let (path, value) = (format!("/proc/sys/{path}"), value.to_owned());
        self.within(host, move || std::fs::write(&path, value).with_context(|| format!("writing {path}")))?
    }
}

fn ip(arguments: &str) -> Result<()> {
    check(Command::new("ip").args(arguments.split(' ')))
}

/// Runs a command to its end; its words if it fails.
pub(super) fn check(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// The same; what it prints.
fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}").replace('"', "");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("running `{shown}`"))?;
    if !output.status.success() {
        bail!("`{shown}`: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
