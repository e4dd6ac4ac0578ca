//! Ports of every kind, coming and going.

use anyhow::{Result, ensure};
use xtask::lab::{self, Pod};

use crate::{
    Test,
    bed::{Bed, CONFIG, only, service, vip},
    tap,
};

pub const ALL: &[Test] = &[
    ("a pod plugged in later", plugged_in),
    ("a pod made anew with its address", made_anew),
    ("a pod goes", goes),
    ("a pod that is gone takes no new flows", gone),
    ("a pod that does not answer takes no new flows", silent),
    ("a tap port", tap_port),
    ("isolated ports", isolated),
    ("two bridges", two_bridges),
];

const PINK: Pod = Pod { name: "pink", network: 1, host: 5 };
const TEAL: Pod = Pod { name: "teal", network: 2, host: 2 };

/// `CONFIG` and a service whose one backend is the pod.
fn with_service_of(pod: Pod) -> String {
    let backends = format!("[{{address: {}}}, {{address: \"{}\"}}]", pod.ipv4(), pod.ipv6());
    CONFIG.to_owned()
        + r#"
  - name: late
    addresses: [10.96.0.13, "fd00:96::13"]
    ports: [{name: page, port: 80, targetPort: 8080}, {name: echo, port: 90, targetPort: 9090, protocol: UDP}]
    backends: "#
        + &backends
        + "\n"
}

/// Its service in [`with_service_of`].
const LATE: u16 = 0x13;
const PODS: [&str; 3] = ["red", "blue", "green"];

/// Client and backend at once: nothing is waited for.
fn plugged_in() -> Result<()> {
    let bed = Bed::with(&with_service_of(PINK), &[], |_| Ok(()))?;
    bed.lab().add_pod(PINK)?;
    lab::serve_pod(bed.lab(), PINK)?;
    only(&bed.pages("pink", vip(false, service::BLUE, 80), 3)?, &["blue"])?;
    only(&bed.pages("red", vip(false, LATE, 80), 3)?, &["pink"])?;
    bed.answered("pink", service::WEB, &PODS, 30)?;
    for from in ["red", "pink", "client"] {
        bed.answered(from, LATE, &["pink"], 5)?;
    }
    bed.wait_for("the way to the new port", || Ok(bed.forward_of("veth-pink")? == "peer"))?;
    bed.answered("red", LATE, &["pink"], 5)
}

/// The same address, another MAC, another port.
fn made_anew() -> Result<()> {
    let bed = Bed::with(&with_service_of(PINK), &[], |lab| {
        lab.add_pod(PINK)?;
        lab::serve_pod(lab, PINK)
    })?;
    bed.answered("red", LATE, &["pink"], 5)?;
    bed.lab().remove_pod(PINK)?;
    bed.lab().add_pod(PINK)?;
    lab::serve_pod(bed.lab(), PINK)?;
    bed.answered("red", LATE, &["pink"], 5)?;
    bed.answered("client", LATE, &["pink"], 5)?;
    bed.answered("pink", service::WEB, &PODS, 30)
}

fn goes() -> Result<()> {
    let bed = Bed::new(&[])?;
    bed.answered("red", service::WEB, &PODS, 30)?;
    bed.lab().remove_pod(Pod::ALL[2])?;
    bed.wait_for("the port left", || Ok(bed.forward_of("veth-green")?.is_empty()))?;
    bed.answered("red", service::BLUE, &["blue"], 5)?;
    let without = CONFIG
        .replace("      - {address: 10.244.1.4}\n", "")
        .replace("      - {address: \"fd00:244:1::4\"}\n", "");
    bed.configure(&without, "10.96.0.10:80: 2 of 2")?;
    bed.answered("red", service::WEB, &["red", "blue"], 30)
}

/// A virtual machine: a tap device, no namespace to redirect into.
fn tap_port() -> Result<()> {
    let bed = Bed::with(&with_service_of(PINK), &[], |lab| {
        tap::add_machine(lab, PINK)?;
        lab::serve_pod(lab, PINK)
    })?;
    ensure!(bed.forward_of("tap-pink")? == "bridge", "a tap port can't be redirected into");
    for from in ["red", "client", "pink"] {
        bed.answered(from, LATE, &["pink"], 5)?;
    }
    bed.answered("pink", service::WEB, &PODS, 30)?;
    only(&bed.pages("pink", vip(false, service::NODE, 443), 5)?, &["node"])
}

/// Isolated ports talk with the others, not with each other, through VIPs as well.
fn isolated() -> Result<()> {
    let bed = Bed::new(&[])?;
    let isolate = |port: &str, on: &str| {
        bed.lab().on("node", &format!("link set {port} type bridge_slave isolated {on}"))?;
        let way = if on == "on" { "bridge" } else { "peer" };
        bed.wait_for("the way of an isolated port", || Ok(bed.forward_of(port)? == way))
    };
    isolate("veth-blue", "on")?;
    bed.answered("red", service::BLUE, &["blue"], 5)?;
    bed.answered("blue", service::SELF, &["red"], 5)?;
    isolate("veth-red", "on")?;
    for ipv6 in [false, true] {
        ensure!(bed.pages("red", vip(ipv6, service::BLUE, 80), 1).is_err(), "isolated ports talk");
    }
    bed.answered("green", service::BLUE, &["blue"], 5)?;
    isolate("veth-red", "off")?;
    bed.answered("red", service::BLUE, &["blue"], 5)
}

/// One agent, two bridges: a service reaches across them.
fn two_bridges() -> Result<()> {
    let bed = Bed::with(&with_service_of(TEAL), &["--bridge", "v-net-1"], |lab| {
        lab.add_bridge(2)?;
        lab.add_pod(TEAL)?;
        lab::serve_pod(lab, TEAL)
    })?;
    for from in ["red", "client", "teal"] {
        bed.answered(from, LATE, &["teal"], 5)?;
    }
    bed.answered("teal", service::WEB, &PODS, 30)?;
    only(&bed.pages("teal", vip(true, service::NODE, 443), 5)?, &["node"])
}

/// The state of a pod's backends is so, as far as the agent knows.
fn wait_for_state(bed: &Bed, pod: Pod, state: &str) -> Result<()> {
    bed.wait_for(&format!("{} is {state}", pod.name), || {
        let backends = bed.json(&["get", "backends"])?;
        let addresses = [pod.ipv4().to_string(), pod.ipv6().to_string()];
        let of_pod = |row: &&serde_json::Value| addresses.iter().any(|address| row["address"] == **address);
        let mut rows = backends.as_array().into_iter().flatten().filter(of_pod).peekable();
        Ok(rows.peek().is_some() && rows.all(|row| row["state"] == state))
    })
}

const GREEN: Pod = Pod::ALL[2];

/// Nobody has told that it is: the config names it still.
fn gone() -> Result<()> {
    for options in [&[][..], &["--forward", "bridge"]] {
        let bed = Bed::new(options)?;
        bed.answered("red", service::WEB, &PODS, 30)?;
        bed.lab().remove_pod(GREEN)?;
        wait_for_state(&bed, GREEN, "silent")?;
        for from in ["red", "client"] {
            bed.answered(from, service::WEB, &["red", "blue"], 40)?;
        }
        bed.lab().add_pod(GREEN)?;
        lab::serve_pod(bed.lab(), GREEN)?;
        wait_for_state(&bed, GREEN, "ready")?;
        bed.answered("red", service::WEB, &PODS, 30)?;
    }
    Ok(())
}

/// Its port is there, and nobody behind it.
fn silent() -> Result<()> {
    // The kernel finds out within a second or a few and not within a minute.
    let bed = Bed::with(CONFIG, &[], |lab| {
        for family in ["ipv4", "ipv6"] {
            for (name, value) in [("base_reachable_time_ms", "1000"), ("delay_first_probe_time", "1")] {
                lab.sysctl("node", &format!("net/{family}/neigh/v-net-0/{name}"), value)?;
            }
        }
        Ok(())
    })?;
    bed.answered("red", service::WEB, &PODS, 30)?;
    bed.lab().on("green", "link set eth0 down")?;
    wait_for_state(&bed, GREEN, "silent")?;
    bed.answered("red", service::WEB, &["red", "blue"], 40)?;
    // Its addresses of IPv6 have gone with it.
    bed.lab().on("green", "addr flush dev eth0")?;
    bed.lab().give_addresses(GREEN)?;
    wait_for_state(&bed, GREEN, "ready")?;
    bed.answered("red", service::WEB, &PODS, 30)
}
