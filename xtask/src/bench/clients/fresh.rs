//! Connections that repeat no source address and port, so that none finds what an earlier one left.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt},
};

use super::{Times, connections::ANSWER, stay_on_one_cpu};
use crate::lab::{Lab, Pod};

/// Last parts of the addresses that red gets besides its own, all in 10.244.1.0/24.
const MORE: std::ops::Range<u8> = 64..95;
/// The ports it connects from.
const PORTS: std::ops::Range<u16> = 1024..65000;
/// Sources there are: two million.
const ALL: usize = (MORE.end - MORE.start + 1) as usize * (PORTS.end - PORTS.start) as usize;
/// Patience with one answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The sources of one lab that are left.
#[derive(Clone, Copy)]
pub struct Sources {
    used: usize,
}

impl Sources {
    /// Gives red its addresses.
    pub fn add(lab: &Lab) -> Result<Sources> {
        for last in MORE {
            lab.on(Pod::ALL[0].name, &format!("addr add 10.244.1.{last}/24 dev eth0"))?;
        }
        Ok(Sources { used: 0 })
    }

    /// Connects from red for some time.
    pub fn run(&mut self, lab: &Lab, to: SocketAddrV4, time: Duration) -> Result<Times> {
        let mut sources = *self;
        let (sources, times) = lab.within(Pod::ALL[0].name, move || {
            let times = sources.connect(to, time);
            (sources, times)
        })?;
        *self = sources;
        times
    }

    /// The addresses take turns, then the ports.
    fn next(&mut self) -> Result<SocketAddrV4> {
        let address = match self.used % (MORE.len() + 1) {
            0 => 2,
            more => MORE.start + more as u8 - 1,
        };
        let port = PORTS.start as usize + self.used / (MORE.len() + 1);
        if self.used == ALL {
            bail!("all {ALL} sources of red were used once: ask for fewer rounds or shorter ones");
        }
        self.used += 1;
        Ok(SocketAddrV4::new(Ipv4Addr::new(10, 244, 1, address), port as u16))
    }

    fn connect(&mut self, to: SocketAddrV4, time: Duration) -> Result<Times> {
        stay_on_one_cpu()?;
        // Once from each address, so that blue knows where they are.
        for _ in 0..=MORE.len() {
            self.once(to)?;
        }
        let mut times = Vec::with_capacity(1 << 17);
        let start = Instant::now();
        let mut begin = start;
        while begin - start < time {
            self.once(to)?;
            let end = Instant::now();
            times.push(end - begin);
            begin = end;
        }
        Times::of(times, begin - start)
    }

    fn once(&mut self, to: SocketAddrV4) -> Result<()> {
        let mut stream = loop {
            let from = self.next()?;
            match open(from, to) {
                // Taken by something else in red.
                Err(Errno::ADDRINUSE) => (),
                opened => break opened.with_context(|| format!("connecting {from} to {to}"))?,
            }
        };
        stream.write_all(b"a")?;
        let mut byte = [0];
        stream.read_exact(&mut byte).with_context(|| format!("waiting for an answer of {to}"))?;
        if byte != [ANSWER] {
            bail!("an answer of somebody else from {to}");
        }
        Ok(())
    }
}

fn open(from: SocketAddrV4, to: SocketAddrV4) -> rustix::io::Result<TcpStream> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(TIMEOUT))?;
    // A connection attempt ends after this, too.
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(TIMEOUT))?;
    bind(&socket, &from)?;
    connect(&socket, &to)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_source_is_used_twice() {
        let mut sources = Sources { used: 0 };
        let mut seen = HashSet::new();
        for _ in 0..ALL {
            assert!(seen.insert(sources.next().unwrap()));
        }
        assert!(sources.next().is_err());
        assert!(seen.contains(&"10.244.1.2:1024".parse().unwrap()));
        assert!(seen.contains(&"10.244.1.94:64999".parse().unwrap()));
    }
}
