//! What others on the host see of service traffic.

use std::{
    io::{BufRead as _, BufReader},
    net::UdpSocket,
    process::{Child, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use xtask::lab::Lab;

use crate::{
    Test,
    bed::{Bed, CONFIG, service, vip},
    vlan,
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
    let table = |command: &str| bed.lab().output("node", command);
    // A control: traffic that does meet the host's stack is tracked.
    bed.pages("red", "192.168.1.11:6443".parse()?, 1)?;
    let tracked = table("conntrack -L")?;
    ensure!(tracked.contains("dst=192.168.1.11"), "nothing is tracked at all: {tracked}");
    let tracked = tracked + &table("conntrack -L -f ipv6")?;
    for line in tracked.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let to_pod = |word: &&&str| word.starts_with("dst=10.244.") || word.starts_with("dst=fd00:244:");
        ensure!(!line.contains("=10.96.0.1") && !line.contains("=fd00:96:"), "tracked: {line}");
        ensure!(
            !words.iter().find(|word| word.starts_with("dst=")).is_some_and(|word| to_pod(&word)),
            "tracked: {line}"
        );
    }
    for tool in ["iptables-save", "ip6tables-save", "nft list ruleset"] {
        let rules = table(tool)?;
        ensure!(!rules.contains("10.96.") && !rules.contains("fd00:96:"), "{tool} knows a VIP: {rules}");
    }
    Ok(())
}

/// To the nearest bridge, which passes it on to nobody, and of an EtherType for experiments (IEEE 802).
const LAST: &[u8] = &[1, 0x80, 0xc2, 0, 0, 0x0e, 2, 0, 0, 0, 0, 1, 0x88, 0xb5, 0, 0];

/// Packets that a capture in a host of the lab sees.
pub struct Capture {
    lab: Lab,
    host: String,
    process: Child,
    lines: Receiver<String>,
}

impl Capture {
    pub fn start(lab: &Lab, host: &str, filter: &str) -> Result<Capture> {
        let mut command = lab.command(host, "tcpdump")?;
        let filter = format!("({filter}) or ether proto 0x88b5");
        command.args(["-n", "-v", "-l", "--immediate-mode", "-i", "eth0", &filter]);
        let process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut process = process.context("starting tcpdump")?;
        let (out, said) = process.stdout.take().zip(process.stderr.take()).context("tcpdump has no pipes")?;
        let (seen, lines) = mpsc::channel();
        thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).try_for_each(|line| seen.send(line))
        });
        let capture = Capture { lab: lab.clone(), host: host.to_owned(), process, lines };
        // It says so when it listens. Then nobody reads what it says.
        let mut said = BufReader::new(said).lines();
        said.find(|line| line.as_ref().is_ok_and(|line| line.contains("listening on")))
            .context("tcpdump has ended")??;
        Ok(capture)
    }

    /// All that has come before this.
    pub fn end(self) -> Result<String> {
        self.lab.within(&self.host, || vlan::send(LAST))??;
        let mut text = String::new();
        loop {
            let line =
                self.lines.recv_timeout(Duration::from_secs(60)).context("the last packet is not seen")?;
            if line.contains("0x88b5") {
                return Ok(text);
            }
            text += &line;
            text.push('\n');
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
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
