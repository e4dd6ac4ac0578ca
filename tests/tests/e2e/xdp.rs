//! XDP at the uplinks of three nodes: clients outside reach the pods of other nodes without the hosts' stacks.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use xtask::lab::Lab;

use crate::{
    Test,
    bed::NAME,
    nodes::{Cluster, ENOUGH, NODES, PODS},
};

pub const ALL: &[Test] = &[
    ("XDP at the uplinks of three nodes", serves),
    ("XDP comes, changes its mode and goes", comes_and_goes),
];

/// The last part of a node's address.
const LAST: [(&str, u8); 3] = [("node1", 11), ("node2", 12), ("node3", 13)];

/// Requests of the client to the node ports of a node, in both families and protocols.
fn requests(cluster: &Cluster, last: u8) -> Result<()> {
    for host in [format!("192.168.1.{last}"), format!("[fd00:1::{last}]")] {
        cluster.pages("client", &format!("{host}:30080"), &PODS)?;
        cluster.echoes("client", &format!("{host}:30090"), &PODS)?;
    }
    Ok(())
}

/// Frames that XDP has sent back out of a node's uplink, by the driver's count.
fn sent_back(lab: &Lab, node: &str) -> Result<u64> {
    let text = lab.output(node, "ethtool -S eth0")?;
    let counts = text.lines().filter(|line| line.contains("_xdp_tx:"));
    let counts = counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    Ok(counts.sum())
}

/// How `ip` shows XDP at a node's uplink: the word for the mode and the program's id.
fn shown(lab: &Lab, node: &str) -> Result<Option<(String, String)>> {
    let text = lab.output(node, "ip link show dev eth0")?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let mode = words.iter().find(|word| word.starts_with("xdp") || word.starts_with("prog/xdp"));
    let id = words.windows(2).find(|pair| pair[0] == "id").map(|pair| pair[1]);
    Ok(mode.map(|mode| (mode.trim_start_matches("prog/").to_owned(), id.unwrap_or_default().to_owned())))
}

fn serves() -> Result<()> {
    let cluster = Cluster::with_xdp(&NODES)?;
    let lab = &cluster.up.0;
    for (node, last) in LAST {
        let before = sent_back(lab, node)?;
        requests(&cluster, last).with_context(|| format!("through {node}"))?;
        let frames = sent_back(lab, node)? - before;
        // Two thirds of the backends are on other nodes, and a datagram is two frames: there and back.
        let expected = u64::from(2 * 2 * ENOUGH);
        ensure!(frames > expected, "{node}: XDP has sent {frames} frames back, not more than {expected}");
    }
    Ok(())
}

fn comes_and_goes() -> Result<()> {
    let mut cluster = Cluster::with_xdp(&NODES[..1])?;
    let lab = cluster.up.0.clone();
    let status =
        |cluster: &Cluster| -> Result<Value> { Ok(cluster.agents[0].json(&["status"])?["xdp"].take()) };
    let native = shown(&lab, "node1")?.context("no XDP")?;
    ensure!(native.0 == "xdp", "not in the driver: {native:?}");
    ensure!(status(&cluster)?["eth0"] == "native", "{}", status(&cluster)?);

    // The same link goes on with the next agent's program.
    for (options, mode) in [
        (&["--xdp"][..], Some("xdp")),
        (&["--xdp=generic"], Some("xdpgeneric")),
        (&[], None),
        (&["--xdp"], Some("xdp")),
    ] {
        cluster.agents[0].signal(Signal::KILL)?;
        requests(&cluster, 11).context("without an agent")?;
        cluster.agents[0].start_with(options)?;
        let found = shown(&lab, "node1")?.map(|(mode, _)| mode);
        ensure!(found.as_deref() == mode, "{options:?}: {found:?}");
        let warnings = cluster.agents[0].json(&["status"])?["warnings"].to_string();
        let warned = warnings.contains("eth0 is a veth, and XDP serves there only if its other end");
        ensure!(warned == (mode == Some("xdp")), "{options:?}: {warnings}");
        requests(&cluster, 11).with_context(|| format!("{options:?}"))?;
    }
    cluster.agents[0].end()?;
    ensure!(shown(&lab, "node1")?.is_none(), "left: {:?}", shown(&lab, "node1")?);
    let pins = Path::new("/sys/fs/bpf/lb").join(format!("{NAME}-node1"));
    ensure!(!pins.exists(), "{} is left", pins.display());
    Ok(())
}
