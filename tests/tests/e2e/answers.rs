//! Who answers, how often, and what client and backend see of each other.

use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, Result, ensure};
use socket2::Type;
use xtask::{
    lab::{
        Pod,
        request::{self, Answers},
    },
    run::checks::{Iperf3, iperf3},
};

use crate::{
    Test,
    bed::{Bed, CONFIG, answer, connect_from, service, vip},
};

pub const ALL: &[Test] = &[
    ("6,000 requests by weights", weights),
    ("the VIP is the sender, the client stays itself", senders),
    ("curl and iperf3", tools),
    ("services and flows as JSON", json),
];

const REQUESTS: u16 = 6000;
/// Client ports and the hash seed are given, so the shares are the same in every run.
const FIRST_PORT: u16 = 20_000;

/// Weights 1 and 2: answered within 5 % of a third and two thirds.
fn weights() -> Result<()> {
    let config = CONFIG.to_owned()
        + r#"
  - name: weighted
    addresses: [10.96.0.13, "fd00:96::13"]
    ports: [{name: page, port: 80, targetPort: 8080}, {name: echo, port: 90, targetPort: 9090, protocol: UDP}]
    backends:
      - {address: 10.244.1.2, weight: 1}
      - {address: 10.244.1.3, weight: 2}
      - {address: "fd00:244:1::2", weight: 1}
      - {address: "fd00:244:1::3", weight: 2}
"#;
    let bed = Bed::with(&config, &[], |_| Ok(()))?;
    for ipv6 in [false, true] {
        for (port, kind) in [(80, Type::STREAM), (90, Type::DGRAM)] {
            let to = vip(ipv6, 0x13, port);
            let answers = bed.lab().within("red", move || from_given_ports(to, kind))??;
            for (name, share) in [("red", 1.0), ("blue", 2.0)] {
                let expected = f64::from(REQUESTS) * share / 3.0;
                let found = f64::from(answers.get(name).copied().unwrap_or(0));
                ensure!((found - expected).abs() <= 0.05 * expected, "{to}: {answers:?}");
            }
            ensure!(answers.len() == 2, "{to}: {answers:?}");
        }
    }
    Ok(())
}

fn from_given_ports(to: SocketAddr, kind: Type) -> Result<Answers> {
    let mut answers = Answers::new();
    for port in FIRST_PORT..FIRST_PORT + REQUESTS {
        let name = answer(kind, connect_from(kind, request::any(to, port), to)?)?;
        *answers.entry(name).or_default() += 1;
    }
    Ok(answers)
}

fn senders() -> Result<()> {
    let bed = Bed::new(&[])?;
    let red = Pod::ALL[0];
    for (ipv6, own) in [(false, red.ipv4()), (true, red.ipv6())] {
        // The backend sees the client's own address.
        let to = vip(ipv6, service::BLUE, 80);
        let (name, seen) = bed.lab().within("red", move || request::page(to))??;
        ensure!(name == "blue" && seen == own.to_string(), "{name} saw {seen}, not {own}");
        // Who is chosen for its own call sees the VIP: it would drop a packet from itself.
        let to = vip(ipv6, service::SELF, 80);
        let (name, seen) = bed.lab().within("red", move || request::page(to))??;
        ensure!(name == "red" && seen == to.ip().to_string(), "{name} saw {seen}, not {}", to.ip());
        // A socket that is not connected is told who sent: the VIP.
        let to = vip(ipv6, service::WEB, 90);
        let sender = bed.lab().within("red", move || -> Result<SocketAddr> {
            let socket = request::unconnected(to)?;
            socket.send_to(b"hello", to)?;
            Ok(socket.recv_from(&mut [0; 64])?.1)
        })??;
        ensure!(sender == to, "the answer of {to} came from {sender}");
    }
    Ok(())
}

fn tools() -> Result<()> {
    let bed = Bed::new(&[])?;
    for url in ["http://10.96.0.10/", "http://[fd00:96::10]/"] {
        let text = bed.lab().output("red", &format!("curl -s -S -m 5 -g {url}"))?;
        ensure!(text.contains(' '), "curl {url}: {text}");
    }
    let _server = Iperf3::serve(bed.lab(), "blue")?;
    for to in ["10.96.0.12", "fd00:96::12"] {
        ensure!(iperf3(bed.lab(), "red", to, 1, 4)? > 0.0, "iperf3 through the VIP moved nothing");
    }
    Ok(())
}

/// The shapes that scripts rely on.
fn json() -> Result<()> {
    let bed = Bed::new(&[])?;
    let to = vip(false, service::BLUE, 80);
    let stream = bed.lab().within("red", move || TcpStream::connect(to))??;
    let flows = bed.json(&["get", "flows"])?;
    let client = stream.local_addr()?.to_string();
    let flow = flows.as_array().into_iter().flatten().find(|flow| flow["client"] == client.as_str());
    let flow = flow.with_context(|| format!("no flow of {client} in {flows}"))?;
    for (field, value) in [
        ("frontend", "10.96.0.12:80"),
        ("backend", "10.244.1.3:8080"),
        ("protocol", "TCP"),
        ("state", "established"),
    ] {
        ensure!(flow[field] == value, "{field} in {flow}");
    }
    let services = bed.json(&["get", "services"])?;
    let web = services
        .as_array()
        .into_iter()
        .flatten()
        .find(|row| row["name"] == "web" && row["address"] == "fd00:96::10" && row["protocol"] == "UDP");
    let web = web.with_context(|| format!("no such service in {services}"))?;
    ensure!(web["namespace"] == "default" && web["type"] == "ClusterIP" && web["port"] == 90, "{web}");
    let backend = &web["backends"][0];
    ensure!(
        backend["address"] == "fd00:244:1::2" && backend["port"] == 9090 && backend["weight"] == 1,
        "{backend}"
    );
    ensure!(backend["state"] == "ready", "{backend}");
    Ok(())
}
