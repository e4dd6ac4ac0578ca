//! A client outside reaches a load balancer IP through every node, and one of the nodes goes.

use std::{
    collections::BTreeMap,
    io::BufReader,
    net::{SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use socket2::Type;
use xtask::lab::{
    Lab,
    request::{any, ask, get},
};

use crate::{
    Test,
    bed::{TIMEOUT, answer, connect_from},
    nodes::Cluster,
    restart::next_page,
};

pub const ALL: &[Test] = &[
    ("a flow has one backend through whichever node it comes", same_backend),
    ("a node goes: connections through the others go on", goes),
    ("a node goes: its connections go on through another, by DSR", goes_by_dsr),
];

/// The last part of the load balancer IPs that the client reaches through each node, and of that node's address.
const THROUGH: [(u8, u8); 3] = [(1, 11), (2, 12), (3, 13)];
/// One whose way is changed.
const MOVING: u8 = 9;
/// Flows of each kind through each node.
const FLOWS: u16 = 24;
/// New connections and datagrams of each family through each node.
const NEW: u32 = 100;

/// The services, with the backends of these nodes.
fn config(nodes: &[u8]) -> String {
    config_with(nodes, "snat")
}

fn config_with(nodes: &[u8], forwarding: &str) -> String {
    let backends = |node: &u8| {
        [2, 3].map(|host| {
            format!(
                "{{address: 10.244.{node}.{host}, node: node{node}}}, \
                 {{address: \"fd00:244:{node}::{host}\", node: node{node}}}"
            )
        })
    };
    let backends: Vec<String> = nodes.iter().flat_map(backends).collect();
    let last = THROUGH.map(|(last, _)| last).into_iter().chain([MOVING]);
    let ips: Vec<String> = last.map(|last| format!("198.51.100.{last}, \"2001:db8:100::{last}\"")).collect();
    format!(
        "serviceCIDRs: [10.96.0.0/12, \"fd00:96::/112\"]
hashSeed: 7f3a9c01d2e4b586
nodes:
  - {{name: node1, addresses: [192.168.1.11, \"fd00:1::11\"]}}
  - {{name: node2, addresses: [192.168.1.12, \"fd00:1::12\"]}}
  - {{name: node3, addresses: [192.168.1.13, \"fd00:1::13\"]}}
services:
  - name: front
    type: LoadBalancer
    forwarding: {forwarding}
    addresses: [10.96.0.10, \"fd00:96::10\"]
    loadBalancerIPs: [{}]
    ports:
      - {{name: page, port: 80, targetPort: 8080}}
      - {{name: echo, port: 90, targetPort: 9090, protocol: UDP}}
    backends: [{}]
",
        ips.join(", "),
        backends.join(", ")
    )
}

/// A load balancer IP of a family.
fn vip(ipv6: bool, last: u8, port: u16) -> SocketAddr {
    let text =
        if ipv6 { format!("[2001:db8:100::{last}]:{port}") } else { format!("198.51.100.{last}:{port}") };
    text.parse().expect("an address")
}

/// Lets the client reach a load balancer IP through a node.
fn route(lab: &Lab, last: u8, node: u8) -> Result<()> {
    lab.on("client", &format!("route replace 198.51.100.{last}/32 via 192.168.1.{node}"))?;
    lab.on("client", &format!("-6 route replace 2001:db8:100::{last}/128 via fd00:1::{node}"))
}

/// Who answers a client port.
fn backend(lab: &Lab, kind: Type, port: u16, to: SocketAddr) -> Result<String> {
    lab.within("client", move || {
        answer(kind, connect_from(kind, any(to, port), to)?).with_context(|| format!("port {port} to {to}"))
    })?
}

fn same_backend() -> Result<()> {
    let cluster = Cluster::with(&config(&[1, 2, 3]))?;
    let lab = cluster.lab();
    let mut heard = BTreeMap::<String, u32>::new();
    let mut by_port = BTreeMap::new();
    for (_, node) in THROUGH {
        route(lab, MOVING, node)?;
        for (kind, service) in [(Type::STREAM, 80), (Type::DGRAM, 90)] {
            for ipv6 in [false, true] {
                for port in 30_000..30_000 + FLOWS {
                    let name = backend(lab, kind, port, vip(ipv6, MOVING, service))?;
                    let first = by_port.entry((service, ipv6, port)).or_insert_with(|| name.clone());
                    ensure!(
                        *first == name,
                        "port {port} to {} is {first}'s, and through 192.168.1.{node} {name}'s",
                        vip(ipv6, MOVING, service)
                    );
                    *heard.entry(name).or_default() += 1;
                }
            }
        }
    }
    ensure!(heard.len() == 6, "not all backends have been heard: {heard:?}");
    Ok(())
}

/// Connections and datagrams of a client, with who answers each.
struct Flows {
    streams: Vec<(String, BufReader<TcpStream>)>,
    sockets: Vec<(String, UdpSocket)>,
}

impl Flows {
    /// Through a node.
    fn new(lab: &Lab, last: u8) -> Result<Flows> {
        lab.within("client", move || {
            let mut flows = Flows { streams: Vec::new(), sockets: Vec::new() };
            for ipv6 in [false, true] {
                // No port twice: where one backend would get it from two addresses of the service, another is chosen.
                let first = 31_000 + u16::from(last) * FLOWS;
                for port in first..first + FLOWS {
                    let at_port = |kind, to| connect_from(kind, any(to, port), to);
                    let stream = at_port(Type::STREAM, vip(ipv6, last, 80))?;
                    let mut stream = BufReader::new(TcpStream::from(stream));
                    let name = name_of(&next_page(&mut stream)?)?;
                    flows.streams.push((name, stream));
                    let socket = UdpSocket::from(at_port(Type::DGRAM, vip(ipv6, last, 90))?);
                    // The second one shows that the client is real.
                    ask(&socket)?;
                    flows.sockets.push((ask(&socket)?, socket));
                }
            }
            Ok(flows)
        })?
    }

    /// Flows to backends that are left go on with them; datagrams of the others reach one that is left.
    fn go_on(&mut self, gone: &[&str]) -> Result<()> {
        for (name, stream) in self.streams.iter_mut().filter(|(name, _)| !gone.contains(&&**name)) {
            let page = next_page(stream).with_context(|| format!("a connection with {name}"))?;
            ensure!(name_of(&page)? == *name, "{name}'s connection has moved: {page}");
        }
        for (name, socket) in &mut self.sockets {
            let (from, to) = (socket.local_addr()?, socket.peer_addr()?);
            let now = ask(socket)
                .with_context(|| format!("datagrams of {name}'s, {from} to {to}, again {:?}", ask(socket)))?;
            let right = if gone.contains(&&**name) { !gone.contains(&&*now) } else { now == *name };
            ensure!(right, "datagrams of {name}'s reach {now}");
            *name = now;
        }
        Ok(())
    }
}

fn name_of(page: &str) -> Result<String> {
    Ok(page.split_whitespace().next().context("a page without a name")?.to_owned())
}

/// New connections through a node, of which each may take so long: who answered, and how many nobody did.
fn connections(lab: &Lab, last: u8, count: u32, patience: Duration) -> Result<(BTreeMap<String, u32>, u32)> {
    lab.within("client", move || {
        let (mut heard, mut failed) = (BTreeMap::<String, u32>::new(), 0);
        for number in 0..count {
            let to = vip(number % 2 == 1, last, 80);
            let Ok(stream) = TcpStream::connect_timeout(&to, patience) else {
                failed += 1;
                continue;
            };
            stream.set_read_timeout(Some(TIMEOUT))?;
            *heard.entry(get(&stream)?.0).or_default() += 1;
        }
        Ok((heard, failed))
    })?
}

/// The first node's link goes down, then its backends leave the config of the others.
fn goes() -> Result<()> {
    let gone = ["red1", "blue1"];
    let cluster = Cluster::with(&config(&[1, 2, 3]))?;
    let lab = cluster.lab();
    for (last, node) in THROUGH {
        route(lab, last, node)?;
    }
    let left = &THROUGH[1..];
    let mut flows = left.iter().map(|(last, _)| Flows::new(lab, *last)).collect::<Result<Vec<Flows>>>()?;
    let on_gone = |flows: &Flows| flows.streams.iter().filter(|(name, _)| gone.contains(&&**name)).count();
    let before: usize = flows.iter().map(on_gone).sum();
    ensure!(before > 0, "no connection with {gone:?}");

    lab.on("node1", "link set eth0 down")?;
    // Until the others are told, the node's part of new connections finds nobody, and no others'.
    let mut between = 0;
    for (last, _) in left {
        let (heard, failed) = connections(lab, *last, FLOWS.into(), Duration::from_millis(300))?;
        ensure!(heard.len() == 4 || failed > 0, "answered by {heard:?}");
        if let Some(name) = gone.iter().find(|name| heard.contains_key(**name)) {
            bail!("{name} has answered past a link that is down");
        }
        between += failed;
    }
    let most = u32::from(FLOWS) * left.len() as u32;
    ensure!(between > 0 && between < most * 2 / 3, "{between} of {most} new connections found nobody");

    cluster.configure(&config(&[2, 3]), &[1, 2])?;
    for (last, node) in left {
        let (heard, failed) = connections(lab, *last, NEW, TIMEOUT)?;
        ensure!(failed == 0, "{failed} of {NEW} new connections through 192.168.1.{node} failed: {heard:?}");
        let names: Vec<&str> = heard.keys().map(String::as_str).collect();
        ensure!(names == ["blue2", "blue3", "red2", "red3"], "answered by {heard:?}");
        for ipv6 in [false, true] {
            let to = vip(ipv6, *last, 90);
            let heard = xtask::lab::request::echoes(lab, "client", to, NEW)?;
            ensure!(heard.len() == 4, "datagrams to {to} answered by {heard:?}");
        }
    }
    flows.iter_mut().try_for_each(|flows| flows.go_on(&gone))
}

/// Connections that came in by a node which is gone go on through another, each with its backend.
fn goes_by_dsr() -> Result<()> {
    let gone = ["red1", "blue1"];
    let (_, last_node) = THROUGH[2];
    let cluster = Cluster::with(&config_with(&[1, 2, 3], "dsr"))?;
    let lab = cluster.lab();
    for (last, _) in THROUGH {
        route(lab, last, THROUGH[0].1)?;
    }
    let flows = THROUGH.iter().map(|(last, _)| Flows::new(lab, *last)).collect::<Result<Vec<Flows>>>()?;
    lab.on("node1", "link set eth0 down")?;
    cluster.configure(&config_with(&[2, 3], "dsr"), &[1, 2])?;
    for (last, _) in THROUGH {
        route(lab, last, last_node)?;
    }
    let mut all = 0;
    for mut flows in flows {
        all += flows.streams.iter().filter(|(name, _)| !gone.contains(&&**name)).count();
        flows.go_on(&gone)?;
    }
    ensure!(all > 40, "only {all} connections are not {gone:?}'s");
    for (last, _) in THROUGH {
        let (heard, failed) = connections(lab, last, NEW, TIMEOUT)?;
        ensure!(failed == 0 && heard.len() == 4, "{failed} of {NEW} new connections failed: {heard:?}");
    }
    Ok(())
}
