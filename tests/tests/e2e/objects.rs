//! Kubernetes' objects as a cluster has them, and ports of the host: what is wrong with one takes no other's traffic.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use xtask::lab::Lab;

use crate::{
    Test,
    bed::{Bed, only},
};

pub const ALL: &[Test] = &[
    ("a cluster IP that is another's external IP", two_owners),
    ("a node port at an address that another names", shared),
    ("node ports of a range of the cluster's own", low_node_port),
    ("a node that is known by its address", known_by_address),
    ("health checks of load balancers", health_checks),
    ("a host port at every local address", host_port),
    ("the host calls a load balancer's address of its own", itself),
];

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A Service and a slice with its endpoints.
fn object(name: &str, year: u32, spec: &str, endpoints: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, creationTimestamp: '{year}-01-01T00:00:00Z'}}
spec: {spec}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{port: 8080}}]
endpoints: [{endpoints}]
"
    )
}

const RED: &str = "{addresses: [010.244.001.2]}";
const BLUE: &str = "{addresses: [10.244.1.3]}, {addresses: [10.244.1.300]}";

/// Only the frontend in question is lost, and comes back when the other one goes.
fn two_owners() -> Result<()> {
    let older =
        object("older", 2020, "{clusterIP: 10.96.0.31, externalIPs: [10.96.0.32], ports: [{port: 80}]}", RED);
    let younger = object("younger", 2024, "{clusterIP: 010.096.0.32, ports: [{port: 80}]}", BLUE);
    let both = format!("{older}{younger}");
    let bed = Bed::with(&both, &[], |_| Ok(()))?;
    let (own, contested) = (at("10.96.0.31:80"), at("10.96.0.32:80"));
    let said = bed.agent.log()?;
    ensure!(
        said.contains("10.96.0.32 port 80/TCP of default/older is not served for it")
            && said.contains("the cluster IP of service default/younger"),
        "{said}"
    );
    for _ in 0..2 {
        for host in ["green", "node", "client"] {
            only(&bed.pages(host, own, 10)?, &["red"])?;
            only(&bed.pages(host, contested, 10)?, &["blue"])?;
        }
        bed.configure(&older, "config taken over")?;
        only(&bed.pages("green", contested, 10)?, &["red"])?;
        bed.configure(&both, "config taken over")?;
    }
    Ok(())
}

/// A load balancer's address that is the node's own, with a port that is another's node port.
fn shared() -> Result<()> {
    let node_port = "{type: NodePort, clusterIP: 10.96.0.31, ports: [{port: 80, nodePort: 30080}]}";
    let balanced = "{type: LoadBalancer, clusterIP: 10.96.0.32, ports: [{port: 30080}]}\n\
                    status: {loadBalancer: {ingress: [{ip: 192.168.1.11}]}}";
    let first = object("zzz", 2020, node_port, RED);
    let both = format!("{first}{}", object("aaa", 2024, balanced, "{addresses: [10.244.1.3]}"));
    let bed = Bed::with(&first, &[], |_| Ok(()))?;
    let port = at("192.168.1.11:30080");
    for _ in 0..2 {
        bed.wait_for("the node port", || {
            Ok(bed.pages("client", port, 5).is_ok_and(|by| only(&by, &["red"]).is_ok()))
        })?;
        bed.configure(&both, "config taken over")?;
        bed.wait_for("the address", || {
            Ok(bed.pages("client", port, 5).is_ok_and(|by| only(&by, &["blue"]).is_ok()))
        })?;
        only(&bed.pages("client", at("10.96.0.31:80"), 5)?, &["red"])?;
        only(&bed.pages("client", at("10.96.0.32:30080"), 5)?, &["blue"])?;
        let said = bed.agent.log()?;
        ensure!(
            said.contains("192.168.1.11:30080 not served for it: it belongs to service default/aaa"),
            "{said}"
        );
        bed.configure(&first, "config taken over")?;
    }
    Ok(())
}

fn low_node_port() -> Result<()> {
    let spec = "{type: NodePort, clusterIP: 10.96.0.31, ports: [{port: 80, nodePort: 3000}]}";
    let bed = Bed::with(&object("web", 2024, spec, RED), &[], |_| Ok(()))?;
    only(&bed.pages("client", at("192.168.1.11:3000"), 10)?, &["red"])?;
    // One among the ports that are allocated to flows: those keep clear of it.
    let spec = spec.replace("3000", "20000");
    bed.configure(&object("web", 2024, &spec, RED), "config taken over")?;
    only(&bed.pages("client", at("192.168.1.11:20000"), 10)?, &["red"])?;
    let status = bed.agent.output(&["status"])?;
    ensure!(status.contains("10000-19999"), "{status}");
    Ok(())
}

fn known_by_address() -> Result<()> {
    let spec = "{type: NodePort, clusterIP: 10.96.0.31, externalTrafficPolicy: Local, ports: [{port: 80, nodePort: 30080}]}";
    let endpoints = "{addresses: [10.244.1.2], nodeName: worker-1}";
    let node = |zone: &str, pods: &str, addresses: &str| {
        format!(
            "---
apiVersion: v1
kind: Node
metadata: {{name: worker-1, labels: {{topology.kubernetes.io/zone: {zone}}}}}
spec: {{podCIDR: {pods}}}
status: {{addresses: [{addresses}]}}
"
        )
    };
    let web = object("web", 2024, spec, endpoints);
    let odd = node(
        "''",
        "10.244.1.0/33",
        "{type: InternalIP, address: 192.168.001.011}, {type: InternalIP, address: none}",
    );
    let bed = Bed::with(&format!("{web}{odd}"), &[], |_| Ok(()))?;
    let port = at("192.168.1.11:30080");
    only(&bed.pages("client", port, 10)?, &["red"])?;
    let warning = "service default/web has a traffic policy Local, but this node is taken for";
    ensure!(!bed.agent.log()?.contains(warning), "warned although the node is known");
    let other = node("a", "10.244.1.0/24", "{type: InternalIP, address: 192.168.1.12}");
    bed.configure(&format!("{web}{other}"), "config taken over")?;
    ensure!(bed.agent.log()?.contains(warning), "no warning");
    let warnings = bed.json(&["status"])?["warnings"].to_string();
    ensure!(warnings.contains(warning), "{warnings}");
    ensure!(bed.pages("client", port, 1).is_err(), "which node this is was guessed");
    Ok(())
}

/// The answer to a health check: its first line, the weight and the body.
fn check(lab: &Lab, host: &str, to: SocketAddr) -> Result<(String, String, serde_json::Value)> {
    let text = lab.within(host, move || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: node\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })??;
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no body: {text}"))?;
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default().to_owned();
    let weight = lines.find_map(|line| line.strip_prefix("x-load-balancing-endpoint-weight: "));
    Ok((status, weight.unwrap_or_default().to_owned(), serde_json::from_str(body)?))
}

fn health_checks() -> Result<()> {
    let config = |port: u16, endpoints: &str| {
        let spec = format!(
            "{{type: LoadBalancer, clusterIP: 10.96.0.31, externalTrafficPolicy: Local, healthCheckNodePort: {port}, \
             ports: [{{port: 80, nodePort: 30080}}]}}"
        );
        format!("node: {{name: node1}}\n{}", object("web", 2024, &spec, endpoints))
    };
    let here = "{addresses: [10.244.1.2], nodeName: node1}, {addresses: [10.244.1.3], nodeName: node1}, \
                {addresses: [10.244.1.4], nodeName: node1, conditions: {ready: false}}, {addresses: [10.244.2.9], \
                nodeName: node2}";
    let there = "{addresses: [10.244.2.9], nodeName: node2}";
    let bed = Bed::with(&config(31_000, here), &[], |_| Ok(()))?;
    let port = at("192.168.1.11:31000");
    let expect = |at: SocketAddr, status: &str, count: u32| -> Result<()> {
        let (line, weight, body) = check(bed.lab(), "client", at)?;
        let expected = serde_json::json!({
            "service": {"namespace": "default", "name": "web"},
            "localEndpoints": count,
            "serviceProxyHealthy": true,
        });
        ensure!(
            line == format!("HTTP/1.1 {status}") && weight == count.to_string() && body == expected,
            "{line}, weight {weight}, {body}"
        );
        Ok(())
    };
    expect(port, "200 OK", 2)?;
    expect(at("[fd00:1::11]:31000"), "200 OK", 2)?;
    bed.configure(&config(31_000, there), "config taken over")?;
    expect(port, "503 Service Unavailable", 0)?;
    // Another port, which a process has.
    let held = at("192.168.1.11:31001");
    let listener = bed.lab().within("node", move || TcpListener::bind(held))??;
    bed.configure(&config(31_001, here), "listens there; stop it, or take another port")?;
    let status = bed.agent.output(&["status"]);
    ensure!(status.is_err(), "nothing is wrong: {status:?}");
    drop(listener);
    bed.wait_for("the port is answered at", || Ok(check(bed.lab(), "client", held).is_ok()))?;
    expect(held, "200 OK", 2)?;
    bed.wait_for("nothing is wrong", || Ok(bed.agent.output(&["status"]).is_ok()))?;
    let refused = || {
        bed.lab().within("client", move || {
            TcpStream::connect_timeout(&port, Duration::from_secs(5)).map(drop).map_err(|error| error.kind())
        })
    };
    bed.wait_for("the old port is closed", || Ok(refused()? == Err(ErrorKind::ConnectionRefused)))
}

fn host_port() -> Result<()> {
    let config = "services: [{name: web, addresses: [10.96.0.31, 'fd00:96::31'], ports: [{port: 80, targetPort: 8080, \
                  hostPort: 8000}], backends: [{address: 10.244.1.2}, {address: 'fd00:244:1::2'}]}]\n";
    let bed = Bed::with(config, &[], |lab| lab.on("node", "addr add 192.168.1.77/24 dev eth0"))?;
    let all = [
        ("client", "192.168.1.11:8000"),
        ("client", "192.168.1.77:8000"),
        ("client", "[fd00:1::11]:8000"),
        ("green", "10.244.1.1:8000"),
        ("green", "192.168.1.11:8000"),
        ("green", "[fd00:244:1::1]:8000"),
        ("red", "10.244.1.1:8000"),
        ("node", "127.0.0.1:8000"),
        ("node", "[::1]:8000"),
        ("node", "192.168.1.77:8000"),
    ];
    for (host, to) in all {
        only(&bed.pages(host, at(to), 5)?, &["red"]).with_context(|| format!("{host} to {to}"))?;
    }
    // Other ports of the host are the host's.
    let other = bed.lab().within("node", || -> std::io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        TcpStream::connect(listener.local_addr()?).map(drop)
    })?;
    ensure!(other.is_ok(), "another port of 127.0.0.1: {other:?}");
    // Addresses come and go.
    bed.lab().on("node", "addr add 192.168.1.78/24 dev eth0")?;
    let to = at("192.168.1.78:8000");
    bed.wait_for("the new address has the port", || Ok(bed.pages("client", to, 5).is_ok()))?;
    only(&bed.pages("client", to, 5)?, &["red"])?;
    bed.lab().on("node", "addr del 192.168.1.78/24 dev eth0")?;
    bed.wait_for("the address is gone", || {
        let services = bed.agent.output(&["get", "services"])?;
        Ok(!services.contains("192.168.1.78"))
    })
}

/// In spite of source ranges that have none of the host's addresses.
fn itself() -> Result<()> {
    let spec = "{type: LoadBalancer, clusterIP: 10.96.0.31, loadBalancerSourceRanges: [198.18.0.0/15], ports: [{port: 80}]}";
    let spec = format!("{spec}\nstatus: {{loadBalancer: {{ingress: [{{ip: 192.168.1.77}}]}}}}");
    let object = object("web", 2024, &spec, RED);
    let bed = Bed::with(&object, &[], |lab| lab.on("node", "addr add 192.168.1.77/24 dev eth0"))?;
    let to = at("192.168.1.77:80");
    only(&bed.pages("node", to, 5)?, &["red"])?;
    for host in ["client", "green"] {
        ensure!(bed.pages(host, to, 1).is_err(), "{host} is in no source range");
    }
    Ok(())
}
