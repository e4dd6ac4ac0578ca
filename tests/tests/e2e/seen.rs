//! What others on the host see of service traffic.

use std::{
    io::Read as _,
    net::UdpSocket,
    process::{Child, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread::{self, sleep},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::process::{Pid, Signal, kill_process};
use xtask::lab::Lab;

use crate::{
    Test,
    bed::{Bed, CONFIG, service, vip},
};

pub const ALL: &[Test] = &[
    ("netfilter knows no flow between pods", netfilter),
    ("no untranslated packet on a wrong side", captures),
    ("no untranslated reply while an agent starts", starts),
];

/// The lab's MASQUERADE rule makes the node track connections; ours are not among them.
fn netfilter() -> Result<()> {
    let bed = Bed::new(&[])?;
    for from in ["red", "blue", "green"] {
        bed.answered(from, service::WEB, &["red", "blue", "green"], 200)?;
    }
    let table = |tool: &str, arguments: &[&str]| -> Result<String> {
        let output = bed.lab().command("node", tool)?.args(arguments).output();
        let output = output.with_context(|| format!("running {tool}"))?;
        ensure!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    // A control: traffic that does meet the host's stack is tracked.
    bed.pages("red", "192.168.1.11:6443".parse()?, 1)?;
    let tracked = table("conntrack", &["-L"])?;
    ensure!(tracked.contains("dst=192.168.1.11"), "nothing is tracked at all: {tracked}");
    let tracked = tracked + &table("conntrack", &["-L", "-f", "ipv6"])?;
    for line in tracked.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let to_pod = |word: &&&str| word.starts_with("dst=10.244.") || word.starts_with("dst=fd00:244:");
        ensure!(!line.contains("=10.96.0.1") && !line.contains("=fd00:96:"), "tracked: {line}");
        ensure!(
            !words.iter().find(|word| word.starts_with("dst=")).is_some_and(|word| to_pod(&word)),
            "tracked: {line}"
        );
    }
    for (tool, arguments) in
        [("iptables-save", &[][..]), ("ip6tables-save", &[]), ("nft", &["list", "ruleset"])]
    {
        let rules = table(tool, arguments)?;
        ensure!(!rules.contains("10.96.") && !rules.contains("fd00:96:"), "{tool} knows a VIP: {rules}");
    }
    Ok(())
}

/// Packets that a capture in a host of the lab sees, one line each.
pub struct Capture(Child);

impl Capture {
    pub fn start(lab: &Lab, host: &str, filter: &str) -> Result<Capture> {
        let mut command = lab.command(host, "tcpdump")?;
        command.args(["-n", "-v", "-l", "--immediate-mode", "-i", "eth0", filter]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.context("starting tcpdump")?;
        // It says so when it listens.
        let (mut said, mut byte) = (Vec::new(), [0]);
        let errors = child.stderr.as_mut().context("tcpdump has no stderr")?;
        while !String::from_utf8_lossy(&said).contains("listening on") {
            ensure!(errors.read(&mut byte)? > 0, "tcpdump: {}", String::from_utf8_lossy(&said));
            said.push(byte[0]);
        }
        Ok(Capture(child))
    }

    pub fn end(mut self) -> Result<String> {
        // What has arrived is in its buffers.
        sleep(Duration::from_millis(200));
        if let Some(pid) = Pid::from_raw(self.0.id() as i32) {
            kill_process(pid, Signal::INT)?;
        }
        let mut text = String::new();
        self.0.stdout.take().context("tcpdump has no stdout")?.read_to_string(&mut text)?;
        self.0.wait()?;
        // It ends its last line again when it is interrupted.
        Ok(text.trim().to_owned())
    }
}

fn captures() -> Result<()> {
    for options in [&[][..], &["--forward", "bridge"], &["--forward", "stack"]] {
        let bed = Bed::new(options)?;
        let services = "net 10.96.0.0/12 or net fd00:96::/112";
        let ours = format!("(tcp or udp) and ({services})");
        let direct = format!("(tcp or udp) and not ({services})");
        // Red calls VIPs only, and no pod calls it: it sees the services' addresses and no pod's.
        let wrong = Capture::start(bed.lab(), "red", &direct)?;
        let right = Capture::start(bed.lab(), "red", &ours)?;
        // Blue is a backend: it sees pods' and clients' addresses and no service's.
        let wrong_at_blue = Capture::start(bed.lab(), "blue", &ours)?;
        let wrong_outside = Capture::start(bed.lab(), "client", "net 10.244.0.0/16 or net fd00:244::/32")?;
        bed.answered("red", service::BLUE, &["blue"], 20)?;
        bed.answered("client", service::BLUE, &["blue"], 20)?;
        ensure!(right.end()?.lines().count() > 80, "{options:?}: the captures see nothing");
        for (what, capture) in [
            ("a pod's address at the client", wrong),
            ("a VIP at the backend", wrong_at_blue),
            ("a pod's address outside", wrong_outside),
        ] {
            let packets = capture.end()?;
            ensure!(packets.is_empty(), "{options:?}: {what}:\n{packets}");
        }
    }
    Ok(())
}

/// Somebody outside asks all the time while the agent loads and attaches its programs.
fn starts() -> Result<()> {
    let (end, ended) = mpsc::channel::<()>();
    let mut outside = None;
    let bed = Bed::with(CONFIG, &[], |lab| {
        // The pods' echo under an address that is not the service's.
        let wrong = Capture::start(lab, "client", "ip and udp and not host 10.96.0.10")?;
        let lab = lab.clone();
        let asking = thread::spawn(move || {
            lab.within("client", move || -> Result<()> {
                while ended.recv_timeout(Duration::from_millis(5)) == Err(RecvTimeoutError::Timeout) {
                    UdpSocket::bind("0.0.0.0:0")?.send_to(b"hello", vip(false, service::WEB, 90))?;
                }
                Ok(())
            })
        });
        outside = Some((wrong, asking));
        Ok(())
    })?;
    bed.answered("client", service::WEB, &["red", "blue", "green"], 60)?;
    drop(end);
    let (wrong, asking) = outside.context("nobody asked")?;
    asking.join().map_err(|_| anyhow!("asking ended badly"))???;
    let packets = wrong.end()?;
    ensure!(packets.is_empty(), "replies that were not translated:\n{packets}");
    Ok(())
}
