//! What the agent writes down for the command line: the names behind the numbers in the maps.

use std::{fs, io, net::IpAddr, path::Path};

use lb_common::abi::Lifetimes;
use serde::{Deserialize, Serialize};

use crate::{
    files::{self, Sync},
    model::PortRange,
};

/// The agent's view of its instance, as a JSON file that is replaced whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// Process id of the agent that wrote it.
    pub pid: u32,
    /// Version of that agent.
    pub version: String,
    /// Seconds since the epoch when it started.
    pub started: u64,
    /// The config it serves.
    pub config: String,
    /// `--forward`.
    pub forward: String,
    /// What tells its hash seed from others; not the seed.
    #[serde(default)]
    pub seed_hash: String,
    /// How programs are attached: `tcx` or `clsact`.
    pub attach: String,
    /// Whose sockets are translated when they connect: `host`, or `off` and why.
    #[serde(default)]
    pub socket_lb: String,
    /// The kernel's number for a map of its programs, by which they are found even if their pins are gone.
    #[serde(default)]
    pub map: u32,
    /// Length of a tick of flow times, in milliseconds.
    pub tick_ms: u32,
    /// How long flows are kept without a packet, in seconds.
    #[serde(default, with = "LifetimesView")]
    pub lifetimes: Lifetimes,
    /// Ports that the node allocates to flows to other nodes, if any.
    #[serde(default)]
    pub snat_ports: Option<PortRange>,
    /// The node's address of each family that it has one of: who such flows' clients are to their backends.
    #[serde(default)]
    pub node_addresses: Vec<IpAddr>,
    /// Devices with programs.
    pub ports: Vec<PortView>,
    /// Services, one row per port and address.
    pub services: Vec<ServiceView>,
    /// What on this host translated traffic passes by.
    pub bypassed: Vec<String>,
    /// What may go wrong on this host.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// What is wrong now: skipped objects, changes that could not be applied.
    pub problems: Vec<String>,
}

/// How lifetimes are written down.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Lifetimes", rename_all = "camelCase")]
struct LifetimesView {
    tcp_established: u32,
    tcp_closing: u32,
    tcp_unanswered: u32,
    udp_answered: u32,
    udp_unanswered: u32,
    sctp: u32,
}

/// A device with programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortView {
    /// Name of the device.
    pub name: String,
    /// Its interface index.
    pub ifindex: u32,
    /// The bridge it belongs to, empty for uplinks.
    pub bridge: String,
    /// `pod`, `vm`, `uplink` or `bridge`.
    pub role: String,
    /// How clients and backends behind it are reached: `peer`, `bridge`, `stack`, `uplink`.
    pub forward: String,
    /// The hooks that are attached, e.g. `port-ingress`.
    pub hooks: Vec<String>,
    /// Where XDP runs, if it does: `native` or `generic`.
    #[serde(default)]
    pub xdp: Option<String>,
}

/// A frontend and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceView {
    /// Row of the map of services (and of its traffic).
    pub id: u32,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Name of the port, empty for an only port.
    pub port_name: String,
    /// `ClusterIP`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Address of the frontend.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// `TCP` or `UDP`.
    pub protocol: String,
    /// Its backends.
    pub backends: Vec<BackendView>,
}

/// A backend as it is configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendView {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its share of new flows.
    pub weight: u16,
    /// `ready`, `draining`, `removed`, or `silent` where its next hop does not answer.
    pub state: String,
    /// The address of its node, which packets from outside go to inside others (DSR).
    #[serde(default)]
    pub node: Option<IpAddr>,
}

impl View {
    /// Reads the view; `None` if no agent has run since boot.
    pub fn read(path: &Path) -> io::Result<Option<View>> {
        match fs::read(path) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the view whole.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        files::replace(path, &serde_json::to_vec(self)?, Sync::Later)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_written_down() {
        let lifetimes = Lifetimes { sctp: 7, ..Lifetimes::SECONDS };
        let mut json = serde_json::to_value(View { lifetimes, ..View::default() }).expect("JSON");
        assert_eq!(json["lifetimes"]["tcpEstablished"], 432_000);
        let read: View = serde_json::from_value(json.clone()).expect("a view");
        assert_eq!(read.lifetimes, lifetimes);
        // Of an agent that could not set them.
        json.as_object_mut().expect("a mapping").remove("lifetimes");
        let read: View = serde_json::from_value(json).expect("a view");
        assert_eq!(read.lifetimes, Lifetimes::SECONDS);
    }
}
