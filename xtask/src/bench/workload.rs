//! What is measured: workloads, their servers in the pod blue and their clients in red.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};

use super::{connections, results::Metric};
use crate::{
    lab::Lab,
    run::{checks::iperf3, quiet},
};

/// Ports of the measured service: name, number, protocol.
pub const PORTS: [(&str, u16, &str); 2] =
    [("iperf3", 5201, "TCP"), ("connections", connections::PORT, "TCP")];

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// iperf3 with one stream.
    Iperf1,
    /// iperf3 with eight.
    Iperf8,
    /// Connect, a byte each way, close; ports come round again.
    Connections,
}

const fn metric(place: u32, name: &'static str, unit: &'static str, more: bool) -> Metric {
    Metric { place, name, unit, more }
}

impl Workload {
    /// All of them.
    pub const ALL: [Workload; 3] = [Workload::Iperf1, Workload::Iperf8, Workload::Connections];

    /// What `--only` looks for.
    pub fn name(self) -> &'static str {
        match self {
            Workload::Iperf1 => "iperf3-1",
            Workload::Iperf8 => "iperf3-8",
            Workload::Connections => "connections",
        }
    }

    /// What it measures, the main thing first.
    pub fn metrics(self) -> &'static [Metric] {
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
        }
    }

    /// Measures once.
    pub fn run(self, lab: &Lab, target: IpAddr, seconds: u32) -> Result<Vec<(Metric, f64)>> {
        let to = |port| SocketAddr::new(target, port);
        let values = match self {
            Workload::Iperf1 => vec![iperf3(lab, "red", &target.to_string(), seconds, 1)?],
            Workload::Iperf8 => vec![iperf3(lab, "red", &target.to_string(), seconds, 8)?],
            Workload::Connections => {
                let run = connections::run(lab, to(connections::PORT), seconds)?;
                vec![run.per_second, run.p50_us, run.p99_us]
            }
        };
        Ok(self.metrics().iter().copied().zip(values).collect())
    }
}

/// Starts the servers of every workload; they end with this process.
pub fn serve(lab: &Lab) -> Result<()> {
    quiet(lab.command("blue", "iperf3")?.arg("-s")).spawn().context("starting iperf3")?;
    connections::serve(lab)
}
