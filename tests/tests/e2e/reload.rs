//! The config changes while the agent runs.

use std::{io::BufReader, net::TcpStream};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::lab::request;

use crate::{
    Test,
    bed::{Bed, CONFIG, only, service, vip},
    restart::next_page,
};

pub const ALL: &[Test] = &[
    ("services come and go", come_and_go),
    ("a backend goes: TCP stays, UDP moves", backend_goes),
    ("a broken config changes nothing", broken),
    ("lifetimes of flows", lifetimes),
    ("ports that the node allocates", lent_ports),
    ("a directory with Kubernetes' objects", kubernetes),
];

fn come_and_go() -> Result<()> {
    let bed = Bed::new(&[])?;
    let more = "\n  - name: more\n    address: 10.96.0.20\n    ports: [{port: 80, targetPort: 8080}]\n    backends: [{address: 10.244.1.4}]\n";
    let to = "10.96.0.20:80".parse()?;
    bed.configure(&(CONFIG.to_owned() + more), "service default/more")?;
    only(&bed.pages("red", to, 5)?, &["green"])?;
    // Another target.
    bed.configure(&(CONFIG.to_owned() + &more.replace("10.244.1.4", "10.244.1.3")), "+10.244.1.3:8080")?;
    only(&bed.pages("red", to, 5)?, &["blue"])?;
    bed.configure(CONFIG, "TCP 10.96.0.20:80: removed")?;
    ensure!(bed.pages("red", to, 1).is_err(), "a removed service is served");
    bed.answered("red", service::WEB, &["red", "blue", "green"], 30)
}

/// They hold for the flows that there are, and `lb get flows` goes by them.
fn lifetimes() -> Result<()> {
    let bed = Bed::new(&[])?;
    let listed = || -> Result<usize> {
        let flows = bed.json(&["get", "flows"])?;
        Ok(flows.as_array().into_iter().flatten().filter(|flow| flow["protocol"] == "UDP").count())
    };
    only(&bed.echoes("red", vip(false, service::BLUE, 90), 1)?, &["blue"])?;
    ensure!(listed()? == 1, "not one flow of UDP");
    let short = CONFIG.to_owned() + "lifetimes: {udpAnswered: 1s}\n";
    bed.configure(&short, "loaded anew, as this has changed: lifetimes")?;
    // With the default it would be there for three minutes.
    bed.wait_for("the flow is over", || Ok(listed()? == 0))?;
    bed.answered("red", service::BLUE, &["blue"], 3)
}

/// The range that is stated is the one that programs have, and what is wrong with it on this host is said, once.
fn lent_ports() -> Result<()> {
    let bed = Bed::new(&[])?;
    let status = bed.json(&["status"])?;
    ensure!(status["snat"]["first"] == 10_000 && status["snat"]["max"] == 20_000, "{status}");
    ensure!(status["warnings"] == serde_json::json!([]), "{status}");
    let warned = |of: &[&str]| -> Result<bool> {
        let status = bed.json(&["status"])?;
        let warnings: Vec<&str> =
            status["warnings"].as_array().into_iter().flatten().flat_map(Value::as_str).collect();
        let so = warnings.len() == of.len()
            && warnings.iter().zip(of).all(|(line, start)| line.starts_with(start));
        ensure!(!so || status["healthy"] == true, "a warning is no failure: {status}");
        Ok(so)
    };
    // The kernel's own are 32768 to 60999.
    let shared = CONFIG.to_owned() + "snatPorts: 31000-39999\n";
    bed.configure(&shared, "loaded anew, as this has changed: snatPorts")?;
    let of_ports =
        "snatPorts 31000-39999 and the ports of the host's own connections, 32768-60999, have 32768-39999";
    bed.wait_for("the shared ports are warned of", || warned(&[of_ports]))?;
    let remote = CONFIG.replacen("10.244.1.4", "10.244.2.4", 1) + "node: {addresses: ['fd00:1::11']}\n";
    bed.configure(
        &(remote.clone() + "snatPorts: 31000-39999\n"),
        "as this has changed: the node's addresses",
    )?;
    let of_address =
        "service default/web has the backend 10.244.2.4 on another node, but this node has no IPv4 address";
    bed.wait_for("the missing address is warned of", || warned(&[of_ports, of_address]))?;
    let log = bed.agent.log()?;
    ensure!(log.matches(of_ports).count() == 1 && log.matches(of_address).count() == 1, "{log}");
    bed.configure(&(remote + "snatPorts: none\n"), "as this has changed: snatPorts")?;
    bed.wait_for("nothing is allocated", || warned(&[]))?;
    ensure!(bed.json(&["status"])?["snat"].is_null(), "ports are allocated");
    bed.answered("red", service::BLUE, &["blue"], 3)
}

/// A TCP flow stays with a backend that was removed; a UDP flow goes on with another one.
fn backend_goes() -> Result<()> {
    let bed = Bed::new(&[])?;
    let only_blue = CONFIG.replacen("      - {address: 10.244.1.2}\n", "", 1).replacen(
        "      - {address: 10.244.1.4}\n",
        "",
        1,
    );
    let only_green = CONFIG.replacen("      - {address: 10.244.1.2}\n", "", 1).replacen(
        "      - {address: 10.244.1.3}\n",
        "",
        1,
    );
    bed.configure(&only_blue, "10.96.0.10:90: 1 of 1")?;
    let (page, echo) = (vip(false, service::WEB, 80), vip(false, service::WEB, 90));
    let (mut stream, socket) = bed.lab().within("red", move || -> Result<_> {
        let socket = request::connected(echo)?;
        Ok((BufReader::new(TcpStream::connect(page)?), socket))
    })??;
    ensure!(next_page(&mut stream)?.starts_with("blue ") && request::ask(&socket)? == "blue", "not blue");
    bed.configure(&only_green, "10.96.0.10:90: 1 of 1")?;
    only(&bed.pages("red", page, 5)?, &["green"])?;
    ensure!(request::ask(&socket)? == "green", "the next datagram did not move");
    ensure!(next_page(&mut stream)?.starts_with("blue "), "the connection moved");
    // And back: a row that was removed serves again.
    bed.configure(&only_blue, "10.96.0.10:90: 1 of 1")?;
    ensure!(next_page(&mut stream)?.starts_with("blue "), "the connection moved");
    ensure!(request::ask(&socket)? == "blue", "the datagram after the second change did not move");
    Ok(())
}

fn broken() -> Result<()> {
    let bed = Bed::new(&[])?;
    let before = bed.json(&["get", "services"])?;
    for broken in
        ["services: [{name: web", "servicse: []", "services:\n  - name: web\n    address: 10.96.0.999\n"]
    {
        bed.configure(broken, "config not taken over")?;
        ensure!(before == bed.json(&["get", "services"])?, "{broken:?} changed what is served");
    }
    bed.answered("red", service::BLUE, &["blue"], 3)?;
    bed.configure(&CONFIG.replace("10.96.0.12", "10.96.0.21"), "10.96.0.21:80")?;
    only(&bed.pages("red", "10.96.0.21:80".parse()?, 3)?, &["blue"])
}

/// Service and EndpointSlice as `kubectl get -o yaml` prints them, beside our own format.
fn kubernetes() -> Result<()> {
    let objects = r#"
---
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: prod}
spec:
  clusterIP: 10.96.0.30
  clusterIPs: [10.96.0.30]
  ports: [{name: http, port: 80, protocol: TCP, targetPort: http}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: shop-x1, namespace: prod, labels: {kubernetes.io/service-name: shop}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
  - {addresses: [10.244.1.3], conditions: {ready: true}}
  - {addresses: [10.244.1.4], conditions: {ready: false, serving: true, terminating: true}}
"#;
    let bed = Bed::new(&[])?;
    bed.configure(&(CONFIG.to_owned() + objects), "service prod/shop")?;
    let to = "10.96.0.30:80".parse()?;
    only(&bed.pages("red", to, 10)?, &["blue"])?;
    let services = bed.json(&["get", "services"])?;
    let shop = services.as_array().into_iter().flatten().find(|row| row["name"] == "shop");
    let shop = shop.with_context(|| format!("no shop in {services}"))?;
    ensure!(shop["namespace"] == "prod" && shop["backends"][1]["state"] == "draining", "{shop}");
    // None is ready: who serves while it terminates is better than nobody.
    bed.configure(
        &(CONFIG.to_owned() + &objects.replace("ready: true", "ready: false")),
        "10.244.1.4 ready",
    )?;
    only(&bed.pages("red", to, 10)?, &["green"])
}
