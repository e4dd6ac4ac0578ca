//! Ports that are no bridge's: pods on veths that the host routes to, as Calico, the clouds' plugins, kindnet and CNI's
//! `ptp` make them.

use anyhow::{Context as _, Result, ensure};
use lb_tests::node::binary;
use rustix::process::Signal;
use xtask::{
    lab::{self, Lab, Pod},
    run::Agent,
};

use crate::{
    Test,
    bed::{Bed, CONFIG, NAME, only, service},
    routed_pods::{Gateway, route_to},
};

pub const ALL: &[Test] = &[
    ("routed veths, a fixed gateway", || routed(Gateway::Fixed, &[])),
    ("routed veths, an address of the host's at each", || routed(Gateway::Own, &[])),
    ("routed veths over the stack", || routed(Gateway::Fixed, &["--forward", "stack"])),
    ("routed veths by clsact filters", || routed(Gateway::Own, &["--clsact"])),
    ("routed veths beside a bridge", beside),
    ("patterns of ports that can't be", patterns),
];

const DEVICES: [&str; 4] = ["--port", "veth-*", "--uplink", "eth0"];

/// Node ports and, on the node itself, a process.
const PUBLIC: &str = r#"
  - name: public
    type: NodePort
    addresses: [10.96.0.20, "fd00:96::20"]
    ports: [{name: page, port: 80, targetPort: 8080, nodePort: 30080}, {name: echo, port: 90, targetPort: 9090, protocol: UDP, nodePort: 30090}]
    externalTrafficPolicy: Local
    backends: [{address: 10.244.1.3}, {address: "fd00:244:1::3"}]
"#;

fn served(bed: &Bed) -> Result<()> {
    bed.wait_settled()?;
    for pod in Pod::ALL {
        bed.answered(pod.name, service::WEB, &["red", "blue", "green"], 30)?;
        bed.answered(pod.name, service::SELF, &["red"], 3)?;
    }
    for (from, to) in [("red", "10.96.0.1:443"), ("red", "[fd00:96::1]:443")] {
        only(&bed.pages(from, to.parse()?, 3)?, &["node"])?;
    }
    bed.answered("client", service::WEB, &["red", "blue", "green"], 30)?;
    bed.answered("node", service::WEB, &["red", "blue", "green"], 30)?;
    for at in ["192.168.1.11", "[fd00:1::11]"] {
        only(&bed.pages("client", format!("{at}:30080").parse()?, 3)?, &["blue"])?;
        only(&bed.echoes("client", format!("{at}:30090").parse()?, 3)?, &["blue"])?;
        only(&bed.pages("red", format!("{at}:30080").parse()?, 3)?, &["blue"])?;
    }
    // Who is called sees who calls.
    let seen = said_by(bed, "client", "10.96.0.12:80")?;
    ensure!(seen.contains("192.168.1.100"), "the backend sees {seen}");
    let seen = said_by(bed, "red", "10.96.0.12:80")?;
    ensure!(seen.contains("10.244.1.2"), "the backend sees {seen}");
    bed.agent.output(&["status"]).map(drop)
}

/// The page as a pod gets it: who answers, and whom it sees.
fn said_by(bed: &Bed, from: &str, to: &str) -> Result<String> {
    let to = to.parse()?;
    let (name, sees) = bed.lab().within(from, move || lab::request::page(to))??;
    Ok(format!("{name} {sees}"))
}

fn routed(gateway: Gateway, options: &[&str]) -> Result<()> {
    let mut bed = Bed::at(Lab::new(NAME), "node", &DEVICES, &(CONFIG.to_owned() + PUBLIC), options, |lab| {
        for pod in Pod::ALL {
            route_to(lab, pod, gateway)?;
        }
        lab.on("node", "link del v-net-0")
    })?;
    served(&bed)?;
    // A pod goes, its address comes back with another.
    let green = Pod::ALL[2];
    bed.lab().remove_pod(green)?;
    bed.answered("red", service::BLUE, &["blue"], 3)?;
    bed.agent.signal(Signal::TERM)?;
    bed.lab().add_host(green.name)?;
    bed.lab().add_wire(("node", "veth-green"), (green.name, "eth0"))?;
    bed.lab().on(green.name, "link set eth0 up")?;
    route_to(bed.lab(), green, gateway)?;
    lab::serve_pod(bed.lab(), green)?;
    bed.agent.start_again()?;
    served(&bed)
}

/// Green is routed to, red and blue are on the bridge.
fn beside() -> Result<()> {
    let devices = [&["--bridge", "v-net-0"], &DEVICES[..]].concat();
    let devices: Vec<&str> =
        devices.iter().map(|one| if *one == "veth-*" { "veth-gr?en" } else { *one }).collect();
    let bed = Bed::at(Lab::new(NAME), "node", &devices, &(CONFIG.to_owned() + PUBLIC), &[], |lab| {
        // What it was behind before is not to be asked for it.
        route_to(lab, Pod::ALL[2], Gateway::Fixed)?;
        lab.on("node", "neigh flush dev v-net-0")?;
        for (from, via) in
            [("red", ["10.244.1.1", "fd00:244:1::1"]), ("blue", ["10.244.1.1", "fd00:244:1::1"])]
        {
            lab.on(from, &format!("route add 10.244.1.4 via {}", via[0]))?;
            lab.on(from, &format!("-6 route add fd00:244:1::4 via {}", via[1]))?;
        }
        Ok(())
    })?;
    served(&bed)
}

/// One clear message each, and nothing is attached.
fn patterns() -> Result<()> {
    let mut bed = Bed::new(&[])?;
    bed.agent.end()?;
    bed.lab().on("node", "tuntap add dev tun0 mode tun")?;
    for (devices, says) in [
        (&["--port", "*"][..], "--port *: lo is the host's own; give a pattern without it"),
        (&["--port", "l?"], "--port l?: lo is the host's own"),
        (&["--port", "eth*", "--uplink", "eth0"], "--port eth*: eth0 is named with --uplink, too"),
        (&["--port", "veth-red"], "--port veth-red: veth-red is a port of v-net-0"),
        (&["--bridge", "v-net-0", "--port", "v-*"], "v-net-0 is named with --bridge, too"),
        (&["--bridge", "v-net-0", "--uplink", "veth-red"], "leave --uplink veth-red out"),
        (&["--uplink", "tun0"], "tun0 has no Ethernet header"),
    ] {
        let other = Agent::start_at(bed.lab(), "node", devices, &binary()?, bed.config(), NAME, &[]);
        let (mut other, said) = (other?, says);
        let ended = other.wait_ready();
        let error = ended.err().with_context(|| format!("{devices:?} was taken"))?;
        ensure!(format!("{error:#}").contains(said), "{devices:?}: {error:#}");
        ensure!(!said_links(bed.lab())?, "{devices:?}: something is attached");
    }
    // Nothing matches yet: said, and followed.
    let waiting = ["--port", "cali*", "--uplink", "eth0"];
    let mut agent = Agent::start_at(bed.lab(), "node", &waiting, &binary()?, bed.config(), NAME, &[])?;
    agent.wait_ready()?;
    let status = agent.output(&["status"])?;
    ensure!(status.contains("--port cali* matches no device yet"), "{status}");
    agent.end()
}

/// Whether a program is attached to any device.
fn said_links(lab: &Lab) -> Result<bool> {
    let output = lab.command("node", "bpftool")?.args(["net", "show"]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).contains("_ingress")
        || lab.output("node", "ip link show")?.contains("xdp"))
}
