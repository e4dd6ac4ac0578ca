//! What a service can say: where it is reached, by whom, by which of its backends, and what becomes of the
//! rest. What `lb explain` says of a config is what the packets then get.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use xtask::lab::{
    Lab,
    request::{self, unconnected},
};

use crate::{
    Test,
    bed::{Bed, NAME, only},
};

pub const ALL: &[Test] = &[
    ("every kind of frontend, from everywhere", frontends),
    ("traffic policies", policies),
    ("nobody there is refused at once", || refused(&[])),
    ("nobody there is refused at once, over the bridge", || refused(&["--forward", "bridge"])),
    ("nobody there is refused at once, through the stack", || refused(&["--forward", "stack"])),
    ("nobody there is refused at once, by clsact filters", || refused(&["--clsact"])),
    ("addresses that no service has", unassigned),
    ("source ranges", source_ranges),
    ("a client keeps its backend", affinity),
    ("a port of the host that a process has", taken),
    ("one client port to two services with one backend", one_tuple),
];

const PODS: [&str; 3] = ["red", "blue", "green"];
/// The lab's hosts, as what they call sees them.
const RED: &str = "10.244.1.2";
const NODE: &str = "192.168.1.11";
const CLIENT: &str = "192.168.1.100";
/// For an answer that does not come.
const SILENCE: Duration = Duration::from_millis(500);

/// A service with every kind of frontend in both families; more of its fields, and its backends.
fn config(fields: &str, backends: &str) -> String {
    format!(
        r#"
node: {{name: node1}}
serviceCIDRs: [10.96.0.0/12, "fd00:96::/112"]
hashSeed: 7f3a9c01d2e4b586
services:
  - name: web
    type: LoadBalancer
    addresses: [10.96.0.10, "fd00:96::10"]
    externalIPs: [203.0.113.10, "2001:db8:113::10"]
    loadBalancerIPs: [198.51.100.10, "2001:db8:100::10"]
    ports: [{{name: page, port: 80, targetPort: 8080, nodePort: 30080}}]
    {fields}
    backends:
{backends}
"#
    )
}

/// The pods of the lab in both families, each with these fields besides.
fn pods(fields: &str) -> String {
    let of = |host| {
        format!(
            "      - {{address: 10.244.1.{host}{fields}}}\n      - {{address: \"fd00:244:1::{host}\"{fields}}}\n"
        )
    };
    (2..5).map(of).collect()
}

/// Where the service is reached: cluster IP, node port, load balancer's and external IP.
fn addresses(ipv6: bool) -> [SocketAddr; 4] {
    let [cluster, node, balanced, external] = match ipv6 {
        false => ["10.96.0.10:80", "192.168.1.11:30080", "198.51.100.10:80", "203.0.113.10:80"],
        true => ["[fd00:96::10]:80", "[fd00:1::11]:30080", "[2001:db8:100::10]:80", "[2001:db8:113::10]:80"],
    };
    [cluster, node, balanced, external].map(at)
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// What `lb explain` says of the config that is served.
fn explained(bed: &Bed, config: &str, from: &str, to: SocketAddr, protocol: &str) -> Result<String> {
    let path = std::env::temp_dir().join(format!("{NAME}-explain-{}.yaml", std::process::id()));
    // What the agent finds on the host, said: `explain` looks at no host.
    let node = "node: {name: node1, addresses: [192.168.1.11, \"fd00:1::11\"], podCIDRs: [10.244.1.0/24, \"fd00:244:1::/64\"]}";
    std::fs::write(&path, config.replace("node: {name: node1}", node))?;
    let (file, to) = (path.display().to_string(), format!("{to}/{protocol}"));
    let text = bed.agent.output(&["explain", "--config", &file, "--from", from, "--to", &to, "-o", "json"]);
    std::fs::remove_file(&path)?;
    let text = text?;
    let value: serde_json::Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    Ok(value["verdict"].as_str().unwrap_or_default().to_owned())
}

fn frontends() -> Result<()> {
    let config = config("", &pods(""));
    let bed = Bed::with(&config, &[], |_| Ok(()))?;
    for (host, from, from6) in
        [("red", RED, "fd00:244:1::2"), ("node", NODE, "fd00:1::11"), ("client", CLIENT, "fd00:1::100")]
    {
        for (ipv6, from) in [(false, from), (true, from6)] {
            for to in addresses(ipv6) {
                only(&bed.pages(host, to, 40)?, &PODS)?;
                ensure!(explained(&bed, &config, from, to, "tcp")? == "forward", "explain {from} to {to}");
            }
        }
    }
    // Whichever way in, the backend sees the client's own address.
    for ipv6 in [false, true] {
        let own: IpAddr = if ipv6 { "fd00:1::100" } else { CLIENT }.parse()?;
        for to in addresses(ipv6) {
            let (_, seen) = bed.lab().within("client", move || request::page(to))??;
            ensure!(seen == own.to_string(), "{to}: the backend sees {seen}, not {own}");
        }
    }
    // A node port that changes is no longer reached, the new one is.
    let moved = config.replace("30080", "30081");
    bed.configure(&moved, "config taken over")?;
    let new = at("192.168.1.11:30081");
    only(&bed.pages("client", new, 40)?, &PODS)?;
    let old = connect(bed.lab(), "client", addresses(false)[1])?;
    ensure!(old == Err(ErrorKind::ConnectionRefused), "the old node port: {old:?}");
    Ok(())
}

/// A connection, or why there is none.
fn connect(lab: &Lab, host: &str, to: SocketAddr) -> Result<Result<(), ErrorKind>> {
    lab.within(host, move || TcpStream::connect_timeout(&to, SILENCE).map(drop).map_err(|error| error.kind()))
}

/// The answer to a datagram, or why there is none.
fn datagram(lab: &Lab, host: &str, to: SocketAddr) -> Result<Result<(), ErrorKind>> {
    lab.within(host, move || -> Result<Result<(), ErrorKind>> {
        let socket = unconnected(to)?;
        socket.set_read_timeout(Some(SILENCE))?;
        let ask = || {
            socket.connect(to)?;
            socket.send(b"anybody?")?;
            socket.recv(&mut [0; 64])
        };
        Ok(ask().map(drop).map_err(|error| error.kind()))
    })?
}

/// How many packets had an outcome.
fn outcome(bed: &Bed, name: &str) -> Result<u64> {
    let status = bed.json(&["status"])?;
    status["outcomes"][name].as_u64().with_context(|| format!("no outcome {name} in {status}"))
}

fn policies() -> Result<()> {
    let bed = Bed::with(&config("", &pods("")), &[], |_| Ok(()))?;
    let [_, node_port, balanced, external] = addresses(false);

    // The policy is Local, and the backends say that they are elsewhere.
    let away = config("externalTrafficPolicy: Local", &pods(", node: node2"));
    bed.configure(&away, "config taken over")?;
    for to in [node_port, balanced, external] {
        let before = outcome(&bed, "no-local-backend")?;
        let silent = connect(bed.lab(), "client", to)?;
        ensure!(silent == Err(ErrorKind::TimedOut), "{to}: {silent:?}");
        ensure!(outcome(&bed, "no-local-backend")? > before, "{to}: not counted");
        ensure!(explained(&bed, &away, CLIENT, to, "tcp")? == "drop", "explain {to}");
        // Pods and the host are not held to it.
        only(&bed.pages("red", to, 40)?, &PODS)?;
        only(&bed.pages("node", to, 40)?, &PODS)?;
    }
    let cluster = addresses(false)[0];
    only(&bed.pages("client", cluster, 40)?, &PODS)?;

    // One of them is here.
    let one_here = config(
        "externalTrafficPolicy: Local",
        &pods(", node: node2").replace("10.244.1.3, node: node2", "10.244.1.3, node: node1"),
    );
    bed.configure(&one_here, "config taken over")?;
    for to in [node_port, balanced, external] {
        only(&bed.pages("client", to, 10)?, &["blue"])?;
        only(&bed.pages("red", to, 40)?, &PODS)?;
    }

    // The internal policy holds for pods, at the cluster IP alone.
    let internal = one_here.replace("externalTrafficPolicy", "internalTrafficPolicy");
    bed.configure(&internal, "config taken over")?;
    only(&bed.pages("red", cluster, 10)?, &["blue"])?;
    only(&bed.pages("node", cluster, 10)?, &["blue"])?;
    only(&bed.pages("client", node_port, 40)?, &PODS)
}

fn refused(options: &[&str]) -> Result<()> {
    let config = config("", "      []")
        + r#"
  - name: page
    addresses: [10.96.0.20, "fd00:96::20"]
    ports: [{port: 80, targetPort: 8080}]
    backends: [{address: 10.244.1.3}, {address: "fd00:244:1::3"}]
"#;
    // Offloads off, so that whoever hears a refusal also checks its sum.
    let bed = Bed::with(&config, options, |lab| {
        ["red", "client"].into_iter().try_for_each(|host| lab.offload(host, "eth0", "tx off"))
    })?;
    for (host, from) in [("red", RED), ("green", "10.244.1.4"), ("client", CLIENT), ("node", NODE)] {
        for to in addresses(false).into_iter().chain(addresses(true)) {
            // A port of a service without a backend; another port of its address, the host's own aside.
            let mut other = to;
            other.set_port(81);
            let own = to.port() == 30080;
            for to in if own { vec![to] } else { vec![to, other] } {
                let tcp = connect(bed.lab(), host, to)?;
                ensure!(tcp == Err(ErrorKind::ConnectionRefused), "{host} to {to}/TCP: {tcp:?}");
                if to.is_ipv4() {
                    ensure!(explained(&bed, &config, from, to, "tcp")? == "reject", "explain {from} to {to}");
                }
            }
            if !own {
                let udp = datagram(bed.lab(), host, to)?;
                ensure!(udp == Err(ErrorKind::ConnectionRefused), "{host} to {to}/UDP: {udp:?}");
            }
        }
    }
    // What is served goes on.
    for to in ["10.96.0.20:80", "[fd00:96::20]:80"] {
        for host in ["red", "client", "node"] {
            only(&bed.pages(host, at(to), 5)?, &["blue"])?;
        }
    }
    Ok(())
}

fn unassigned() -> Result<()> {
    let served = config("", &pods(""));
    let bed = Bed::with(&served, &[], |_| Ok(()))?;
    for host in ["red", "client"] {
        for to in ["10.96.0.99:80", "[fd00:96::99]:80"] {
            let before = outcome(&bed, "unassigned-vip")?;
            let silent = connect(bed.lab(), host, at(to))?;
            ensure!(silent == Err(ErrorKind::TimedOut), "{host} to {to}: {silent:?}");
            ensure!(outcome(&bed, "unassigned-vip")? > before, "{host} to {to}: not counted");
        }
    }
    ensure!(explained(&bed, &served, RED, at("10.96.0.99:80"), "tcp")? == "drop");
    // The ranges change: the address is not ours any more.
    bed.configure(&served.replace("10.96.0.0/12", "10.96.0.0/26"), "config taken over")?;
    let before = outcome(&bed, "unassigned-vip")?;
    let gone = connect(bed.lab(), "red", at("10.96.0.99:80"))?;
    ensure!(gone.is_err(), "nobody has that address");
    ensure!(outcome(&bed, "unassigned-vip")? == before, "it is in none of the ranges now");
    only(&bed.pages("red", addresses(false)[0], 40)?, &PODS)
}

fn source_ranges() -> Result<()> {
    let with =
        |ranges: &str| config(&format!("loadBalancerSourceRanges: [{ranges}, \"fd00:1::/64\"]"), &pods(""));
    let allowed = with("192.168.1.0/24");
    let bed = Bed::with(&allowed, &[], |_| Ok(()))?;
    let [_, node_port, balanced, external] = addresses(false);
    only(&bed.pages("client", balanced, 40)?, &PODS)?;
    only(&bed.pages("client", addresses(true)[2], 40)?, &PODS)?;
    // They hold for pods, too.
    let silent = connect(bed.lab(), "red", balanced)?;
    ensure!(silent == Err(ErrorKind::TimedOut), "red to {balanced}: {silent:?}");
    ensure!(explained(&bed, &allowed, RED, balanced, "tcp")? == "drop");

    let others = with("192.0.2.0/24, 198.18.0.0/15");
    bed.configure(&others, "config taken over")?;
    let before = outcome(&bed, "source-not-allowed")?;
    let silent = connect(bed.lab(), "client", balanced)?;
    ensure!(silent == Err(ErrorKind::TimedOut), "client to {balanced}: {silent:?}");
    ensure!(outcome(&bed, "source-not-allowed")? > before, "not counted");
    // And nowhere else.
    for to in [node_port, external, addresses(false)[0]] {
        only(&bed.pages("client", to, 40)?, &PODS)?;
    }
    Ok(())
}

fn affinity() -> Result<()> {
    let bed =
        Bed::with(&config("sessionAffinity: {clientIP: {timeoutSeconds: 600}}", &pods("")), &[], |_| Ok(()))?;
    for host in ["red", "blue", "green", "client"] {
        for ipv6 in [false, true] {
            // Whichever frontend: it is one service.
            let mut by = request::Answers::new();
            for to in addresses(ipv6) {
                by.extend(bed.pages(host, to, 10)?);
            }
            ensure!(by.len() == 1, "{host}: answered by {by:?}");
        }
    }
    // Without it, connections spread again.
    bed.configure(&config("", &pods("")), "config taken over")?;
    only(&bed.pages("red", addresses(false)[0], 40)?, &PODS)
}

fn taken() -> Result<()> {
    let port = at("192.168.1.11:30080");
    let listener = std::sync::Mutex::new(None);
    let bed = Bed::with(&config("", &pods("")), &[], |lab| {
        *listener.lock().expect("not poisoned") = Some(lab.within("node", move || TcpListener::bind(port))??);
        Ok(())
    })?;
    let said = bed.agent.log()?;
    ensure!(said.contains("192.168.1.11:30080 not served") && said.contains("listens there"), "{said}");
    let status = bed.agent.output(&["status"]);
    ensure!(status.is_err(), "nothing is wrong: {status:?}");
    // The process keeps its port, everything else is served.
    ensure!(connect(bed.lab(), "client", port)? == Ok(()), "the process is not reached");
    only(&bed.pages("client", addresses(false)[2], 40)?, &PODS)?;
    // It ends, and the port is the service's.
    drop(listener.lock().expect("not poisoned").take());
    bed.wait_for("the node port is served", || Ok(bed.agent.output(&["status"]).is_ok()))?;
    only(&bed.pages("client", port, 40)?, &PODS)
}

fn one_tuple() -> Result<()> {
    let two = r#"
services:
  - name: one
    addresses: [10.96.0.21, "fd00:96::21"]
    ports: [{port: 90, targetPort: 9090, protocol: UDP}]
    backends: [{address: 10.244.1.3}, {address: "fd00:244:1::3"}]
  - name: two
    addresses: [10.96.0.22, "fd00:96::22"]
    ports: [{port: 90, targetPort: 9090, protocol: UDP}]
    backends: [{address: 10.244.1.3}, {address: "fd00:244:1::3"}]
"#;
    let bed = Bed::with(two, &[], |_| Ok(()))?;
    for targets in [["10.96.0.21:90", "10.96.0.22:90"], ["[fd00:96::21]:90", "[fd00:96::22]:90"]] {
        let targets = targets.map(at);
        bed.lab().within("red", move || -> Result<()> {
            let socket = unconnected(targets[0])?;
            for round in 0..10 {
                let to = targets[round % 2];
                socket.send_to(b"hello", to)?;
                let (_, sender) = socket.recv_from(&mut [0; 64]).with_context(|| format!("asking {to}"))?;
                ensure!(sender == to, "asked {to}, answered by {sender}");
            }
            Ok(())
        })??;
    }
    Ok(())
}
