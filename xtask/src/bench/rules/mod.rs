//! Rules for services in the shape kube-proxy gives them, in iptables and in nftables mode.
//!
//! The services are made up, with three endpoints each, but for the last: the lab's own, which is the
//! one that is measured. In iptables mode its rules are the last of their chain, the worst place, since
//! a packet of a new connection is held against all before them; in nftables mode the place is of no
//! account.
//!
//! A lab that is measured through the VIP must not call the endpoint directly as well: connections that
//! linger then share ports with new ones, and some of these wait for a second.

use std::{
    io::Write as _,
    net::Ipv4Addr,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::lab::Lab;

mod iptables;
mod nftables;

use iptables::iptables;
use nftables::nftables;

/// Address of the service that is measured.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 14);
/// Its one endpoint, the pod blue.
pub const ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 3);
/// Its ports; the endpoint has the same.
pub const PORTS: [(Protocol, u16); 5] = [
    (Protocol::Tcp, 5201),
    (Protocol::Tcp, 7777),
    (Protocol::Tcp, 7778),
    (Protocol::Udp, 7779),
    (Protocol::Udp, 9090),
];
/// What is called from outside in a lab of three nodes: port of the endpoint, and of the node.
pub const OUTSIDE: [(Protocol, u16, u16); 2] = [(Protocol::Tcp, 7777, 30777), (Protocol::Udp, 7779, 30779)];
/// Its one endpoint, another node.
pub const FAR: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 12);
/// The most services there are addresses for.
pub const IPTABLES_MOST: u32 = 50_000;
/// The most services of which it makes sense to load nftables rules: the kernel goes through all sets
/// of a table for each one it adds, and every service has one. Ten thousand take 5 to 15 s, fifty
/// thousand minutes.
pub const NFTABLES_MOST: u32 = 10_000;

/// Addresses that need no masquerading when they call a service.
const PODS: &str = "10.244.0.0/16";
/// The mark of packets to masquerade.
const MARK: &str = "0x4000";

/// What a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// One port of a service: what kube-proxy makes a chain of.
struct ServicePort {
    /// Tells apart what the chains are named after.
    id: u64,
    vip: Ipv4Addr,
    protocol: Protocol,
    port: u16,
    endpoints: Vec<(Ipv4Addr, u16)>,
    /// The same port of the node, for who is outside.
    node_port: Option<u16>,
}

/// The ports of so many services, the one that is measured last.
fn service_ports(services: u32) -> impl Iterator<Item = ServicePort> {
    let others = (0..services.saturating_sub(1)).map(|index| {
        // 250 addresses of each /24: 10.97.0.1 to 10.97.255.250, then 10.98 and so on.
        let [net, host] = [index / 250, index % 250 + 1];
        let address = |base: u32| Ipv4Addr::from((base << 24) + (net << 8) + host);
        let endpoint = |place: u32| (Ipv4Addr::from(u32::from(address(10)) + ((128 + place) << 16)), 8080);
        ServicePort {
            id: index as u64,
            vip: Ipv4Addr::from(u32::from(address(10)) + (97 << 16)),
            protocol: Protocol::Tcp,
            port: 80,
            endpoints: (0..3).map(endpoint).collect(),
            node_port: None,
        }
    });
    let measured = PORTS.into_iter().enumerate().map(|(index, (protocol, port))| ServicePort {
        id: (1 << 32) + index as u64,
        vip: VIP,
        protocol,
        port,
        endpoints: vec![(ENDPOINT, port)],
        node_port: None,
    });
    others.chain(measured)
}

/// The ports of the service that is reached from outside.
fn outside_ports() -> Vec<ServicePort> {
    let port = |(index, (protocol, port, node_port)): (usize, (Protocol, u16, u16))| ServicePort {
        id: (2 << 32) + index as u64,
        vip: VIP,
        protocol,
        port,
        endpoints: vec![(FAR, port)],
        node_port: Some(node_port),
    };
    OUTSIDE.into_iter().enumerate().map(port).collect()
}

/// Sixteen letters and digits that stand for a number, as kube-proxy's hashes look; different for
/// different numbers.
fn hash(id: u64) -> String {
    let mix = |mut bits: u64| {
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    };
    let low = mix(id.wrapping_add(0x9e37_79b9_7f4a_7c15));
    let bits = (mix(low) as u128) << 64 | low as u128;
    let letter =
        |place: u32| char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[(bits >> (5 * place)) as usize % 32]);
    (0..16).map(letter).collect()
}

/// Loads the iptables rules of so many services into the node of a lab; how long that took. They go
/// with the lab.
pub fn apply_iptables(lab: &Lab, services: u32) -> Result<Duration> {
    if services > IPTABLES_MOST {
        bail!("{services} services: there are addresses for {IPTABLES_MOST}, ask for fewer");
    }
    let rules = iptables(service_ports(services));
    see_bridged(lab)?;
    let start = Instant::now();
    load(lab, "node", "iptables-restore", &["--noflush"], rules)?;
    Ok(start.elapsed())
}

/// Loads the nftables rules of so many services into the node of a lab; how long that took. They go
/// with the lab.
pub fn apply_nftables(lab: &Lab, services: u32) -> Result<Duration> {
    if services > NFTABLES_MOST {
        bail!("{services} services: nft would load for minutes, ask for {NFTABLES_MOST} or fewer");
    }
    let transactions = nftables(service_ports(services));
    see_bridged(lab)?;
    let start = Instant::now();
    for rules in transactions {
        load(lab, "node", "nft", &["-f", "-"], rules)?;
    }
    Ok(start.elapsed())
}

/// Loads the iptables rules of what is called from outside into a node.
pub fn apply_iptables_outside(lab: &Lab, node: &str) -> Result<()> {
    load(lab, node, "iptables-restore", &["--noflush"], iptables(outside_ports()))
}

/// Loads the nftables rules of what is called from outside into a node.
pub fn apply_nftables_outside(lab: &Lab, node: &str) -> Result<()> {
    let transactions = nftables(outside_ports());
    transactions.into_iter().try_for_each(|rules| load(lab, node, "nft", &["-f", "-"], rules))
}

/// Shows bridged packets to netfilter, without which replies within a bridge are not translated back.
fn see_bridged(lab: &Lab) -> Result<()> {
    let set = lab.sysctl("node", "net/bridge/bridge-nf-call-iptables", "1");
    set.context("rules see no bridged packets without br_netfilter: `modprobe br_netfilter`")
}

/// Feeds a program in a node and waits for its end.
fn load(lab: &Lab, node: &str, program: &str, arguments: &[&str], rules: String) -> Result<()> {
    let mut command = lab.command(node, program)?;
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {program}: is it installed?"))?;
    let mut input = child.stdin.take().with_context(|| format!("{program} without an input"))?;
    // Beside the wait, which empties what the program has to say.
    let feeder = thread::spawn(move || input.write_all(rules.as_bytes()));
    let output = child.wait_with_output().with_context(|| format!("waiting for {program}"))?;
    let fed = feeder.join();
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let words: Vec<&str> = words.lines().take(5).collect();
        bail!("{program} did not take the rules ({}): {}", output.status, words.join("; "));
    }
    match fed {
        Ok(fed) => fed.with_context(|| format!("feeding {program}")),
        Err(_) => bail!("feeding {program} ended badly"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn services_are_told_apart() {
        let ports: Vec<ServicePort> = service_ports(IPTABLES_MOST).collect();
        assert_eq!(ports.len(), IPTABLES_MOST as usize - 1 + PORTS.len());
        let vips: BTreeSet<_> =
            ports.iter().map(|port| (port.vip, port.protocol.name(), port.port)).collect();
        assert_eq!(vips.len(), ports.len());
        let names: BTreeSet<String> = ports.iter().map(|port| hash(port.id)).collect();
        assert_eq!(names.len(), ports.len());
        assert_eq!(ports[0].vip, Ipv4Addr::new(10, 97, 0, 1));
        assert_eq!(ports[0].endpoints[2].0, Ipv4Addr::new(10, 130, 0, 1));
        assert!(ports.iter().all(|port| port.vip.octets()[1] < 128));
        assert!(ports.last().is_some_and(|port| port.vip == VIP));
    }
}
