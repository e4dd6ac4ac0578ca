//! What the bench makes pods do besides iperf3: connections, with ports that come round again and with
//! sources that never repeat, requests on one connection, small datagrams. Servers are in the pod blue, clients in red.
//!
//! Both ends of connections and requests run on one CPU. Left to the scheduler they sometimes share one
//! and sometimes wake each other across two, which differs by a factor of ten and hides what lies
//! between them.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use anyhow::{Result, bail};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::lab::Lab;

mod connections;
mod datagrams;
mod fresh;
mod requests;

pub use datagrams::Datagrams;

/// Between pods; services must not change the sender's address.
const PODS: datagrams::Ends = datagrams::Ends {
    sender: "red",
    from: Ipv4Addr::new(10, 244, 1, 2),
    receiver: "blue",
    seen: Ipv4Addr::new(10, 244, 1, 2),
};

/// Rate and times of what was done over and over.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// How often, per second.
    pub per_second: f64,
    /// Median time of one, microseconds.
    pub p50_us: f64,
    /// 99th percentile, microseconds.
    pub p99_us: f64,
}

impl Times {
    /// Of the time each took and the time all took.
    fn of(mut times: Vec<Duration>, all: Duration) -> Result<Times> {
        times.sort();
        let Some(last) = times.len().checked_sub(1) else {
            bail!("nothing was done within {all:?}: measure for longer");
        };
        let at = |part: f64| times[(last as f64 * part) as usize].as_secs_f64() * 1e6;
        Ok(Times { per_second: times.len() as f64 / all.as_secs_f64(), p50_us: at(0.5), p99_us: at(0.99) })
    }
}

/// The clients of one lab. Their servers are threads that end with this process.
pub struct Clients {
    lab: Lab,
    fresh: fresh::Sources,
    datagrams: datagrams::Receiver,
}

impl Clients {
    /// Starts the servers and gives red the addresses that it connects from.
    pub fn start(lab: &Lab) -> Result<Clients> {
        connections::serve(lab, "blue")?;
        requests::serve(lab)?;
        let (fresh, datagrams) = (fresh::Sources::add(lab)?, datagrams::serve(lab, PODS)?);
        Ok(Clients { lab: lab.clone(), fresh, datagrams })
    }

    /// Connections one after the other: connect, a byte each way, close. Ports come round again.
    pub fn connections(&self, to: Ipv4Addr, time: Duration) -> Result<Times> {
        connections::run(&self.lab, "red", SocketAddrV4::new(to, connections::PORT), time)
    }

    /// Connections one after the other, each from an address and port that no other had: connect, a
    /// byte each way, close. The server is that of [`Clients::connections`].
    pub fn fresh_connections(&mut self, to: Ipv4Addr, time: Duration) -> Result<Times> {
        self.fresh.run(&self.lab, SocketAddrV4::new(to, connections::PORT), time)
    }

    /// A byte there and one back, over and over on one TCP connection.
    pub fn requests(&self, to: Ipv4Addr, time: Duration) -> Result<Times> {
        requests::run(&self.lab, SocketAddrV4::new(to, requests::PORT), time)
    }

    /// Datagrams in frames of 64 bytes, as many as one thread can send.
    pub fn datagrams(&self, to: Ipv4Addr, time: Duration) -> Result<Datagrams> {
        self.datagrams.run(&self.lab, SocketAddrV4::new(to, datagrams::PORT), time)
    }
}

/// A client outside and a server on another node than the one that it calls.
pub struct Outside {
    lab: Lab,
    datagrams: datagrams::Receiver,
}

impl Outside {
    /// Starts the server on a node, which sees the client with this address.
    pub fn start(lab: &Lab, node: &'static str, seen: Ipv4Addr) -> Result<Outside> {
        const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 100);
        connections::serve(lab, node)?;
        let ends = datagrams::Ends { sender: "client", from: CLIENT, receiver: node, seen };
        Ok(Outside { lab: lab.clone(), datagrams: datagrams::serve(lab, ends)? })
    }

    /// As [`Clients::connections`].
    pub fn connections(&self, to: SocketAddrV4, time: Duration) -> Result<Times> {
        connections::run(&self.lab, "client", to, time)
    }

    /// As [`Clients::datagrams`].
    pub fn datagrams(&self, to: SocketAddrV4, time: Duration) -> Result<Datagrams> {
        self.datagrams.run(&self.lab, to, time)
    }
}

/// Keeps this thread on the first CPU that this process may use.
pub(super) fn stay_on_one_cpu() -> std::io::Result<()> {
    let allowed = sched_getaffinity(None)?;
    let mut one = CpuSet::new();
    if let Some(first) = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)) {
        one.set(first);
        sched_setaffinity(None, &one)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_of_all() {
        let times = (1..=101).rev().map(Duration::from_micros).collect();
        let times = Times::of(times, Duration::from_secs(2)).unwrap();
        assert_eq!(times.per_second, 50.5);
        assert!((times.p50_us - 51.0).abs() < 1e-6 && (times.p99_us - 100.0).abs() < 1e-6, "{times:?}");
        assert!(Times::of(Vec::new(), Duration::from_secs(1)).is_err());
    }
}
