//! A client outside, a node port, and a backend on another node: what kube-proxy's rules do by masquerading and lb by
//! SNAT, in tc or in XDP. The client, the node and the backend are on one LAN.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::{
    clients::Outside,
    contestant::Up,
    results::{DIRECT, Metric, Results},
    rules::{self, FAR, OUTSIDE},
    workload::metric,
};
use crate::{
    build::workspace,
    lab::{Lab, Nodes},
    run::{Agent, ended},
    setup::say,
};

/// kube-proxy's rules.
pub const IPTABLES: &str = "iptables";
const NFTABLES: &str = "nftables";
/// lb.
pub const TC: &str = "lb, tc";
/// lb with `--xdp`.
pub const XDP: &str = "lb, XDP";

/// Small datagrams.
pub const DATAGRAMS: Metric = metric(30, "64-byte UDP from outside, received", "1/s", true);
/// Connect, a byte each way, close.
pub const CONNECTIONS: Metric = metric(31, "connections from outside", "1/s", true);

/// Which node is called, and its address; the backend is on the next.
const NODE: (&str, Ipv4Addr) = ("node1", Ipv4Addr::new(192, 168, 1, 11));
const BACKEND: &str = "node2";
/// The client, when nothing is between.
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 100);

/// One of them, up and idle.
struct Contestant {
    name: &'static str,
    /// Where connections and datagrams are sent to.
    targets: [SocketAddrV4; 2],
    clients: Outside,
    /// Ends before the lab goes.
    _agent: Option<Agent>,
    _up: Up,
}

/// Measures everything with everybody.
pub fn measure(lb: &Path, rounds: u32, seconds: u32) -> Result<Results> {
    let mut names = vec![DIRECT, IPTABLES, NFTABLES, TC];
    if has_xdp(lb)? {
        names.push(XDP);
    } else {
        say("outside: this lb has no --xdp, so it is missing");
    }
    let how = format!(
        "{rounds} rounds of {seconds} s. A client, a node whose port is called and a backend that is another node, \
         on one bridge; direct is to the backend's own port."
    );
    let mut results = Results::new("Outside", how, DIRECT, names.clone());
    let mut contestants = Vec::new();
    for (index, name) in names.into_iter().enumerate() {
        say(&format!("bringing up, for outside: {name}"));
        contestants.push(Contestant::up(index, name, lb).with_context(|| format!("bringing up {name}"))?);
    }
    let time = Duration::from_secs(seconds.into());
    for round in 1..=rounds {
        say(&format!("outside: round {round} of {rounds}"));
        for Contestant { name, targets: [connections, datagrams], clients, .. } in &contestants {
            if ended() {
                bail!("ended in round {round} of {rounds}: no figures");
            }
            let measured = || -> Result<[f64; 2]> {
                let received = clients.datagrams(*datagrams, time)?.received_per_second;
                Ok([received, clients.connections(*connections, time)?.per_second])
            };
            let values = measured().with_context(|| format!("measuring {name}"))?;
            for (metric, value) in [DATAGRAMS, CONNECTIONS].into_iter().zip(values) {
                results.note(metric, name, value);
            }
        }
    }
    Ok(results)
}

/// Whether it knows the option.
fn has_xdp(lb: &Path) -> Result<bool> {
    let output = std::process::Command::new(lb).args(["run", "--help"]).output().context("running lb")?;
    Ok(String::from_utf8_lossy(&output.stdout).contains("--xdp"))
}

impl Contestant {
    fn up(index: usize, name: &'static str, lb: &Path) -> Result<Contestant> {
        let lab = Lab::of(&format!("lbbencho{index}"), Nodes::Three);
        lab.up_anew()?;
        let up = Up(lab.clone());
        lab.hear_xdp()?;
        let seen = if name == DIRECT { CLIENT } else { NODE.1 };
        let clients = Outside::start(&lab, BACKEND, seen)?;
        let targets = OUTSIDE.map(|(_, port, node_port)| {
            if name == DIRECT { SocketAddrV4::new(FAR, port) } else { SocketAddrV4::new(NODE.1, node_port) }
        });
        let mut agent = None;
        match name {
            DIRECT => {}
            IPTABLES => rules::apply_iptables_outside(&lab, NODE.0)?,
            NFTABLES => rules::apply_nftables_outside(&lab, NODE.0)?,
            _ => agent = Some(serve(&lab, index, lb, name == XDP)?),
        }
        if name == IPTABLES || name == NFTABLES {
            // Thousands of connections a second would fill the table of tracked ones in a long run.
            lab.sysctl(NODE.0, "net/netfilter/nf_conntrack_tcp_timeout_time_wait", "10")?;
        }
        Ok(Contestant { name, targets, clients, _agent: agent, _up: up })
    }
}

/// Starts lb on the node.
fn serve(lab: &Lab, index: usize, lb: &Path, xdp: bool) -> Result<Agent> {
    let instance = format!("lbbencho{index}");
    let config = workspace().join(format!("target/lab/{instance}.yaml"));
    fs::create_dir_all(workspace().join("target/lab"))?;
    let ports = OUTSIDE.map(|(protocol, port, node_port)| {
        let protocol = protocol.name();
        let upper = protocol.to_uppercase();
        format!("{{name: {protocol}, port: {port}, nodePort: {node_port}, protocol: {upper}}}")
    });
    // As many ports as the client has, which come round again.
    let text = format!(
        "snatPorts: 33000-65535\nservices:\n  - name: measured\n    type: NodePort\n    address: {}\n    \
         ports: [{}]\n    backends: [{{address: {FAR}, node: {BACKEND}}}]\n",
        rules::VIP,
        ports.join(", "),
    );
    fs::write(&config, text)?;
    let more: &[&str] = if xdp { &["--xdp"] } else { &[] };
    let mut agent = Agent::start_on(lab, NODE.0, lb, &config, &instance, more)?;
    agent.wait_ready()?;
    Ok(agent)
}
