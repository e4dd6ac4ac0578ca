//! The demonstration: requests through the VIPs and who answered them.

use std::{
    net::SocketAddr,
    path::Path,
    process::Child,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use comfy_table::{Table, presets::NOTHING};

use super::{ended, quiet};
use crate::lab::{
    Lab, Nodes,
    request::{Answers, echoes, pages},
};

/// Who must answer, with which share.
pub type Shares = &'static [(&'static str, u32)];

/// One row of the demonstration.
#[derive(Clone, Copy)]
pub struct Check {
    /// Who asks, `count` times each.
    from: &'static [&'static str],
    what: &'static str,
    to: &'static str,
    udp: bool,
    count: u32,
    shares: Shares,
}

/// Pages asked for over TCP.
pub const fn page(
    from: &'static [&'static str],
    what: &'static str,
    to: &'static str,
    count: u32,
    shares: Shares,
) -> Check {
    Check { from, what, to, udp: false, count, shares }
}

/// Echoes asked for over UDP.
pub const fn echo(
    from: &'static [&'static str],
    what: &'static str,
    to: &'static str,
    count: u32,
    shares: Shares,
) -> Check {
    Check { udp: true, ..page(from, what, to, count, shares) }
}

impl Check {
    /// Makes its requests; the answers of all who ask.
    fn answers(&self, lab: &Lab) -> Result<Answers> {
        let to: SocketAddr = self.to.parse().context("an address of the demonstration")?;
        let mut all = Answers::new();
        for from in self.from {
            let answers = if self.udp { echoes } else { pages }(lab, from, to, self.count);
            let answers = answers.with_context(|| format!("from {from}"))?;
            if let Some((missing, _)) = self.shares.iter().find(|(name, _)| !answers.contains_key(*name)) {
                bail!("from {from}: no answer by {missing}, but {}", show(&answers));
            }
            for (name, count) in answers {
                *all.entry(name).or_default() += count;
            }
        }
        Ok(all)
    }
}

/// Shares may be off by this many standard deviations: less than one run in 500 fails for nothing.
const TOLERANCE: f64 = 4.5;

/// Makes the requests, where many are made only one in `divisor`, and prints the table; whether all were
/// answered as they should be.
pub fn requests(lab: &Lab, checks: &[Check], divisor: u32) -> Result<bool> {
    println!();
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(["FROM", "TO", "SERVICE", "PROTOCOL", "ANSWERED BY", "CHECK"]);
    let mut passed = true;
    for mut check in checks.iter().copied() {
        if ended() {
            return Ok(false);
        }
        if check.shares.len() > 1 {
            check.count /= divisor;
        }
        let (shown, good) = match check.answers(lab) {
            Ok(answers) => (show(&answers), as_expected(&check, &answers)),
            Err(error) => (format!("{error:#}"), false),
        };
        passed &= good;
        let verdict = if good { "ok" } else { "FAILED" };
        let from = match check.from {
            [from] => (*from).to_owned(),
            many => many.join(" "),
        };
        let protocol = if check.udp { "UDP" } else { "TCP" };
        table.add_row([&from, check.to, check.what, protocol, &shown, verdict]);
    }
    println!("{table}");
    Ok(passed)
}

fn show(answers: &Answers) -> String {
    answers.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

fn as_expected(check: &Check, answers: &Answers) -> bool {
    let sum: u32 = check.shares.iter().map(|(_, share)| share).sum();
    let known = answers.keys().all(|name| check.shares.iter().any(|(expected, _)| expected == name));
    known
        && check.shares.iter().all(|(name, share)| {
            let count = check.count as f64 * check.from.len() as f64;
            let share = *share as f64 / sum as f64;
            let deviation = (count * share * (1.0 - share)).sqrt();
            let found = answers.get(*name).copied().unwrap_or(0) as f64;
            (found - count * share).abs() <= TOLERANCE * deviation
        })
}

/// That an instance which was uninstalled has left nothing on its node.
pub fn nothing_left(lab: &Lab, node: &str, instance: &str) -> Result<()> {
    for path in ["/sys/fs/bpf/lb", "/run/lb", "/var/lib/lb"].map(|dir| Path::new(dir).join(instance)) {
        if path.exists() {
            bail!("`lb uninstall` has left {}", path.display());
        }
    }
    let qdiscs = lab.command(node, "tc")?.args(["qdisc", "show"]).output().context("running tc")?;
    let qdiscs = String::from_utf8_lossy(&qdiscs.stdout);
    match qdiscs.lines().find(|line| line.contains("clsact")) {
        Some(left) => bail!("`lb uninstall` has left {left}"),
        None => Ok(()),
    }
}

/// From whom to whom much data goes, by which addresses.
struct Stream {
    from: &'static str,
    to: &'static str,
    direct: &'static str,
    vip: &'static str,
}

/// A short iperf3, directly to the pod and through its VIP, in turn. A demonstration, not the bench:
/// it checks that data flows, not how fast.
pub fn throughput(lab: &Lab) -> Result<bool> {
    let Stream { from, to, direct, vip } = match lab.nodes() {
        Nodes::One => Stream { from: "red", to: "blue", direct: "10.244.1.3", vip: "10.96.0.14" },
        Nodes::Three => Stream { from: "red1", to: "blue2", direct: "10.244.2.3", vip: "10.96.0.14" },
    };
    let server = Iperf3::serve(lab, to)?;
    let mut best = [0f64; 2];
    println!();
    for _ in 0..2 {
        for (index, address) in [direct, vip].into_iter().enumerate() {
            if !ended() {
                best[index] = best[index].max(iperf3(lab, from, address, 2, 1).unwrap_or(0.0));
            }
        }
    }
    drop(server);
    let [direct, vip] = best;
    println!(
        "iperf3 {from} -> {to}, best of 2 x 2 s: direct {direct:.1} Gbit/s, through the VIP {vip:.1} Gbit/s ({:.2} x)",
        vip / direct.max(0.001)
    );
    Ok(direct > 0.0 && vip > 0.0)
}

/// An iperf3 server, until it is dropped.
pub struct Iperf3(Child);

impl Iperf3 {
    /// In a host of the lab. [`iperf3`] waits until it listens.
    pub fn serve(lab: &Lab, host: &str) -> Result<Iperf3> {
        let server = quiet(lab.command(host, "iperf3")?.arg("-s")).spawn();
        Ok(Iperf3(server.context("starting iperf3")?))
    }
}

impl Drop for Iperf3 {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Gbit/s that arrived at an iperf3 server.
pub fn iperf3(lab: &Lab, from: &str, to: &str, seconds: u32, streams: u32) -> Result<f64> {
    let (seconds, streams) = (seconds.to_string(), streams.to_string());
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        let mut client = lab.command(from, "iperf3")?;
        // Client and server each on a CPU of its own: left to the scheduler, figures differ twofold.
        if std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1) {
            client.args(["-A", "0,1"]);
        }
        // The kernel's default; a host's BBR paces eight streams to a third of what the path carries.
        client.args(["-C", "cubic"]);
        client.args(["-J", "-c", to, "-t", &seconds, "-P", &streams, "--connect-timeout", "3000"]);
        let output = client.output().context("running iperf3")?;
        let report: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("reading iperf3's report")?;
        if let Some(bits) = report["end"]["sum_received"]["bits_per_second"].as_f64() {
            return Ok(bits / 1e9);
        }
        // Before the first client and between two the server does not listen.
        let error = report["error"].as_str().unwrap_or("no result");
        if !error.contains("refused") || Instant::now() > patience {
            bail!("iperf3 to {to}: {error}");
        }
        sleep(Duration::from_millis(50));
    }
}
