//! Flows that are going on.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use lb_common::{
    abi::{FlowKey, FlowRow, FlowState},
    family::Family,
    wire::Protocol,
};
use serde::Serialize;

use super::{
    clock::{hz, now_ticks, tick_shift},
    protocol_name,
    view::View,
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
    /// Who the client is to the backend, `address:port`: this node, where that is on another one.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    pub shown_as: Option<String>,
    /// `TCP` or `UDP`.
    pub protocol: &'static str,
    /// `unanswered`, `established` or `closing`.
    pub state: &'static str,
    /// Seconds since its last packet, to about a second.
    pub idle: u64,
}

/// Every flow whose lifetime is not over.
pub fn flows(maps: &Maps, view: &View) -> Result<Vec<Flow>> {
    let mut all = Vec::new();
    add(&mut all, &maps.v4, view)?;
    add(&mut all, &maps.v6, view)?;
    all.sort_by(|a, b| (&a.frontend, &a.client).cmp(&(&b.frontend, &b.client)));
    Ok(all)
}

fn add<F: Family>(all: &mut Vec<Flow>, side: &Side<F>, view: &View) -> Result<()> {
    let hz = hz();
    let (now, lifetimes) = (now_ticks(hz), view.lifetimes.in_ticks(hz, tick_shift(hz)));
    let unassured = side.unassured.iter().map(|entry| entry.map(|(key, row)| (key, row.row)));
    for entry in side.flows.iter().chain(unassured) {
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
        let show = |addr: F::Addr, port: u16| SocketAddr::new(F::to_ip(addr), u16::from_be(port)).to_string();
        all.push(Flow {
            client: show(key.src, key.src_port),
            frontend: show(key.dst, key.dst_port),
            backend: show(row.addr, row.port),
            shown_as: shown_as(&row, &view.node_addresses),
            protocol: protocol_name(protocol),
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

/// The node's address and port that a flow has, of these addresses, if it has one.
fn shown_as<F: Family>(row: &FlowRow<F>, node: &[IpAddr]) -> Option<String> {
    let none = F::to_ip(F::Addr::default());
    let address = node.iter().copied().find(|address| address.is_ipv6() == F::IPV6).unwrap_or(none);
    row.is_snat().then(|| SocketAddr::new(address, u16::from_be(row.snat_port())).to_string())
}

#[cfg(test)]
mod tests {
    use lb_common::{
        abi::{NextHopKind, flow_bits},
        family::{V4, V6},
    };

    use super::*;

    #[test]
    fn who_the_client_is_to_the_backend() {
        let node: [IpAddr; 2] = ["192.168.1.11", "fd00:1::11"].map(|address| address.parse().expect("IP"));
        let row = |bits| FlowRow::<V4> { bits, mac: [12_345u16.to_be(), 0, 0], ..FlowRow::default() };
        let allocated = row(flow_bits::SNAT | flow_bits::ASSURED | flow_bits::ANSWERED);
        assert_eq!(shown_as(&allocated, &node).as_deref(), Some("192.168.1.11:12345"));
        assert_eq!(
            shown_as(&allocated, &node[1..]).as_deref(),
            Some("0.0.0.0:12345"),
            "its node has no address"
        );
        let allocated6 = FlowRow::<V6> { bits: allocated.bits, mac: allocated.mac, ..FlowRow::default() };
        assert_eq!(shown_as(&allocated6, &node).as_deref(), Some("[fd00:1::11]:12345"));
        // A flow of a bridge's has the client's MAC there, and the reply's row the way back.
        assert_eq!(shown_as(&row(flow_bits::ANSWERED), &node), None);
        let reply = flow_bits::REPLY | (NextHopKind::Uplink as u32) << flow_bits::RETURN_SHIFT;
        assert_eq!(shown_as(&row(reply), &node), None);
    }
}
