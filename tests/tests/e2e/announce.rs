//! What the neighbours at an uplink are told of addresses that a node announces, and two nodes that announce the same.

use std::{
    env, fs,
    path::PathBuf,
    process::{Child, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{node::binary, wait::until};
use rustix::process::Signal;
use xtask::{
    lab::{Lab, Nodes},
    run::Agent,
};

use crate::{
    Test,
    bed::{Bed, CONFIG, NAME, Up, only},
    neighbours::{forget, mac, neighbour},
};

pub const ALL: &[Test] = &[
    ("neighbours are told of IPv4 addresses that a node takes over", told_v4),
    ("neighbours are told of IPv6 addresses that a node takes over", told_v6),
    ("two nodes that announce the same addresses", both),
];

const V4: &str = "192.168.1.200";
const V6: &str = "fd00:1::200";
/// A node that was there before.
const OLD: &str = "02:00:00:00:00:99";

const LAN: &str = r#"
  - name: lan
    type: LoadBalancer
    addresses: [10.96.0.22, "fd00:96::22"]
    loadBalancerIPs: [192.168.1.200, "fd00:1::200"]
    ports: [{port: 80, targetPort: 8080}]
    backends: [{address: 10.244.1.3}, {address: "fd00:244:1::3"}]
"#;

/// What a host hears about neighbours, as tcpdump writes it.
struct Dump {
    process: Child,
    file: PathBuf,
}

impl Dump {
    fn start(lab: &Lab, host: &str) -> Result<Dump> {
        let file = env::temp_dir().join(format!("{NAME}-{}.dump", std::process::id()));
        let errors = file.with_extension("said");
        let mut command = lab.command(host, "tcpdump")?;
        command.args(["-i", "eth0", "-l", "-n", "-e", "-v", "-Q", "in", "arp or icmp6"]);
        command.stdin(Stdio::null()).stdout(fs::File::create(&file)?).stderr(fs::File::create(&errors)?);
        let dump = Dump { process: command.spawn().context("starting tcpdump")?, file };
        until(|| Ok(fs::read_to_string(&errors)?.contains("listening on").then_some(())))?;
        Ok(dump)
    }

    /// How often all of that was heard in one message.
    fn count(&self, all: &[&str]) -> Result<usize> {
        // A message of IPv6 goes on in lines that are indented.
        let text = fs::read_to_string(&self.file)?.replace("\n\t", " ");
        Ok(text.lines().filter(|line| all.iter().all(|part| line.contains(part))).count())
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        for file in [self.file.clone(), self.file.with_extension("said")] {
            let _ = fs::remove_file(file);
        }
    }
}

fn told_v4() -> Result<()> {
    told(
        V4,
        2,
        &["ff:ff:ff:ff:ff:ff", "who-has 192.168.1.200 tell 192.168.1.200"],
        &["who-has 192.168.1.200 tell 0.0.0.0"],
    )
}

fn told_v6() -> Result<()> {
    let told_all =
        ["33:33:00:00:00:01", "> ff02::1: ", "advertisement", "tgt is fd00:1::200, Flags [override]"];
    told(V6, 3, &told_all, &["neighbor solicitation", "who has fd00:1::200"])
}

/// `times` announcements for each time that the node takes the address over, and each time the client has the new MAC.
fn told(address: &str, times: usize, announcement: &[&str], question: &[&str]) -> Result<()> {
    let mut bed = Bed::with(CONFIG, &["--announce"], |_| Ok(()))?;
    let page = std::net::SocketAddr::new(address.parse()?, 80);
    let dump = Dump::start(bed.lab(), "client")?;
    let had_by_another = |bed: &Bed| {
        let entry = format!("neigh replace {address} dev eth0 lladdr {OLD} nud reachable");
        bed.lab().on("client", &entry)
    };
    let changed_over = |bed: &Bed, own: &str| -> Result<()> {
        bed.wait_for(&format!("the client finds {address} at {own}"), || {
            Ok(neighbour(bed.lab(), "client", address)?.contains(own))
        })?;
        only(&bed.pages("client", page, 3)?, &["blue"])
    };
    let heard = |bed: &Bed, own: &str, times: usize| {
        let all = [announcement, &[own]].concat();
        bed.wait_for(&format!("{times} announcements from {own}"), || Ok(dump.count(&all)? >= times))
    };

    // A service comes.
    had_by_another(&bed)?;
    bed.configure(&(CONFIG.to_owned() + LAN), "config taken over")?;
    let own = mac(bed.lab(), "node", "eth0")?;
    changed_over(&bed, &own)?;
    heard(&bed, &own, times)?;

    // A restart is no news; the question that comes after announcements shows that there were none.
    let asked = dump.count(question)?;
    bed.agent.signal(Signal::TERM)?;
    bed.agent.start_again()?;
    bed.wait_for("asked who else has it", || Ok(dump.count(question)? > asked))?;
    let told = dump.count(announcement)?;
    ensure!(told == times, "announced {told} times");

    // It was another's while this node did not announce it.
    bed.agent.signal(Signal::TERM)?;
    bed.agent.start_with(&[])?;
    had_by_another(&bed)?;
    bed.agent.signal(Signal::TERM)?;
    bed.agent.start_with(&["--announce"])?;
    changed_over(&bed, &own)?;
    heard(&bed, &own, 2 * times)?;

    // The uplink gets another MAC.
    bed.lab().on("node", "link set eth0 address 02:00:00:00:00:77")?;
    changed_over(&bed, "02:00:00:00:00:77")?;
    heard(&bed, "02:00:00:00:00:77", times)?;

    // It goes, and comes back.
    bed.lab().on("node", "link set eth0 down")?;
    bed.wait_for("the uplink is down", || {
        Ok(bed.lab().output("node", "ip link show dev eth0")?.contains("state DOWN"))
    })?;
    std::thread::sleep(std::time::Duration::from_secs(1));
    bed.lab().on("node", "link set eth0 up")?;
    // The kernel takes IPv6 addresses from a device that is down.
    bed.lab().on("node", "addr replace fd00:1::11/64 dev eth0 nodad")?;
    heard(&bed, "02:00:00:00:00:77", 2 * times)
}

/// Pods of a third node, so that it does not matter who is asked.
const SHARED: &str = r#"
serviceCIDRs: [10.96.0.0/12, "fd00:96::/112"]
services:
  - name: lan
    type: LoadBalancer
    addresses: [10.96.0.22, "fd00:96::22"]
    loadBalancerIPs: [192.168.1.200, "fd00:1::200"]
    ports: [{port: 80, targetPort: 8080}]
    backends: [{address: 10.244.3.2}, {address: "fd00:244:3::2"}]
"#;

/// Each goes on, and says who else does; nothing changes by itself; who is left has nothing to say.
fn both() -> Result<()> {
    let up = Up::new(Lab::of(NAME, Nodes::Three))?;
    let lab = &up.0;
    let path = env::temp_dir().join(format!("{NAME}-{}.yaml", std::process::id()));
    fs::write(&path, SHARED)?;
    let start = |node: &str| -> Result<Agent> {
        let instance = format!("{NAME}-{node}");
        let devices = ["--uplink", "eth0"];
        let mut agent = Agent::start_at(lab, node, &devices, &binary()?, &path, &instance, &["--announce"])?;
        agent.wait_ready()?;
        Ok(agent)
    };
    let problems = |agent: &Agent| -> Result<String> {
        // Its code is 1 where there are problems.
        let output = agent.command(&["status", "-o", "json"])?.output()?;
        let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        Ok(status["problems"].to_string())
    };
    let names = |agent: &Agent, mac: &str| -> Result<bool> {
        let said = problems(agent)?;
        Ok([V4, V6].iter().all(|address| {
            said.contains(&format!(
                "address {address} of service default/lan is used by {mac} at uplink eth0, and announced by this node, too"
            ))
        }))
    };
    let macs = [mac(lab, "node1", "eth0")?, mac(lab, "node2", "eth0")?];
    let first = start("node1")?;
    let mut second = start("node2")?;
    for (agent, mac) in [(&first, &macs[1]), (&second, &macs[0])] {
        until(|| Ok(names(agent, mac)?.then_some(()))).with_context(|| {
            format!("{} does not name {mac}: {}", agent.node(), agent.log().unwrap_or_default())
        })?;
        ensure!(agent.log()?.contains(mac.as_str()), "not in the log: {}", agent.log()?);
    }
    // Both go on. Who asks hears both, and stays with the last one: a call in that moment may break.
    for address in [V4, V6] {
        forget(lab, "client")?;
        let page = std::net::SocketAddr::new(address.parse()?, 80);
        let answers = until(|| Ok(xtask::lab::request::pages(lab, "client", page, 3).ok()))?;
        only(&answers, &["red3"])?;
    }
    for agent in [&first, &second] {
        let text = agent.log()?;
        let warned = text.lines().filter(|line| line.contains(" is used by ")).count();
        ensure!(warned == 2, "{} has warned {warned} times: {text}", agent.node());
    }
    second.end()?;
    until(|| Ok((problems(&first)? == "[]").then_some(())))
        .with_context(|| format!("still a problem: {:?}", problems(&first)))?;
    let _ = fs::remove_file(path);
    Ok(())
}
