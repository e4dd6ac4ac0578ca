//! A small range of ports for clients outside, used up by connections to one backend on another node.

use std::{
    collections::BTreeSet,
    io::BufReader,
    net::{SocketAddr, TcpStream},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::{Test, nodes::Cluster, restart::next_page};

pub const ALL: &[Test] = &[("nearly all of snatPorts is allocated before a connection is refused", used_up)];

/// Ports of the range. No multiple of the 32 that are tried for a flow.
const PORTS: usize = 300;
const CONFIG: &str = r#"
serviceCIDRs: [10.96.0.0/12, "fd00:96::/112"]
snatPorts: 20000-20299
lifetimes: {tcpClosing: 1s}
services:
  - name: far
    type: NodePort
    addresses: [10.96.0.10, "fd00:96::10"]
    ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
    backends: [{address: 10.244.2.3, node: node2}, {address: "fd00:244:2::3", node: node2}]
"#;
/// What the backend's own namespace calls its port.
const TARGET: &str = ":8080";

fn used_up() -> Result<()> {
    let cluster = Cluster::with(CONFIG)?;
    for (to, node) in [("192.168.1.11:30080", "192.168.1.11"), ("[fd00:1::11]:30080", "fd00:1::11")] {
        of_family(&cluster, to.parse()?, node).with_context(|| format!("connections to {to}"))?;
    }
    Ok(())
}

fn of_family(cluster: &Cluster, to: SocketAddr, node: &str) -> Result<()> {
    let before = refused(cluster)?;
    let mut streams = Vec::new();
    while let Some(stream) = connect(cluster, to, Duration::from_millis(1_500))? {
        streams.push(stream);
        goes_on(streams.last_mut().expect("just pushed"), node)?;
        ensure!(streams.len() <= PORTS, "more connections than ports");
    }
    let let_in = streams.len();
    ensure!(let_in * 10 >= PORTS * 9, "refused when {let_in} of {PORTS} ports were allocated");
    // The first SYN, and the one that was sent again after a second.
    let counted = refused(cluster)? - before;
    ensure!((1..=2).contains(&counted), "{counted} SYNs counted as snat-ports-used-up");

    all_different(cluster, to, node, let_in)?;
    for stream in &mut streams {
        goes_on(stream, node).context("after another was refused")?;
    }

    // One ends: its port is another's when its lifetime is over, and it was the only one that was free.
    drop(streams.swap_remove(let_in / 2));
    sleep(Duration::from_millis(2_500));
    let late = connect(cluster, to, Duration::from_secs(5))?;
    streams.push(late.context("refused though a connection has ended")?);
    for stream in &mut streams {
        goes_on(stream, node).context("after one has ended")?;
    }
    all_different(cluster, to, node, let_in)
}

/// A connection of the client's; `None`: nobody answers.
fn connect(cluster: &Cluster, to: SocketAddr, patience: Duration) -> Result<Option<BufReader<TcpStream>>> {
    let stream = cluster.lab().within("client", move || TcpStream::connect_timeout(&to, patience))?;
    match stream {
        Ok(stream) => {
            stream.set_read_timeout(Some(Duration::from_secs(3)))?;
            Ok(Some(BufReader::new(stream)))
        }
        Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Its backend answers, and sees the node.
fn goes_on(stream: &mut BufReader<TcpStream>, node: &str) -> Result<()> {
    let page = next_page(stream)?;
    ensure!(page.trim() == format!("blue2 {node}"), "a page of {page}");
    Ok(())
}

/// How many packets the first node has refused for want of a port.
fn refused(cluster: &Cluster) -> Result<u64> {
    let status = cluster.json(0, &["status"])?;
    Ok(status["outcomes"]["snat-ports-used-up"].as_u64().unwrap_or(0))
}

/// So many connections, each of another port of the node's: as the node says, and as the backend sees it.
fn all_different(cluster: &Cluster, to: SocketAddr, node: &str, count: usize) -> Result<()> {
    let flows = cluster.json(0, &["get", "flows"])?;
    let flows = flows.as_array().into_iter().flatten();
    let ours = flows.filter(|flow| flow["frontend"] == to.to_string() && flow["state"] == "established");
    let said: Vec<SocketAddr> = ours
        .map(|flow| Ok(flow["as"].as_str().context("a flow without a port of the node's")?.parse()?))
        .collect::<Result<_>>()?;
    let text = cluster.lab().output("blue2", "ss -Htn state established")?;
    let seen: Vec<SocketAddr> = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.len() >= 4 && words[2].ends_with(TARGET))
        .map(|words| words[3].replace("::ffff:", "").replace(['[', ']'], ""))
        .filter_map(|peer| {
            let (address, port) = peer.rsplit_once(':')?;
            Some(SocketAddr::new(address.parse().ok()?, port.parse().ok()?))
        })
        .filter(|peer| peer.is_ipv4() == to.is_ipv4())
        .collect();
    for (who, ports) in [("lb get flows", &said), ("ss at the backend", &seen)] {
        let different: BTreeSet<&SocketAddr> = ports.iter().collect();
        ensure!(
            ports.len() == count && different.len() == count,
            "{who} has {} connections and {} ports, not {count}",
            ports.len(),
            different.len()
        );
        let wrong = |at: &&&SocketAddr| at.ip().to_string() != node || !(20_000..20_300).contains(&at.port());
        ensure!(!different.iter().any(|at| wrong(&at)), "{who}: {ports:?}");
    }
    Ok(())
}
