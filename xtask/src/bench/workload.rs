//! What is measured: workloads, their servers in the pod blue and their clients in red.

use std::time::Duration;

use anyhow::Result;

use super::{contestant::Contestant, results::Metric};
use crate::run::checks::iperf3;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// iperf3 with one stream.
    Iperf1,
    /// iperf3 with eight.
    Iperf8,
    /// Connect, a byte each way, close; ports come round again.
    Connections,
    /// The same, each from an address and port that no other had.
    Fresh,
    /// A byte each way, over and over on one connection.
    Requests,
    /// Frames of 64 bytes, counted at the receiver.
    Datagrams,
}

pub const fn metric(place: u32, name: &'static str, unit: &'static str, more: bool) -> Metric {
    Metric { place, name, unit, more }
}

impl Workload {
    /// All of them.
    pub const ALL: [Workload; 6] = [
        Workload::Iperf1,
        Workload::Iperf8,
        Workload::Connections,
        Workload::Fresh,
        Workload::Requests,
        Workload::Datagrams,
    ];

    /// What `--only` looks for.
    pub fn name(self) -> &'static str {
        match self {
            Workload::Iperf1 => "iperf3-1",
            Workload::Iperf8 => "iperf3-8",
            Workload::Connections => "connections",
            Workload::Fresh => "fresh",
            Workload::Requests => "requests",
            Workload::Datagrams => "datagrams",
        }
    }

    /// What it measures, the main thing first.
    pub const fn metrics(self) -> &'static [Metric] {
        match self {
            Workload::Iperf1 => const { &[metric(0, "iperf3, one stream", "Gbit/s", true)] },
            Workload::Iperf8 => const { &[metric(1, "iperf3, eight streams", "Gbit/s", true)] },
            Workload::Connections => {
                const {
                    &[
                        metric(2, "connections", "1/s", true),
                        metric(3, "connection, p50", "us", false),
                        metric(4, "connection, p99", "us", false),
                    ]
                }
            }
            Workload::Fresh => const { &[metric(5, "connections, fresh tuples", "1/s", true)] },
            Workload::Requests => {
                const {
                    &[
                        metric(6, "requests on one connection", "1/s", true),
                        metric(7, "request, p50", "us", false),
                        metric(8, "request, p99", "us", false),
                    ]
                }
            }
            Workload::Datagrams => {
                const {
                    &[
                        metric(9, "64-byte UDP, received", "1/s", true),
                        metric(10, "64-byte UDP, sent", "1/s", true),
                    ]
                }
            }
        }
    }

    /// Measures once.
    pub fn run(self, contestant: &mut Contestant, seconds: u32) -> Result<Vec<(Metric, f64)>> {
        let Contestant { lab, target: to, clients, .. } = contestant;
        let (to, time) = (*to, Duration::from_secs(seconds.into()));
        let values = match self {
            Workload::Iperf1 => vec![iperf3(lab, "red", &to.to_string(), seconds, 1)?],
            Workload::Iperf8 => vec![iperf3(lab, "red", &to.to_string(), seconds, 8)?],
            Workload::Connections => {
                let run = clients.connections(to, time)?;
                vec![run.per_second, run.p50_us, run.p99_us]
            }
            Workload::Fresh => vec![clients.fresh_connections(to, time)?.per_second],
            Workload::Requests => {
                let run = clients.requests(to, time)?;
                vec![run.per_second, run.p50_us, run.p99_us]
            }
            Workload::Datagrams => {
                let run = clients.datagrams(to, time)?;
                vec![run.received_per_second, run.sent_per_second]
            }
        };
        Ok(self.metrics().iter().copied().zip(values).collect())
    }
}
