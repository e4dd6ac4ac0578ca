//! Messages of ICMP and ICMPv6 between real stacks: echoes, refusals, routers' errors, path MTU.

mod probe;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use xtask::lab::{Lab, request::connected};

use crate::{
    Test,
    bed::{Bed, CONFIG, service, vip},
    seen::Capture,
};

pub const ALL: &[Test] = &[
    ("icmp: a VIP answers echoes", echoes),
    ("icmp: a closed port of a backend is told at once", refused),
    ("icmp: the node is a hop before a VIP, in its name", hops),
    ("icmp: path MTU: a router before the client", narrow_path),
    ("icmp: path MTU: a bridge narrower than the LAN", narrow_bridge),
    ("icmp: path MTU: a LAN narrower than the bridge", narrow_lan),
];

const TIMEOUT: Duration = Duration::from_secs(3);
/// What is sent each way.
const MEGABYTE: usize = 1 << 20;
/// A service whose backend, blue, has no socket there.
const CLOSED: u16 = 0x13;

fn config() -> String {
    CONFIG.to_owned()
        + r#"
  - name: closed
    addresses: [10.96.0.13, "fd00:96::13"]
    ports: [{port: 90, targetPort: 9999, protocol: UDP}]
    backends: [{address: 10.244.1.3}, {address: "fd00:244:1::3"}]
"#
}

/// Checksums on the wire to the client are as on a real one: finished, and looked at by who gets them.
fn wire(lab: &Lab) -> Result<()> {
    for host in ["client", "node"] {
        lab.offload(host, "eth0", "tx off")?;
    }
    Ok(())
}

fn echoes() -> Result<()> {
    let bed = Bed::with(&config(), &[], wire)?;
    for host in ["red", "client"] {
        for to in [service::WEB, service::BLUE, CLOSED] {
            for ipv6 in [false, true] {
                let to = vip(ipv6, to, 0).ip();
                let answered = bed.lab().within(host, move || probe::echo(to, TIMEOUT))?;
                answered.with_context(|| format!("ping {to} from {host}"))?;
            }
        }
    }
    let unassigned = vip(false, 0x77, 0).ip();
    let answered = bed.lab().within("red", move || probe::echo(unassigned, Duration::from_millis(300)))?;
    ensure!(answered.is_err(), "{unassigned} answers, an address of nobody");
    Ok(())
}

fn refused() -> Result<()> {
    for options in [&[][..], &["--forward", "bridge"], &["--forward", "stack"]] {
        let bed = Bed::with(&config(), options, wire)?;
        for host in ["red", "client"] {
            // Neighbours are known then: to look for one may take a second.
            bed.answered(host, service::BLUE, &["blue"], 1)?;
            for ipv6 in [false, true] {
                let to = vip(ipv6, CLOSED, 90);
                let heard = bed.lab().within(host, move || call(to))?;
                heard.with_context(|| format!("{host} calls {to}, {options:?}"))?;
            }
        }
    }
    Ok(())
}

/// A datagram that is refused.
pub fn call(to: SocketAddr) -> Result<()> {
    let socket = connected(to)?;
    let start = Instant::now();
    socket.send(b"hello")?;
    match socket.recv(&mut [0; 16]) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
        other => bail!("{other:?}, not refused"),
    }
    ensure!(start.elapsed() < Duration::from_secs(1), "refused after {:?}", start.elapsed());
    Ok(())
}

fn hops() -> Result<()> {
    let bed = Bed::with(&config(), &[], wire)?;
    for ipv6 in [false, true] {
        let to = vip(ipv6, CLOSED, 90);
        for limit in [1, 2] {
            let heard = bed.lab().within("client", move || probe::traced(to, limit, TIMEOUT))?;
            let heard = heard.with_context(|| format!("{to} with {limit} hops"))?;
            ensure!(heard == to.ip(), "{to} with {limit} hops: an error from {heard}");
        }
    }
    Ok(())
}

/// `far` is behind `mid`, and `mid` behind the client; between these two only 1,280 bytes pass.
fn far(lab: &Lab) -> Result<()> {
    wire(lab)?;
    for host in ["mid", "far"] {
        lab.add_host(host)?;
    }
    for (host, at, peer, peer_at, net, mtu) in
        [("mid", "eth1", "client", "eth1", 20, 1280), ("far", "eth0", "mid", "eth0", 21, 1500)]
    {
        let namespace = lab.namespace(peer);
        lab.on(
            host,
            &format!("link add {at} mtu {mtu} type veth peer name {peer_at} mtu {mtu} netns {namespace}"),
        )?;
        for (host, device, last) in [(peer, peer_at, 1), (host, at, 2)] {
            lab.on(host, &format!("addr add 172.16.{net}.{last}/24 dev {device}"))?;
            lab.on(host, &format!("addr add fd00:{net}::{last}/64 dev {device} nodad"))?;
            lab.on(host, &format!("link set {device} up"))?;
        }
        lab.on(host, &format!("route add default via 172.16.{net}.1"))?;
        lab.on(host, &format!("-6 route add default via fd00:{net}::1"))?;
        lab.sysctl(peer, "net/ipv4/ip_forward", "1")?;
        lab.sysctl(peer, "net/ipv6/conf/all/forwarding", "1")?;
    }
    lab.on("client", "route add 172.16.21.0/24 via 172.16.20.2")?;
    lab.on("client", "-6 route add fd00:21::/64 via fd00:20::2")
}

fn narrow_path() -> Result<()> {
    for options in [&[][..], &["--forward", "bridge"], &["--forward", "stack"]] {
        let bed = Bed::with(&config(), options, far)?;
        bed.lab().within("blue", serve)??;
        let outside = Capture::start(bed.lab(), "client", "icmp or icmp6")?;
        let inside = Capture::start(bed.lab(), "blue", "icmp or icmp6")?;
        for ipv6 in [false, true] {
            transfer(&bed, "far", vip(ipv6, service::BLUE, 5201)).with_context(|| format!("{options:?}"))?;
        }
        let (outside, inside) = (outside.end()?, inside.end()?);
        for (router, kind) in [("192.168.1.100", "need to frag"), ("fd00:1::100", "packet too big")] {
            let from_router = format!(" {router} > ");
            ensure!(
                inside.contains(&from_router) && inside.contains(kind),
                "{options:?}: the backend heard nothing from {router}:\n{inside}"
            );
        }
        for (side, text, foreign) in [
            ("outside", &outside, ["10.244.", "fd00:244:"]),
            ("at the backend", &inside, ["10.96.", "fd00:96:"]),
        ] {
            let wrong = foreign.iter().chain(&["wrong", "bad cksum"]).find(|words| text.contains(**words));
            ensure!(wrong.is_none(), "{options:?}: {wrong:?} is seen {side}:\n{text}");
        }
    }
    Ok(())
}

/// Takes a megabyte of each client and gives one.
fn serve() -> Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 5201))?;
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut buffer = vec![0; MEGABYTE];
            let _ = stream.read_exact(&mut buffer).and_then(|()| stream.write_all(&buffer));
        }
    });
    Ok(())
}

/// A megabyte there and back.
fn transfer(bed: &Bed, host: &str, to: SocketAddr) -> Result<()> {
    let moved = bed.lab().within(host, move || -> Result<()> {
        let mut stream = TcpStream::connect_timeout(&to, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let sent = vec![0x5a; MEGABYTE];
        stream.write_all(&sent).context("sending")?;
        let mut received = vec![0; MEGABYTE];
        stream.read_exact(&mut received).context("receiving")?;
        ensure!(received == sent, "something else came back");
        Ok(())
    })?;
    moved.with_context(|| format!("a megabyte each way between {host} and {to}"))
}

/// The bridge and its ports take 1,400 bytes, the LAN 1,500.
fn narrow_bridge() -> Result<()> {
    let bed = Bed::with(&config(), &["--forward", "bridge"], |lab| {
        wire(lab)?;
        for pod in ["red", "blue", "green"] {
            lab.on("node", &format!("link set veth-{pod} mtu 1400"))?;
            lab.on(pod, "link set eth0 mtu 1400")?;
        }
        lab.on("node", "link set v-net-0 mtu 1400")
    })?;
    bed.lab().within("blue", serve)??;
    for ipv6 in [false, true] {
        transfer(&bed, "client", vip(ipv6, service::BLUE, 5201))?;
        let to = vip(ipv6, service::BLUE, 90);
        let told = bed.lab().within("client", move || probe::too_big(to, 1500, TIMEOUT))?;
        told.with_context(|| format!("1,500 bytes to {to}"))?;
    }
    Ok(())
}

/// The LAN takes 1,400 bytes, but the client says that it takes segments of 1,500: the backend's, of which a device
/// is to finish the checksums, are returned by its port.
fn narrow_lan() -> Result<()> {
    let bed = Bed::with(&config(), &[], |lab| {
        wire(lab)?;
        for host in ["node", "client"] {
            lab.on(host, "link set eth0 mtu 1400")?;
        }
        lab.on("client", "route change default via 192.168.1.11 advmss 1460")?;
        lab.on("client", "-6 route change default via fd00:1::11 advmss 1440")
    })?;
    bed.lab().within("blue", serve)??;
    let inside = Capture::start(bed.lab(), "blue", "icmp or icmp6")?;
    for ipv6 in [false, true] {
        transfer(&bed, "client", vip(ipv6, service::BLUE, 5201))?;
    }
    let inside = inside.end()?;
    for told in ["mtu 1400", "packet too big"] {
        ensure!(inside.contains(told), "the backend is not told {told:?}:\n{inside}");
    }
    Ok(())
}
