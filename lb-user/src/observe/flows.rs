//! Flows that are going on.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use lb_common::{
    abi::{FlowKey, FlowRow, FlowState, Lifetimes},
    wire::Protocol,
};
use serde::Serialize;

use super::{
    Addresses,
    clock::{hz, now_ticks, tick_shift},
};
use crate::maps::{Maps, Side};

/// One flow, as its client began it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flow {
    /// Client, `address:port`.
    pub client: String,
    /// What it called.
    pub frontend: String,
    /// Who answers.
    pub backend: String,
    /// `TCP` or `UDP`.
    pub protocol: &'static str,
    /// `unanswered`, `established` or `closing`.
    pub state: &'static str,
    /// Seconds since its last packet, to about a second.
    pub idle: u64,
}

/// Every flow whose lifetime, of these in seconds, is not over.
pub fn flows(maps: &Maps, lifetimes: &Lifetimes) -> Result<Vec<Flow>> {
    let mut all = Vec::new();
    add(&mut all, &maps.v4, lifetimes)?;
    add(&mut all, &maps.v6, lifetimes)?;
    all.sort_by(|a, b| (&a.frontend, &a.client).cmp(&(&b.frontend, &b.client)));
    Ok(all)
}

fn add<F: Addresses>(all: &mut Vec<Flow>, side: &Side<F>, lifetimes: &Lifetimes) -> Result<()> {
    let hz = hz();
    let (now, lifetimes) = (now_ticks(hz), lifetimes.in_ticks(hz, tick_shift(hz)));
    let unproven = side.unproven.iter().map(|entry| entry.map(|(key, row)| (key, row.row)));
    for entry in side.flows.iter().chain(unproven) {
        let (key, row): (FlowKey<F>, FlowRow<F>) = match entry {
            Ok(entry) => entry,
            // It has gone since the last step.
            Err(aya::maps::MapError::KeyNotFound) => continue,
            Err(error) => return Err(error).context("reading the flow table"),
        };
        let Some(protocol) = Protocol::from_number(key.protocol as u8) else { continue };
        if row.is_reply() || row.expired(protocol, now, &lifetimes) {
            continue;
        }
        let show = |addr: F::Addr, port: u16| SocketAddr::new(F::ip(addr), u16::from_be(port)).to_string();
        all.push(Flow {
            client: show(key.src, key.src_port),
            frontend: show(key.dst, key.dst_port),
            backend: show(row.addr, row.port),
            protocol: match protocol {
                Protocol::Tcp => "TCP",
                Protocol::Udp => "UDP",
                Protocol::Sctp => "SCTP",
            },
            state: match row.state() {
                FlowState::Unanswered => "unanswered",
                FlowState::Established => "established",
                FlowState::Closing => "closing",
            },
            idle: ((now.wrapping_sub(row.seen) as u64) << tick_shift(hz)) / hz as u64,
        });
    }
    Ok(())
}
