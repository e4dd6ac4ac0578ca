//! Clients on the host itself: their sockets are translated, not their packets.

use std::{
    io::{self, BufReader, ErrorKind},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    maps::MapInfo,
    programs::{ProgramInfo, loaded_programs},
};
use lb_user::maps::Pins;
use rustix::process::Signal;
use serde_json::Value;
use xtask::lab::{
    Pod,
    request::{self, unconnected},
};

use crate::{
    Test,
    bed::{Bed, CONFIG, NAME, only, service, vip},
    restart::next_page,
};

pub const ALL: &[Test] = &[
    ("the host's sockets reach services", next_hop),
    ("the host is refused at once", refused),
    ("a backend goes: the host's UDP sockets move", backend_goes),
    ("sockets of other networks are left alone", others),
    ("pods' sockets are translated where that is asked for", pods),
    ("a pod's socket whose backend depends on its address is left alone", pods_by_address),
    ("a pod that is plugged in is served at its sockets", plugged_in),
    ("a backend goes: pods' UDP sockets move", backend_of_pods_goes),
    ("pods' sockets are let go", pods_let_go),
    ("sockets are let go", let_go),
];

/// A service that has no backend.
const EMPTY: &str = "\n  - name: empty\n    addresses: [10.96.0.30, \"fd00:96::30\"]\n    ports: [{name: page, port: 80}, {name: echo, port: 90, protocol: UDP}]\n    backends: []\n";

const PODS: [&str; 3] = ["red", "blue", "green"];

fn next_hop() -> Result<()> {
    let bed = Bed::new(&[])?;
    // Each page says whether its connection is with the service by name.
    bed.answered("node", service::WEB, &PODS, 40)?;
    bed.answered("node", service::BLUE, &["blue"], 3)?;
    only(&bed.pages("node", vip(false, service::NODE, 443), 3)?, &["node"])?;
    for ipv6 in [false, true] {
        let to = vip(ipv6, service::WEB, 90);
        bed.lab().within("node", move || one_backend(to))?.with_context(|| format!("datagrams to {to}"))?;
    }
    // A socket that can do both, as most programs have.
    let mapped = SocketAddr::new(Ipv4Addr::new(10, 96, 0, 10).to_ipv6_mapped().into(), 80);
    only(&bed.pages("node", mapped, 40)?, &PODS)?;
    let to = SocketAddr::new(mapped.ip(), 90);
    bed.lab().within("node", move || one_backend(to))?.context("datagrams to a mapped address")
}

/// One datagram there and back on a socket that is not connected: who answered, under the name called.
fn ask(socket: &UdpSocket, to: SocketAddr) -> Result<String> {
    socket.send_to(b"hello", to)?;
    let mut buffer = [0; 256];
    let (len, from) = socket.recv_from(&mut buffer)?;
    ensure!(from == to, "asked {to}, answered by {from}");
    let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}

/// A socket that is not connected stays with one backend.
fn one_backend(to: SocketAddr) -> Result<()> {
    let socket = unconnected(to)?;
    let first = ask(&socket, to)?;
    for _ in 0..20 {
        let next = ask(&socket, to)?;
        ensure!(next == first, "moved from {first} to {next}");
    }
    Ok(())
}

fn refused() -> Result<()> {
    let bed = Bed::with(&(CONFIG.to_owned() + EMPTY), &[], |_| Ok(()))?;
    for ipv6 in [false, true] {
        let (page, echo) = (vip(ipv6, 0x30, 80), vip(ipv6, 0x30, 90));
        let (no_port, unassigned) = (vip(ipv6, service::WEB, 81), vip(ipv6, 0x77, 80));
        bed.lab().within("node", move || -> Result<()> {
            let refused = ErrorKind::ConnectionRefused;
            for (to, expected) in
                [(page, refused), (no_port, refused), (unassigned, ErrorKind::HostUnreachable)]
            {
                let start = Instant::now();
                let error = TcpStream::connect_timeout(&to, Duration::from_secs(5)).err();
                let kind = error.as_ref().map(io::Error::kind);
                ensure!(kind == Some(expected), "{to}: {error:?}");
                ensure!(start.elapsed() < Duration::from_secs(1), "{to}: after {:?}", start.elapsed());
            }
            let socket = unconnected(echo)?;
            for done in [socket.send_to(b"hello", echo).map(drop), socket.connect(echo)] {
                let kind = done.as_ref().map_err(io::Error::kind);
                ensure!(kind == Err(refused), "{echo}: {done:?}");
            }
            Ok(())
        })??;
    }
    Ok(())
}

/// A TCP connection stays with a backend that was removed. UDP moves: by itself where the socket is not
/// connected; where it is, the application hears of it once and connects anew.
fn backend_goes() -> Result<()> {
    let bed = Bed::new(&[])?;
    let without = |pods: [&str; 2]| {
        pods.iter().fold(CONFIG.to_owned(), |config, pod| {
            config.replacen(&format!("      - {{address: {pod}}}\n"), "", 1)
        })
    };
    bed.configure(&without(["10.244.1.2", "10.244.1.4"]), "10.96.0.10:90: 1 of 1")?;
    let (page, echo) = (vip(false, service::WEB, 80), vip(false, service::WEB, 90));
    let (mut stream, connected, free, direct) = bed.lab().within("node", move || -> Result<_> {
        let (connected, free, direct) = (unconnected(echo)?, unconnected(echo)?, unconnected(echo)?);
        connected.connect(echo)?;
        direct.connect("10.244.1.3:9090")?;
        Ok((BufReader::new(TcpStream::connect(page)?), connected, free, direct))
    })??;
    ensure!(next_page(&mut stream)?.starts_with("blue "), "a page not of blue");
    ensure!(request::ask(&connected)? == "blue" && ask(&free, echo)? == "blue", "an echo not of blue");
    ensure!(request::ask(&direct)? == "blue", "not blue itself");

    bed.configure(&without(["10.244.1.2", "10.244.1.3"]), "1 connected UDP sockets of the host ended")?;
    ensure!(ask(&free, echo)? == "green", "a socket that is not connected has not moved");
    let error = connected.recv(&mut [0; 16]).err();
    let kind = error.as_ref().map(io::Error::kind);
    ensure!(kind == Some(ErrorKind::ConnectionAborted), "a connected socket heard {error:?}");
    connected.connect(echo)?;
    ensure!(request::ask(&connected)? == "green", "connected anew, but not to green");
    ensure!(request::ask(&direct)? == "blue", "a socket that is no client of the service was ended");
    ensure!(next_page(&mut stream)?.starts_with("blue "), "the TCP connection has moved");
    Ok(())
}

/// All networks of a lab share the root of the cgroups.
fn others() -> Result<()> {
    let bed = Bed::new(&[])?;
    bed.lab().on("client", "addr add 10.96.0.10/32 dev lo")?;
    let to = vip(false, service::WEB, 80);
    bed.lab().within("client", move || -> Result<()> {
        let own = TcpListener::bind(to)?;
        let stream = TcpStream::connect_timeout(&to, Duration::from_secs(3))?;
        ensure!(own.accept()?.1 == stream.local_addr()?, "not its own server");
        Ok(())
    })?
}

const ALL_SOCKETS: [&str; 2] = ["--socket-lb", "all"];

/// How often a call or a packet ended so.
fn outcome(bed: &Bed, name: &str) -> Result<u64> {
    bed.json(&["status"])?["outcomes"][name].as_u64().with_context(|| format!("no outcome {name}"))
}

/// What `client` does from then on is translated at its sockets.
fn wait_for_pod(bed: &Bed, client: &str) -> Result<()> {
    let to = vip(false, service::WEB, 80);
    bed.wait_for(&format!("the sockets of {client} are translated"), || {
        let before = outcome(bed, "socket-connected")?;
        bed.pages(client, to, 1)?;
        Ok(outcome(bed, "socket-connected")? == before + 1)
    })
}

fn pods() -> Result<()> {
    let bed = Bed::new(&ALL_SOCKETS)?;
    ensure!(bed.agent.output(&["status"])?.contains("Sockets:   all"), "the status does not say so");
    for pod in PODS {
        wait_for_pod(&bed, pod)?;
    }
    let (packets, connected) = (outcome(&bed, "request")?, outcome(&bed, "socket-connected")?);
    bed.answered("red", service::WEB, &PODS, 40)?;
    bed.answered("red", service::SELF, &["red"], 3)?;
    bed.answered("blue", service::WEB, &PODS, 40)?;
    for ipv6 in [false, true] {
        let to = vip(ipv6, service::WEB, 90);
        bed.lab().within("red", move || one_backend(to))?.with_context(|| format!("datagrams to {to}"))?;
    }
    let (now, calls) = (outcome(&bed, "request")?, outcome(&bed, "socket-connected")? - connected);
    ensure!(now == packets, "{} packets were translated", now - packets);
    ensure!(calls == 4 * (40 + 3 + 40), "{calls} sockets were");

    // It is on no bridge of ours.
    bed.answered("client", service::WEB, &PODS, 40)?;
    ensure!(outcome(&bed, "request")? > now, "the client's packets are not translated");
    ensure!(outcome(&bed, "socket-connected")? == connected + calls, "the client's sockets are");
    Ok(())
}

/// A service that keeps its clients.
const KEEPING: &str = "\n  - name: keeping\n    addresses: [10.96.0.31, \"fd00:96::31\"]\n    sessionAffinity: ClientIP\n    ports: [{name: page, port: 80, targetPort: 8080}, {name: echo, port: 90, targetPort: 9090, protocol: UDP}]\n    backends: [{address: 10.244.1.2}, {address: 10.244.1.3}, {address: 10.244.1.4}, {address: \"fd00:244:1::2\"}, {address: \"fd00:244:1::3\"}, {address: \"fd00:244:1::4\"}]\n";

fn pods_by_address() -> Result<()> {
    let bed = Bed::with(&(CONFIG.to_owned() + KEEPING), &ALL_SOCKETS, |_| Ok(()))?;
    wait_for_pod(&bed, "red")?;
    let (packets, connected) = (outcome(&bed, "request")?, outcome(&bed, "socket-connected")?);
    for ipv6 in [false, true] {
        let answers = bed.pages("red", vip(ipv6, 0x31, 80), 10)?;
        ensure!(answers.len() == 1, "the client is not kept: {answers:?}");
        let echo = vip(ipv6, 0x31, 90);
        bed.echoes("red", echo, 3)?;
        bed.lab().within("red", move || one_backend(echo))??;
    }
    ensure!(outcome(&bed, "request")? > packets, "no packet was translated");
    ensure!(outcome(&bed, "socket-connected")? == connected, "sockets were translated");
    Ok(())
}

const PINK: Pod = Pod { name: "pink", network: 1, host: 5 };

/// Twice: namespaces, ports and their ids come and go.
fn plugged_in() -> Result<()> {
    let bed = Bed::new(&ALL_SOCKETS)?;
    for _ in 0..2 {
        bed.lab().add_pod(PINK)?;
        wait_for_pod(&bed, PINK.name)?;
        bed.answered(PINK.name, service::WEB, &PODS, 40)?;
        bed.lab().remove_pod(PINK)?;
    }
    wait_for_pod(&bed, "red")
}

fn backend_of_pods_goes() -> Result<()> {
    let bed = Bed::new(&ALL_SOCKETS)?;
    wait_for_pod(&bed, "red")?;
    let echo = vip(false, service::BLUE, 90);
    let connected = bed.lab().within("red", move || -> Result<_> {
        let socket = unconnected(echo)?;
        socket.connect(echo)?;
        Ok(socket)
    })??;
    ensure!(request::ask(&connected)? == "blue", "an echo not of blue");
    let config = CONFIG.replace(
        "[{address: 10.244.1.3}, {address: \"fd00:244:1::3\"}]",
        "[{address: 10.244.1.4}, {address: \"fd00:244:1::4\"}]",
    );
    bed.configure(&config, "1 connected UDP sockets of the host ended")?;
    let error = connected.recv(&mut [0; 16]).err();
    let kind = error.as_ref().map(io::Error::kind);
    ensure!(kind == Some(ErrorKind::ConnectionAborted), "a connected socket heard {error:?}");
    connected.connect(echo)?;
    ensure!(request::ask(&connected)? == "green", "connected anew, but not to green");
    Ok(())
}

fn pods_let_go() -> Result<()> {
    let mut bed = Bed::new(&ALL_SOCKETS)?;
    wait_for_pod(&bed, "red")?;
    let connected = outcome(&bed, "socket-connected")?;
    bed.agent.signal(Signal::KILL)?;
    bed.answered("red", service::WEB, &PODS, 40)?;
    // A pod whose packets were translated does not come back to sockets here: a port that it uses again for
    // the backend itself is the tuple of the older flow's replies for as long as that one lives.
    for (mode, from, translated) in
        [("all", "red", true), ("host", "red", false), ("all", "green", true), ("off", "red", false)]
    {
        bed.agent.start_with(&["--socket-lb", mode])?;
        let before = outcome(&bed, "socket-connected")?;
        ensure!(before > connected, "not translated without an agent");
        bed.answered(from, service::WEB, &PODS, 40).context(mode)?;
        let calls = outcome(&bed, "socket-connected")? - before;
        ensure!(calls == if translated { 4 * 40 } else { 0 }, "{mode}: {calls} sockets were translated");
        bed.agent.signal(Signal::TERM)?;
    }
    Ok(())
}

/// The id of a map of the instance's that programs of sockets have.
fn map_of_sockets() -> Result<u32> {
    let map = MapInfo::from_pin(Pins::new(NAME).maps().join("SOCKETS4"))?;
    Ok(map.id())
}

/// How many programs of this kind that have the map are attached to the host's cgroups; the host may have others.
fn attached(map: u32) -> Result<usize> {
    let output =
        Command::new("bpftool").args(["-j", "cgroup", "tree"]).output().context("running bpftool")?;
    let tree: Value = serde_json::from_slice(&output.stdout).context("reading the tree of cgroups")?;
    let programs = tree.as_array().into_iter().flatten().filter_map(|cgroup| cgroup["programs"].as_array());
    let ids: Vec<u64> = programs.flatten().filter_map(|program| program["id"].as_u64()).collect();
    // One that is gone by now is another's.
    let has_map =
        |program: &ProgramInfo| program.map_ids().ok().flatten().is_some_and(|maps| maps.contains(&map));
    let ours: Vec<u64> = loaded_programs()
        .flatten()
        .filter(|program| program.name_as_str() == Some("cgroup_connect4") && has_map(program))
        .map(|program| program.id().into())
        .collect();
    Ok(ids.iter().filter(|id| ours.contains(id)).count())
}

fn let_go() -> Result<()> {
    let mut bed = Bed::new(&[])?;
    let map = map_of_sockets()?;
    ensure!(attached(map)? == 1, "not attached");
    let to = vip(false, service::WEB, 80);
    bed.agent.signal(Signal::KILL)?;
    only(&bed.pages("node", to, 40)?, &PODS).context("without an agent")?;
    bed.agent.start_again()?;
    ensure!(attached(map)? == 1, "adopted, so attached once");
    only(&bed.pages("node", to, 40)?, &PODS).context("after a restart")?;

    bed.agent.signal(Signal::TERM)?;
    bed.agent.start_with(&["--socket-lb", "off"])?;
    ensure!(attached(map)? == 0, "attached although it is off");
    ensure!(bed.agent.output(&["status"])?.contains("Sockets:   off"), "the status does not say so");

    bed.agent.signal(Signal::TERM)?;
    bed.agent.start_with(&[])?;
    ensure!(attached(map)? == 1, "not attached again");
    bed.agent.signal(Signal::TERM)?;
    let said = bed.agent.output(&["uninstall", "--all"])?;
    ensure!(said.contains("cgroup-connect4 of the host's sockets removed"), "{said}");
    ensure!(attached(map)? == 0, "left attached");
    ensure!(!Path::new("/sys/fs/bpf/lb").join(NAME).exists(), "pins are left");
    Ok(())
}
