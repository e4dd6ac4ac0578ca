//! DSR on three nodes: clients outside are passed on to the nodes of their backends, which answer directly.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use socket2::Type;
use xtask::{
    lab::{Lab, Nodes, request::page},
    run::checks::{Iperf3, iperf3},
};

use crate::{
    Test,
    bed::{answer, connect_from},
    nodes::{Cluster, NODES, PODS},
};

pub const ALL: &[Test] = &[("DSR on three nodes", all)];

/// The service's addresses, and those of the one that iperf3 is behind.
const DIRECT: [&str; 2] = ["198.51.100.12", "2001:db8:100::12"];
const STREAM: [&str; 2] = ["198.51.100.13", "2001:db8:100::13"];
const CLIENT: [&str; 2] = ["192.168.1.100", "fd00:1::100"];

fn all() -> Result<()> {
    let mut cluster = Cluster::new()?;
    let lab = &cluster.up.0.clone();
    // As on real wires: who hears a wrong sum drops it.
    for host in Nodes::Three.pods().iter().map(|pod| pod.name).chain(["client"]) {
        lab.offload(host, "eth0", "tx off")?;
    }
    through_every_node(&cluster).context("through every node")?;
    alike(lab).context("the same flow through each node")?;
    counted(&cluster).context("what is counted")?;
    for host in Nodes::Three.pods().iter().map(|pod| pod.name).chain(["client"]) {
        lab.offload(host, "eth0", "tx on")?;
    }
    upload(lab).context("much data")?;
    restarted(&mut cluster).context("an agent that finds the rows of the one before")
}

/// The client reaches the service's addresses through that node.
fn go_through(lab: &Lab, node: usize) -> Result<()> {
    let last = 11 + node;
    for address in [DIRECT[0], STREAM[0]] {
        lab.on("client", &format!("route replace {address}/32 via 192.168.1.{last}"))?;
    }
    for address in [DIRECT[1], STREAM[1]] {
        lab.on("client", &format!("-6 route replace {address}/128 via fd00:1::{last}"))?;
    }
    Ok(())
}

/// All pods answer, at the node's port and at the service's address, and see the client.
fn through_every_node(cluster: &Cluster) -> Result<()> {
    for (node, name) in NODES.iter().enumerate() {
        let lab = &cluster.up.0;
        go_through(lab, node)?;
        let last = 11 + node;
        for (host, port, echo, client) in [
            (format!("192.168.1.{last}"), 30082, 30092, CLIENT[0]),
            (format!("[fd00:1::{last}]"), 30082, 30092, CLIENT[1]),
            (DIRECT[0].to_owned(), 80, 9090, CLIENT[0]),
            (format!("[{}]", DIRECT[1]), 80, 9090, CLIENT[1]),
        ] {
            cluster.pages("client", &format!("{host}:{port}"), &PODS)?;
            cluster.echoes("client", &format!("{host}:{echo}"), &PODS)?;
            let to: SocketAddr = format!("{host}:{port}").parse()?;
            let seen =
                lab.within("client", move || (0..20).map(|_| page(to)).collect::<Result<Vec<_>>>())??;
            for (by, seen) in seen {
                ensure!(seen == client, "{to} through {name}: {by} sees {seen}");
            }
        }
    }
    Ok(())
}

/// Whichever node a flow comes in at, its backend is the same.
fn alike(lab: &Lab) -> Result<()> {
    let ports = 41_000..41_020u16;
    for (address, own) in DIRECT.into_iter().zip(CLIENT) {
        let mut before: Option<Vec<String>> = None;
        for (node, name) in NODES.iter().enumerate() {
            go_through(lab, node)?;
            let (ports, to) = (ports.clone(), SocketAddr::new(address.parse()?, 9090));
            let own = own.parse()?;
            let answers = lab.within("client", move || {
                ports
                    .map(|port| {
                        answer(Type::DGRAM, connect_from(Type::DGRAM, SocketAddr::new(own, port), to)?)
                    })
                    .collect::<Result<Vec<_>>>()
            })??;
            if let Some(before) = &before {
                ensure!(*before == answers, "through {name}: {answers:?}, before {before:?}");
            }
            before = Some(answers);
        }
    }
    Ok(())
}

/// Each node has passed packets on and taken some out.
fn counted(cluster: &Cluster) -> Result<()> {
    for (agent, node) in cluster.agents.iter().zip(NODES) {
        let text = agent.output(&["status"])?;
        for counter in ["encapsulated", "decapsulated"] {
            ensure!(text.contains(counter), "{node} has never {counter} a packet:\n{text}");
        }
    }
    Ok(())
}

/// The client hears how large its segments may be, and they go on in large pieces.
fn upload(lab: &Lab) -> Result<()> {
    go_through(lab, 0)?;
    let _server = Iperf3::serve(lab, "blue2")?;
    let found = STREAM.into_iter().map(|to| iperf3(lab, "client", to, 2, 1).context(to));
    let found = found.collect::<Result<Vec<f64>>>()?;
    println!("Gbit/s to another node by DSR, IPv4 and IPv6: {found:?}");
    // Where every large packet is lost, TCP still carries a few.
    ensure!(found.iter().all(|gigabits| *gigabits > 0.05), "Gbit/s over IPv4 and IPv6: {found:?}");
    for (to, mtu) in STREAM.into_iter().zip(["mtu 1480", "mtu 1460"]) {
        let text = lab.output("client", &format!("ip route get {to}"))?;
        ensure!(text.contains(mtu), "the client has not learnt {mtu}:\n{text}");
    }
    Ok(())
}

/// What is there is what is wanted: nothing is written anew.
fn restarted(cluster: &mut Cluster) -> Result<()> {
    let agent = cluster.agents.first_mut().context("an agent")?;
    agent.signal(Signal::TERM)?;
    agent.start_again()?;
    let log = agent.log()?;
    ensure!(!log.contains("backends take flows"), "{log}");
    let backends = agent.output(&["get", "backends"])?;
    ensure!(backends.contains("dsr to 192.168.1.12"), "{backends}");
    go_through(&cluster.up.0, 0)?;
    cluster.pages("client", &format!("{}:80", DIRECT[0]), &PODS)
}
