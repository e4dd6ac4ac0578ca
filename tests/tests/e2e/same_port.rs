//! One port of a client's to a service and to the pod behind it, again and again.

use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Socket, Type};
use xtask::lab::request::get;

use crate::{
    Test,
    bed::{Bed, service, vip},
};

pub const ALL: &[Test] = &[("a port to a service and to its pod, twice", twice)];

const TIMEOUT: Duration = Duration::from_secs(3);

fn twice() -> Result<()> {
    for options in [&[][..], &["--forward", "bridge"]] {
        let bed = Bed::new(options)?;
        for (ipv6, pod) in [(false, "10.244.1.3:8080"), (true, "[fd00:244:1::3]:8080")] {
            let (service, pod) = (vip(ipv6, service::BLUE, 80), pod.parse::<SocketAddr>()?);
            // The second time in the same order, and in the other.
            for (port, rounds) in [
                (41_000, [[service, pod], [service, pod]]),
                (41_001, [[service, pod], [pod, service]]),
                (41_002, [[pod, service], [pod, service]]),
                (41_003, [[pod, service], [service, pod]]),
            ] {
                for (number, pair) in (1..).zip(rounds) {
                    let made = bed.lab().within("red", move || both(port, pair))?;
                    made.with_context(|| format!("{options:?}, port {port}, {pair:?}, time {number}"))?;
                }
            }
        }
    }
    Ok(())
}

/// Two connections at once. The server ends them: the port is free at once.
fn both(port: u16, pair: [SocketAddr; 2]) -> Result<()> {
    let streams = pair.map(|to| from_port(port, to).with_context(|| format!("connecting to {to}")));
    for stream in streams {
        let (name, _) = get(&stream?)?;
        ensure!(name == "blue", "answered by {name}");
    }
    Ok(())
}

fn from_port(port: u16, to: SocketAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], port).into() } else { ([0u16; 8], port).into() };
    socket.bind(&any.into())?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.connect_timeout(&to.into(), TIMEOUT)?;
    Ok(socket.into())
}
