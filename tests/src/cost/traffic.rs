//! The kinds of packets that are told apart, and the rows they meet.

use std::fmt;

use lb_common::{
    abi::{Counter, FlowKey, FlowRow, Lifetimes, flow_bits},
    wire::Protocol,
};
use serde::Serialize;

use crate::{
    family::Net,
    packet::{Wire, first, of},
    state::{BLUE, BRIDGE, RED},
    world::{BACKEND, VIP},
};

/// What happens to a packet.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Nothing: the empty program, with all that measuring costs.
    Empty,
    /// A client's packet of a known flow.
    Established,
    /// A backend's packet of a known flow.
    Reply,
    /// The first packet of a flow whose tuple was never seen.
    NewFlow,
    /// The first packet of a flow on the tuple of one that is over (TCP: finished; UDP: expired).
    PortAgain,
    /// Between two addresses of which neither is ours.
    NoService,
    /// To a service's address, at a port that is none of its.
    NoFrontend,
}

impl Kind {
    /// What is measured on the rows of live flows.
    pub const ON_LIVE: [Kind; 5] =
        [Kind::Established, Kind::Reply, Kind::NewFlow, Kind::NoService, Kind::NoFrontend];

    /// The counters that each packet moves by one.
    pub fn counters(self) -> &'static [Counter] {
        match self {
            Kind::Empty => &[],
            Kind::Established => &[Counter::Request],
            Kind::Reply => &[Counter::Reply],
            Kind::NewFlow | Kind::PortAgain => &[Counter::Request, Counter::NewFlow],
            Kind::NoService => &[Counter::NotOurs],
            Kind::NoFrontend => &[Counter::NoFrontend],
        }
    }

    /// The device its packets arrive on.
    pub fn ifindex(self) -> u32 {
        if self == Kind::Reply { BLUE.ifindex } else { RED.ifindex }
    }

    /// Its packet of a client.
    pub fn packet(self, protocol: Protocol, client: u32) -> Wire {
        let client = address(client);
        match self {
            Kind::Empty | Kind::Established => of(protocol, &client, VIP),
            Kind::Reply => of(protocol, BACKEND, &client),
            Kind::NewFlow | Kind::PortAgain => first(protocol, &client, VIP),
            Kind::NoService => of(protocol, &client, "10.244.1.9:9999"),
            Kind::NoFrontend => first(protocol, &client, "10.96.0.10:81"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Empty => "empty program",
            Kind::Established => "established",
            Kind::Reply => "reply",
            Kind::NewFlow => "new flow",
            Kind::PortAgain => "port used again",
            Kind::NoService => "no service",
            Kind::NoFrontend => "no frontend",
        })
    }
}

/// Clients from this one on have no flow yet.
pub const FRESH: u32 = 1 << 22;

/// A client's `address:port`. Each has its own; 16,384 share an address.
fn address(client: u32) -> String {
    let host = client >> 14;
    format!("10.128.{}.{}:{}", host >> 8 & 0xff, host & 0xff, 20_000 + (client & 0x3fff))
}

/// The keys of a client's two rows.
pub fn keys<F: Net>(protocol: Protocol, client: u32) -> [FlowKey<F>; 2] {
    [Kind::Established, Kind::Reply].map(|kind| kind.packet(protocol, client).key(BRIDGE.zone))
}

/// A flow's row when the flow is over.
pub fn over<F: Net>(protocol: Protocol, row: FlowRow<F>) -> FlowRow<F> {
    match protocol {
        Protocol::Tcp => FlowRow { bits: row.bits | flow_bits::FIN_CLIENT | flow_bits::FIN_BACKEND, ..row },
        _ => FlowRow { seen: row.seen.wrapping_sub(Lifetimes::SECONDS.udp_answered + 1), ..row },
    }
}
