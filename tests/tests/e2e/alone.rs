//! A load balancer without a bridge: an agent on the uplink of one of three nodes, in front of the others.

use std::{net::UdpSocket, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use xtask::lab::{
    Lab, Nodes,
    request::{ask, connected, echoes, pages},
};

use crate::{
    Test,
    bed::{Bed, NAME, only},
};

pub const ALL: &[Test] =
    &[("a load balancer without a bridge", serves), ("a next hop that does not answer", silent)];

/// `front` on the pods of the other nodes, `host` on processes of these nodes.
const CONFIG: &str = r#"
serviceCIDRs: [10.96.0.0/12, "fd00:96::/112"]
services:
  - name: front
    type: LoadBalancer
    addresses: [10.96.0.10, "fd00:96::10"]
    loadBalancerIPs: [198.51.100.10, "2001:db8:100::10"]
    ports:
      - {name: page, port: 80, targetPort: 8080, nodePort: 30080}
      - {name: echo, port: 9090, nodePort: 30090, protocol: UDP}
    backends:
      - {address: 10.244.2.2}
      - {address: "fd00:244:2::2"}
      - {address: 10.244.3.2}
      - {address: "fd00:244:3::2"}
  - name: host
    type: NodePort
    addresses: [10.96.0.11, "fd00:96::11"]
    ports: [{port: 443, targetPort: 6443, nodePort: 30443}]
    backends:
      - {address: 192.168.1.12}
      - {address: "fd00:1::12"}
      - {address: 192.168.1.13}
      - {address: "fd00:1::13"}
"#;

const NODE: &str = "node1";

fn alone(prepare: impl FnOnce(&Lab) -> Result<()>) -> Result<Bed> {
    Bed::at(Lab::of(NAME, Nodes::Three), NODE, &["--uplink", "eth0"], CONFIG, &[], prepare)
}

fn answered(bed: &Bed, to: &[&str], by: &[&str]) -> Result<()> {
    for to in to {
        let request = if to.ends_with("90") { echoes } else { pages };
        let answers = request(bed.lab(), "client", to.parse()?, 60);
        answers.and_then(|answers| only(&answers, by)).with_context(|| format!("asking {to}"))?;
    }
    Ok(())
}

/// What `lb status` warns of.
fn warnings(bed: &Bed) -> Result<String> {
    Ok(bed.json(&["status"])?["warnings"].to_string())
}

/// Neighbours of the node that the kernel keeps fresh.
fn fresh(lab: &Lab) -> Result<Vec<String>> {
    let text = lab.output(NODE, "ip neigh show dev eth0")?;
    let managed = text.lines().filter(|line| line.split(' ').any(|word| word == "managed"));
    let mut addresses: Vec<String> =
        managed.filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect();
    addresses.sort();
    Ok(addresses)
}

const FRONTS: [&str; 6] = [
    "192.168.1.11:30080",
    "[fd00:1::11]:30080",
    "192.168.1.11:30090",
    "[fd00:1::11]:30090",
    "198.51.100.10:80",
    "[2001:db8:100::10]:9090",
];
const HOSTS: [&str; 2] = ["192.168.1.11:30443", "[fd00:1::11]:30443"];
const NEXT_HOPS: [&str; 4] = ["192.168.1.12", "192.168.1.13", "fd00:1::12", "fd00:1::13"];

fn serves() -> Result<()> {
    let mut bed = alone(|_| Ok(()))?;
    answered(&bed, &FRONTS, &["red2", "red3"])?;
    answered(&bed, &HOSTS, &["node2", "node3"])?;
    bed.wait_for("next hops are kept fresh", || Ok(fresh(bed.lab())? == NEXT_HOPS))?;
    ensure!(warnings(&bed)? == "[]", "{}", warnings(&bed)?);

    // Who is no backend any more is nobody to keep fresh; another agent takes the others over.
    let without: Vec<&str> =
        CONFIG.lines().filter(|line| !line.contains(".13}") && !line.contains("::13\"")).collect();
    let without: Vec<&str> =
        without.into_iter().filter(|line| !line.contains("244:3:") && !line.contains("244.3")).collect();
    bed.agent.signal(Signal::TERM)?;
    answered(&bed, &FRONTS, &["red2", "red3"])?;
    ensure!(fresh(bed.lab())? == NEXT_HOPS, "without an agent: {:?}", fresh(bed.lab())?);
    bed.replace(&without.join("\n"))?;
    bed.agent.start_again()?;
    bed.wait_for(
        "one node's addresses are left",
        || Ok(fresh(bed.lab())? == ["192.168.1.12", "fd00:1::12"]),
    )?;
    answered(&bed, &FRONTS, &["red2"])?;
    // Who was forgotten by somebody else is found again.
    bed.lab().on(NODE, "neigh flush dev eth0")?;
    bed.wait_for("asked for again", || Ok(fresh(bed.lab())? == ["192.168.1.12", "fd00:1::12"]))?;

    let lab = bed.lab().clone();
    bed.agent.end()?;
    ensure!(fresh(&lab)?.is_empty(), "left: {:?}", fresh(&lab)?);
    Ok(())
}

/// Sockets of flows to the echo's node ports, half of which are to be red3's.
fn talking() -> Result<Vec<UdpSocket>> {
    let talk = |to: &str| -> Result<_> {
        let socket = connected(to.parse()?)?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        ask(&socket)?;
        Ok(socket)
    };
    FRONTS[2..4].iter().copied().cycle().take(32).map(talk).collect()
}

/// New flows go elsewhere, and that is said.
fn silent() -> Result<()> {
    let bed = alone(|lab| {
        // The kernel would take most of a minute to be sure.
        for family in ["ipv4", "ipv6"] {
            for (name, value) in [("base_reachable_time_ms", "1000"), ("delay_first_probe_time", "1")] {
                lab.sysctl(NODE, &format!("net/{family}/neigh/eth0/{name}"), value)?;
            }
        }
        Ok(())
    })?;
    answered(&bed, &FRONTS, &["red2", "red3"])?;
    bed.wait_for("next hops are kept fresh", || Ok(fresh(bed.lab())? == NEXT_HOPS))?;
    let sockets = bed.lab().within("client", talking)??;
    let lan = |state: &str| bed.lab().on("lan", &format!("link set node3 {state}"));
    lan("down")?;
    let missed = || -> Result<[bool; 2]> {
        let said = warnings(&bed)?;
        Ok(["192.168.1.13", "fd00:1::13"].map(|one| said.contains(&format!("{one} at eth0 does not answer"))))
    };
    bed.wait_for("both are missed", || Ok(missed()? == [true, true]))?;
    // Flows of UDP that were red3's move with their next datagram.
    for socket in &sockets {
        let by = ask(socket)?;
        ensure!(by == "red2", "{by} has answered {socket:?}");
    }
    answered(&bed, &FRONTS, &["red2"])?;
    answered(&bed, &HOSTS, &["node2"])?;
    let backends = bed.json(&["get", "backends"])?;
    let silent = backends.as_array().into_iter().flatten().filter(|backend| backend["state"] == "silent");
    let silent: Vec<&str> = silent.filter_map(|backend| backend["address"].as_str()).collect();
    ensure!(!silent.is_empty(), "no backend is silent: {backends}");
    ensure!(
        silent.iter().all(|at| at.contains("244.3") || at.contains(":3:") || at.ends_with("13")),
        "{silent:?}"
    );
    lan("up")?;
    bed.wait_for("both are back", || Ok(missed()? == [false, false]))?;
    answered(&bed, &FRONTS, &["red2", "red3"])
}
