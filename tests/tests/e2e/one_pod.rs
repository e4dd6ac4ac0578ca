//! A pod with more than one port: it sends by whichever its own routes say.

use anyhow::{Context as _, Result};
use xtask::lab::{self, Lab, Pod};

use crate::{
    Test,
    bed::{Bed, CONFIG, only, service, vip},
    neighbours::mac,
    source_guard::{port, wait_home},
};

pub const ALL: &[Test] = &[
    ("a pod with two ports on one bridge", || two_ports(&[])),
    ("a pod with two ports on one bridge, by the bridge", || two_ports(&["--forward", "bridge"])),
    ("a pod on two bridges", || two_bridges(&[])),
    ("a pod on two bridges, by the bridges", || two_bridges(&["--forward", "bridge"])),
];

/// Red's second address.
const SECOND: &str = r#"
  - name: second
    addresses: [10.96.0.30, "fd00:96::30"]
    ports: [{name: page, port: 80, targetPort: 8080}, {name: echo, port: 90, targetPort: 9090, protocol: UDP}]
    backends: [{address: 10.244.1.22}, {address: "fd00:244:1::22"}]
"#;

/// Another port of red, `eth1`, on this bridge.
fn plug_in(lab: &Lab, bridge: &str, addresses: [&str; 2]) -> Result<()> {
    lab.add_wire(("node", "veth-red2"), ("red", "eth1"))?;
    lab.on("node", &format!("link set veth-red2 master {bridge} up"))?;
    // Each address is found at its own port.
    lab.sysctl("red", "net/ipv4/conf/all/arp_ignore", "1")?;
    lab.on("red", &format!("addr add {} dev eth1", addresses[0]))?;
    lab.on("red", &format!("addr add {} dev eth1 nodad", addresses[1]))?;
    lab.on("red", "link set eth1 up")
}

/// By TCP: an echo's source is the address that red's own route has.
fn pages(bed: &Bed, from: &str, service: u16, by: &str) -> Result<()> {
    [false, true].into_iter().try_for_each(|ipv6| only(&bed.pages(from, vip(ipv6, service, 80), 5)?, &[by]))
}

fn two_ports(options: &[&str]) -> Result<()> {
    let bed = Bed::with(&(CONFIG.to_owned() + SECOND), options, |lab| {
        plug_in(lab, "v-net-0", ["10.244.1.22/32", "fd00:244:1::22/128"])?;
        // Called from there, by its first port.
        lab.on("red", "route add 10.96.0.12 via 10.244.1.1 dev eth0 src 10.244.1.22")?;
        lab.on("red", "-6 route add fd00:96::12 via fd00:244:1::1 dev eth0 src fd00:244:1::22")
    })?;
    for from in ["blue", "green", "client"] {
        pages(&bed, from, 0x30, "red").context("a backend's second address")?;
        bed.answered(from, service::SELF, &["red"], 5)?;
    }
    bed.answered("red", service::BLUE, &["blue"], 5).context("a client's second address")?;
    // In the name of another pod nobody is heard, once it is known where that is. What red would say by ARP meanwhile,
    // that it has green's address, the kernel would believe.
    let bridge = mac(bed.lab(), "node", "v-net-0")?;
    bed.lab().on("red", &format!("neigh replace 10.244.1.1 lladdr {bridge} dev eth0 nud permanent"))?;
    wait_home(&bed, "10.244.1.4", Some(port(&bed, "veth-green")?))?;
    bed.lab().on("red", "addr add 10.244.1.4/32 dev lo")?;
    bed.lab().on("red", "route replace 10.96.0.12 via 10.244.1.1 dev eth0 src 10.244.1.4")?;
    pages(&bed, "blue", 0x30, "red")?;
    anyhow::ensure!(bed.pages("red", vip(false, service::BLUE, 80), 1).is_err(), "served in green's name");
    Ok(())
}

const GUEST: Pod = Pod { name: "a", network: 2, host: 2 };

fn two_bridges(options: &[&str]) -> Result<()> {
    let options: Vec<&str> = ["--bridge", "v-net-1"].iter().chain(options).copied().collect();
    let bed = Bed::with(CONFIG, &options, |lab| {
        lab.add_bridge(GUEST.network)?;
        lab.add_pod(GUEST)?;
        lab::serve_pod(lab, GUEST)?;
        plug_in(lab, "v-net-1", ["10.244.2.99/24", "fd00:244:2::99/64"])
    })?;
    for from in [GUEST.name, "blue", "client"] {
        pages(&bed, from, service::SELF, "red").with_context(|| format!("from {from}"))?;
        only(&bed.pages(from, vip(false, service::WEB, 80), 40)?, &["red", "blue", "green"])?;
    }
    Ok(())
}
