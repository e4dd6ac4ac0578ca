//! Three nodes on a LAN, an agent on each, all with `examples/three-nodes.yaml`.

use std::{
    env, fs,
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{node::binary, wait::until};
use serde_json::Value;
use xtask::{
    build::workspace,
    lab::{
        Lab, Nodes,
        request::{echoes, page, pages},
    },
    run::{
        Agent,
        checks::{Iperf3, iperf3},
    },
};

use crate::{
    Test,
    bed::{NAME, Up, only},
    flows::TAKEN,
};

pub const ALL: &[Test] = &[
    ("three nodes with backends on all of them", all),
    ("three nodes behind a switch that floods", flooded),
];

pub const PODS: [&str; 6] = ["red1", "blue1", "red2", "blue2", "red3", "blue3"];
pub const NODES: [&str; 3] = ["node1", "node2", "node3"];

/// Frontends that are the same for pods of every node.
const PAGES: [&str; 8] = [
    "10.96.0.10:80",
    "[fd00:96::10]:80",
    "10.96.0.12:80",
    "[fd00:96::12]:80",
    "198.51.100.10:80",
    "[2001:db8:100::10]:80",
    "10.96.0.13:80",
    "[fd00:96::13]:80",
];
const ECHOES: [&str; 8] = [
    "10.96.0.11:9090",
    "[fd00:96::11]:9090",
    "10.96.0.12:9090",
    "[fd00:96::12]:9090",
    "198.51.100.10:9090",
    "[2001:db8:100::10]:9090",
    "10.96.0.13:9090",
    "[fd00:96::13]:9090",
];

/// Requests to hear each of six backends: one is missed once in ten million times.
pub const ENOUGH: u32 = 100;

fn example() -> PathBuf {
    workspace().join("examples/three-nodes.yaml")
}

/// The lab and its agents, which end and are uninstalled before it goes.
pub struct Cluster {
    /// In the order of the nodes.
    pub agents: Vec<Agent>,
    pub up: Up,
    /// A file of its own.
    config: Option<PathBuf>,
}

impl Cluster {
    /// With the example.
    pub fn new() -> Result<Cluster> {
        Cluster::started(&example(), &NODES, &[], |_| Ok(()))
    }

    /// With a config of its own.
    pub fn with(config: &str) -> Result<Cluster> {
        let path = env::temp_dir().join(format!("{NAME}-nodes-{}.yaml", std::process::id()));
        fs::write(&path, config)?;
        let mut cluster = Cluster::started(&path, &NODES, &[], |_| Ok(()))?;
        cluster.config = Some(path);
        Ok(cluster)
    }

    /// With the example, by XDP at the uplinks of these nodes.
    pub fn with_xdp(nodes: &[&str]) -> Result<Cluster> {
        Cluster::started(&example(), nodes, &["--xdp"], Lab::hear_xdp)
    }

    fn started(
        config: &Path,
        nodes: &[&str],
        options: &[&str],
        prepare: impl FnOnce(&Lab) -> Result<()>,
    ) -> Result<Cluster> {
        let up = Up::new(Lab::of(NAME, Nodes::Three))?;
        prepare(&up.0)?;
        let lb = binary()?;
        let start =
            |node: &&str| Agent::start_on(&up.0, node, &lb, config, &format!("{NAME}-{node}"), options);
        let mut agents = nodes.iter().map(start).collect::<Result<Vec<Agent>>>()?;
        for agent in &mut agents {
            agent.wait_ready()?;
        }
        Ok(Cluster { agents, up, config: None })
    }

    pub fn lab(&self) -> &Lab {
        &self.up.0
    }

    /// Replaces its config; returns when the agents of these nodes serve it.
    pub fn configure(&self, config: &str, nodes: &[usize]) -> Result<()> {
        let path = self.config.as_ref().context("the example is nobody's own")?;
        let logs = |node: &usize| self.agents[*node].log();
        let before: Vec<usize> = nodes.iter().map(|node| Ok(logs(node)?.len())).collect::<Result<_>>()?;
        let new = path.with_extension("new");
        fs::write(&new, config)?;
        fs::rename(&new, path)?;
        for (node, before) in nodes.iter().zip(before) {
            let taken = || Ok(logs(node)?.get(before..).is_some_and(|log| log.contains(TAKEN)).then_some(()));
            until(taken).with_context(|| format!("not taken over: {}", logs(node).unwrap_or_default()))?;
        }
        Ok(())
    }

    /// What an `lb` command prints as JSON on a node.
    pub fn json(&self, node: usize, arguments: &[&str]) -> Result<Value> {
        // `lb status` fails where it has something to warn of.
        let output = self.agents[node].command(&[arguments, &["-o", "json"]].concat())?.output()?;
        let text = String::from_utf8(output.stdout)?;
        serde_json::from_str(&text).with_context(|| format!("{arguments:?} printed {text}"))
    }

    /// Pages answered by exactly these.
    pub fn pages(&self, from: &str, to: &str, by: &[&str]) -> Result<()> {
        let answers = pages(&self.up.0, from, to.parse()?, ENOUGH);
        answers.and_then(|answers| only(&answers, by)).with_context(|| format!("pages from {from} to {to}"))
    }

    /// Echoes answered by exactly these.
    pub fn echoes(&self, from: &str, to: &str, by: &[&str]) -> Result<()> {
        let answers = echoes(&self.up.0, from, to.parse()?, ENOUGH);
        answers.and_then(|answers| only(&answers, by)).with_context(|| format!("echoes from {from} to {to}"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(config) = &self.config {
            let _ = fs::remove_file(config);
        }
    }
}

fn all() -> Result<()> {
    let cluster = Cluster::new()?;
    inside(&cluster).context("from inside")?;
    own_addresses(&cluster.up.0).context("what backends see")?;
    outside(&cluster).context("from outside")?;
    allocated(&cluster).context("from outside, to other nodes")?;
    stream(&cluster.up.0).context("much data")
}

/// Pods and processes of every node reach the backends of all nodes.
fn inside(cluster: &Cluster) -> Result<()> {
    for from in PODS {
        PAGES.iter().try_for_each(|to| cluster.pages(from, to, &PODS))?;
        ECHOES.iter().try_for_each(|to| cluster.echoes(from, to, &PODS))?;
        for to in ["10.96.0.1:443", "[fd00:96::1]:443"] {
            cluster.pages(from, to, &NODES)?;
        }
    }
    // The port of a pod's own node.
    for (pod, last) in [("red1", 11), ("red2", 12), ("red3", 13)] {
        for host in [format!("192.168.1.{last}"), format!("[fd00:1::{last}]")] {
            cluster.pages(pod, &format!("{host}:30080"), &PODS)?;
            cluster.echoes(pod, &format!("{host}:30090"), &PODS)?;
        }
    }
    for from in NODES {
        cluster.pages(from, "10.96.0.10:80", &PODS)?;
        cluster.echoes(from, "[fd00:96::11]:9090", &PODS)?;
    }
    Ok(())
}

/// Backends see a pod's own address, also those on other nodes.
fn own_addresses(lab: &Lab) -> Result<()> {
    for pod in Nodes::Three.pods() {
        for (to, own) in [("10.96.0.10:80", pod.ipv4()), ("[fd00:96::10]:80", pod.ipv6())] {
            let to: SocketAddr = to.parse()?;
            let answers =
                lab.within(pod.name, move || (0..20).map(|_| page(to)).collect::<Result<Vec<_>>>())??;
            for (by, seen) in answers {
                // Its own call comes to it from the service.
                let expected = if by == pod.name { to.ip() } else { own };
                ensure!(seen == expected.to_string(), "{to}: {by} sees {seen}, not {expected}");
            }
        }
    }
    Ok(())
}

/// With a policy Local each node has its own backends for who comes from outside.
fn outside(cluster: &Cluster) -> Result<()> {
    for (own, last) in [(["red1", "blue1"], 11), (["red2", "blue2"], 12), (["red3", "blue3"], 13)] {
        for host in [format!("192.168.1.{last}"), format!("[fd00:1::{last}]")] {
            cluster.pages("client", &format!("{host}:30081"), &own)?;
            cluster.echoes("client", &format!("{host}:30091"), &own)?;
        }
    }
    // The client's way to everything else is over the first node.
    for host in ["198.51.100.11", "[2001:db8:100::11]"] {
        cluster.pages("client", &format!("{host}:80"), &["red1", "blue1"])?;
        cluster.echoes("client", &format!("{host}:9090"), &["red1", "blue1"])?;
    }
    Ok(())
}

/// Backends on other nodes see the node that was called as their client, those of it the client itself.
fn allocated(cluster: &Cluster) -> Result<()> {
    let nodes = [("node1", 11), ("node2", 12), ("node3", 13)];
    for (node, last) in nodes {
        for (host, client) in
            [(format!("192.168.1.{last}"), "192.168.1.100"), (format!("[fd00:1::{last}]"), "fd00:1::100")]
        {
            cluster.pages("client", &format!("{host}:30080"), &PODS)?;
            cluster.echoes("client", &format!("{host}:30090"), &PODS)?;
            let to: SocketAddr = format!("{host}:30080").parse()?;
            let answers = cluster
                .up
                .0
                .within("client", move || (0..20).map(|_| page(to)).collect::<Result<Vec<_>>>())??;
            for (by, seen) in answers {
                let own = by.ends_with(&node[4..]);
                let expected = if own { client.to_owned() } else { to.ip().to_string() };
                ensure!(seen == expected, "{to}: {by} sees {seen}, not {expected}");
            }
        }
    }
    for to in ["198.51.100.10:80", "[2001:db8:100::10]:80", "10.96.0.10:80", "[fd00:96::10]:80"] {
        cluster.pages("client", to, &PODS)?;
    }
    // To another node a pod is somebody outside, with its own node's address.
    cluster.pages("red1", "192.168.1.12:30080", &PODS)?;
    cluster.echoes("blue3", "[fd00:1::12]:30090", &PODS)
}

/// Segments of 64 KiB that are cut at one node's uplink and joined again at the other's.
fn stream(lab: &Lab) -> Result<()> {
    let _server = Iperf3::serve(lab, "blue2")?;
    let found = ["10.96.0.14", "fd00:96::14"].into_iter().map(|to| iperf3(lab, "red1", to, 1, 1));
    let found = found.collect::<Result<Vec<f64>>>()?;
    // Where every large packet is lost, TCP still carries a few.
    ensure!(found.iter().all(|gigabits| *gigabits > 0.05), "Gbit/s over IPv4 and IPv6: {found:?}");
    Ok(())
}

/// Each frame comes to every node, and one of them serves it.
fn flooded() -> Result<()> {
    let cluster = Cluster::new()?;
    cluster.lab().on("lan", "link set lan type bridge ageing_time 0")?;
    for to in ["198.51.100.10:80", "[2001:db8:100::10]:80"] {
        cluster.pages("client", to, &PODS)?;
    }
    for (to, any) in [("198.51.100.10:9090", "0.0.0.0:0"), ("[2001:db8:100::10]:9090", "[::]:0")] {
        let to: SocketAddr = to.parse()?;
        let answers = cluster.lab().within("client", move || answered(to, any))?;
        let answers = answers.with_context(|| format!("datagrams to {to}"))?;
        ensure!(answers == FLOODED, "{FLOODED} datagrams to {to} have {answers} answers");
    }
    Ok(())
}

const FLOODED: usize = 50;

/// How many answers so many datagrams have.
fn answered(to: SocketAddr, any: &str) -> Result<usize> {
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    let mut answers = 0;
    for _ in 0..FLOODED {
        socket.send(b"hello")?;
        socket.recv(&mut [0; 64])?;
        answers += 1;
    }
    // What has come besides.
    socket.set_nonblocking(true)?;
    while socket.recv(&mut [0; 64]).is_ok() {
        answers += 1;
    }
    Ok(answers)
}
