//! Who is compared: the plain bridge, kube-proxy's rules, the hook's limit, and lb.

use std::{fmt::Write as _, fs, net::Ipv4Addr, os::fd::OwnedFd, path::Path};

use anyhow::{Context as _, Result, bail};

use super::{clients::Clients, limit, results::DIRECT, rules};
use crate::{
    build::workspace,
    lab::Lab,
    run::{Agent, ended, quiet},
    setup::say,
};

/// One of them, up and idle.
pub struct Contestant {
    /// As it is called in tables.
    pub name: &'static str,
    /// Its lab.
    pub lab: Lab,
    /// Where its client calls: the backend, or the service's address.
    pub target: Ipv4Addr,
    /// Its clients, servers running.
    pub clients: Clients,
    agent: Option<Agent>,
    _programs: Option<[OwnedFd; 2]>,
    /// Taken down last.
    _up: Up,
}

/// A lab, taken down when the value is dropped.
pub struct Up(pub Lab);

impl Drop for Up {
    fn drop(&mut self) {
        self.0.down();
    }
}

/// What stands between client and backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    /// The bridge alone.
    Nothing,
    /// The bridge with br_netfilter and one rule that needs connection tracking, as every host with
    /// kube-proxy has it.
    Tracking,
    /// kube-proxy's iptables rules for so many services.
    Iptables(u32),
    /// kube-proxy's nftables rules for so many.
    Nftables(u32),
    /// Programs that redirect and look at nothing.
    Limit,
    /// lb with so many services.
    Lb(u32),
}

/// Name, what is between, and whether `--quick` has it.
const ALL: [(&str, Between, bool); 11] = [
    (DIRECT, Between::Nothing, true),
    ("direct, tracked", Between::Tracking, false),
    ("iptables, 1", Between::Iptables(1), false),
    ("iptables, 1k", Between::Iptables(1_000), true),
    ("iptables, 10k", Between::Iptables(10_000), false),
    ("nftables, 1", Between::Nftables(1), false),
    ("nftables, 1k", Between::Nftables(1_000), false),
    ("limit", Between::Limit, true),
    ("lb, 1", Between::Lb(1), true),
    ("lb, 10k", Between::Lb(10_000), true),
    ("lb, 50k", Between::Lb(50_000), false),
];

/// Brings all of them up.
pub fn up(lb: &Path, quick: bool) -> Result<Vec<Contestant>> {
    let mut all = Vec::new();
    for (index, (name, between, in_quick)) in ALL.into_iter().enumerate() {
        if quick && !in_quick {
            continue;
        }
        if ended() {
            bail!("ended: no figures");
        }
        say(&format!("bringing up: {name}"));
        all.push(Contestant::up(index, name, between, lb).with_context(|| format!("bringing up {name}"))?);
    }
    Ok(all)
}

impl Contestant {
    fn up(index: usize, name: &'static str, between: Between, lb: &Path) -> Result<Contestant> {
        let lab = Lab::new(&format!("lbbench{index}"));
        lab.up_anew()?;
        let up = Up(lab.clone());
        // Ends with this process, at the latest.
        quiet(lab.command("blue", "iperf3")?.arg("-s")).spawn().context("starting iperf3")?;
        // Off where nothing asks for it: hosts with kube-proxy have it on, plain bridges do not.
        let filtered = matches!(between, Between::Tracking | Between::Iptables(_) | Between::Nftables(_));
        for switch in ["iptables", "ip6tables"] {
            let path = format!("net/bridge/bridge-nf-call-{switch}");
            // A kernel without br_netfilter has no such parameter, and nothing to switch off.
            if let Err(error) = lab.sysctl("node", &path, if filtered { "1" } else { "0" })
                && filtered
            {
                return Err(error.context("this kernel has no br_netfilter"));
            }
        }
        if filtered {
            // Thousands of connections a second would fill the table of tracked ones in a long run.
            lab.sysctl("node", "net/netfilter/nf_conntrack_tcp_timeout_time_wait", "10")?;
        }
        let mut contestant = Contestant {
            name,
            target: rules::ENDPOINT,
            clients: Clients::start(&lab)?,
            agent: None,
            _programs: None,
            _up: up,
            lab,
        };
        match between {
            Between::Nothing => {}
            Between::Tracking => track(&contestant.lab)?,
            Between::Iptables(services) => {
                rules::apply_iptables(&contestant.lab, services)?;
                contestant.target = rules::VIP;
            }
            Between::Nftables(services) => {
                rules::apply_nftables(&contestant.lab, services)?;
                contestant.target = rules::VIP;
            }
            Between::Limit => contestant._programs = Some(limit::attach(&contestant.lab)?),
            Between::Lb(services) => {
                contestant.agent = Some(agent(&contestant.lab, index, lb, services)?);
                contestant.target = rules::VIP;
            }
        }
        Ok(contestant)
    }

    /// Ends what was started, and says if that fails.
    pub fn end(&mut self) -> Result<()> {
        match &mut self.agent {
            Some(agent) => agent.end(),
            None => Ok(()),
        }
    }
}

fn track(lab: &Lab) -> Result<()> {
    let rule = ["-A", "FORWARD", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP"];
    let output = lab.command("node", "iptables")?.args(rule).output().context("running iptables")?;
    if !output.status.success() {
        bail!("iptables: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn agent(lab: &Lab, index: usize, lb: &Path, services: u32) -> Result<Agent> {
    let instance = format!("lbbench{index}");
    let config = workspace().join(format!("target/lab/{instance}.yaml"));
    fs::create_dir_all(workspace().join("target/lab"))?;
    fs::write(&config, config_of(services))?;
    let max = services.next_power_of_two().max(16_384).to_string();
    let mut agent = Agent::start(lab, lb, &config, &instance, &["--max-services", &max])?;
    agent.wait_ready()?;
    Ok(agent)
}

/// So many services; the last is the one that is measured, the others have three backends elsewhere.
pub fn config_of(services: u32) -> String {
    let mut text = "services:\n".to_owned();
    for number in 1..services {
        let [high, middle, low] = [number >> 16 & 0xff, number >> 8 & 0xff, number & 0xff];
        let _ = write!(
            text,
            "  - name: other-{number}\n    address: 10.{}.{middle}.{low}\n    ports: [{{port: 80, targetPort: 8080}}]\n    \
             backends: [{{address: 10.200.{middle}.{low}}}, {{address: 10.201.{middle}.{low}}}, {{address: 10.202.{middle}.{low}}}]\n",
            97 + high,
        );
    }
    let ports = rules::PORTS.iter().enumerate().map(|(index, (protocol, port))| {
        format!("{{name: p{index}, port: {port}, protocol: {}}}", protocol.name().to_uppercase())
    });
    let _ = write!(
        text,
        "  - name: measured\n    address: {}\n    ports: [{}]\n    backends: [{{address: {}}}]\n",
        rules::VIP,
        ports.collect::<Vec<_>>().join(", "),
        rules::ENDPOINT,
    );
    text
}
