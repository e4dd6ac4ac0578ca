//! The demonstration: requests through the VIPs and who answered them.

use std::{
    net::SocketAddr,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use comfy_table::{Table, presets::NOTHING};

use super::{ended, quiet};
use crate::lab::{
    Lab,
    request::{Answers, echoes, pages},
};

/// One row of the demonstration.
struct Check {
    from: &'static str,
    what: &'static str,
    to: &'static str,
    udp: bool,
    count: u32,
    /// Who must answer, with which share.
    shares: &'static [(&'static str, u32)],
}

const fn page(
    from: &'static str,
    what: &'static str,
    to: &'static str,
    count: u32,
    shares: &'static [(&'static str, u32)],
) -> Check {
    Check { from, what, to, udp: false, count, shares }
}

const ALL: &[(&str, u32)] = &[("red", 1), ("blue", 1), ("green", 1)];

const CHECKS: [Check; 12] = [
    page("red", "web", "10.96.0.10:80", 600, ALL),
    page("red", "web", "[fd00:96::10]:80", 600, ALL),
    Check { from: "red", what: "echo", to: "10.96.0.11:9090", udp: true, count: 600, shares: ALL },
    Check { from: "red", what: "echo", to: "[fd00:96::11]:9090", udp: true, count: 600, shares: ALL },
    page("red", "weighted", "10.96.0.12:80", 900, &[("red", 1), ("blue", 2)]),
    page("red", "itself (hairpin)", "10.96.0.13:80", 20, &[("red", 1)]),
    page("red", "kubernetes (the node)", "10.96.0.1:443", 20, &[("node", 1)]),
    page("blue", "kubernetes (the node)", "[fd00:96::1]:443", 20, &[("node", 1)]),
    page("green", "web", "10.96.0.10:80", 300, ALL),
    page("client", "web", "10.96.0.10:80", 300, ALL),
    page("client", "web", "[fd00:96::10]:80", 300, ALL),
    page("client", "kubernetes (the node)", "10.96.0.1:443", 20, &[("node", 1)]),
];

/// Shares may be off by this many standard deviations: less than one run in 500 fails for nothing.
const TOLERANCE: f64 = 4.0;

/// Makes the requests, where many are made only one in `divisor`, and prints the table; whether all were
/// answered as they should be.
pub fn requests(lab: &Lab, divisor: u32) -> Result<bool> {
    println!();
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(["FROM", "TO", "SERVICE", "PROTOCOL", "ANSWERED BY", "CHECK"]);
    let mut passed = true;
    for mut check in CHECKS {
        if ended() {
            return Ok(false);
        }
        if check.shares.len() > 1 {
            check.count /= divisor;
        }
        let to: SocketAddr = check.to.parse().context("an address of the demonstration")?;
        let answers = if check.udp { echoes } else { pages }(lab, check.from, to, check.count);
        let (shown, good) = match answers {
            Ok(answers) => (show(&answers), as_expected(&check, &answers)),
            Err(error) => (format!("{error:#}"), false),
        };
        passed &= good;
        let protocol = if check.udp { "UDP" } else { "TCP" };
        table.add_row([
            check.from,
            check.to,
            check.what,
            protocol,
            &shown,
            if good { "ok" } else { "FAILED" },
        ]);
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
            let (count, share) = (check.count as f64, *share as f64 / sum as f64);
            let deviation = (count * share * (1.0 - share)).sqrt();
            let found = answers.get(*name).copied().unwrap_or(0) as f64;
            (found - count * share).abs() <= TOLERANCE * deviation
        })
}

/// That an instance which was uninstalled has left nothing on the node.
pub fn nothing_left(lab: &Lab, instance: &str) -> Result<()> {
    for path in ["/sys/fs/bpf/lb", "/run/lb", "/var/lib/lb"].map(|dir| Path::new(dir).join(instance)) {
        if path.exists() {
            bail!("`lb uninstall` has left {}", path.display());
        }
    }
    let qdiscs = lab.command("node", "tc")?.args(["qdisc", "show"]).output().context("running tc")?;
    let qdiscs = String::from_utf8_lossy(&qdiscs.stdout);
    match qdiscs.lines().find(|line| line.contains("clsact")) {
        Some(left) => bail!("`lb uninstall` has left {left}"),
        None => Ok(()),
    }
}

/// A short iperf3, directly to the pod and through its VIP, in turn. A demonstration, not the bench:
/// it checks that data flows, not how fast.
pub fn throughput(lab: &Lab) -> Result<bool> {
    let mut server = quiet(lab.command("blue", "iperf3")?.arg("-s")).spawn().context("starting iperf3")?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    let mut best = [0f64; 2];
    println!();
    for _ in 0..2 {
        for (index, to) in ["10.244.1.3", "10.96.0.14"].into_iter().enumerate() {
            if !ended() {
                best[index] = best[index].max(iperf3(lab, "red", to, 2, 1).unwrap_or(0.0));
            }
        }
    }
    let _ = server.kill();
    let _ = server.wait();
    let [direct, vip] = best;
    println!(
        "iperf3 red -> blue, best of 2 x 2 s: direct {direct:.1} Gbit/s, through the VIP {vip:.1} Gbit/s ({:.2} x)",
        vip / direct.max(0.001)
    );
    Ok(direct > 0.0 && vip > 0.0)
}

/// Gbit/s that arrived at an iperf3 server.
pub fn iperf3(lab: &Lab, from: &str, to: &str, seconds: u32, streams: u32) -> Result<f64> {
    let (seconds, streams) = (seconds.to_string(), streams.to_string());
    let patience = Instant::now() + Duration::from_secs(5);
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
        // Between two clients the server does not listen.
        let error = report["error"].as_str().unwrap_or("no result");
        if !error.contains("refused") || Instant::now() > patience {
            bail!("iperf3 to {to}: {error}");
        }
        sleep(Duration::from_millis(50));
    }
}
