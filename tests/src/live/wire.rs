//! The uplink and the wire to it: two devices, each the other's end.

use std::{os::fd::OwnedFd, process::Command};

use anyhow::{Context as _, Result, ensure};
use lb_common::abi::Mac;

use super::{NODE, REMOTE, drops, in_driver, programs::Traffic};
use crate::{
    family::socket,
    state::{BRIDGE, ROUTER, UPLINK, mac_of},
};

/// The other end of the uplink. Frames put into it come in at the uplink; what the uplink sends ends here.
pub struct Wire {
    ifindex: u32,
    name: String,
    end: Option<OwnedFd>,
}

impl Wire {
    /// Brings both up in this namespace, with the way to the backend on another node.
    pub fn new() -> Result<Wire> {
        let (uplink, name) = (format!("case{UPLINK}"), format!("peer{UPLINK}"));
        let (node, router, remote) = (*socket(NODE).ip(), *socket(ROUTER).ip(), *socket(REMOTE).ip());
        ip(&format!("link set {name} addrgenmode none up"))?;
        ip(&format!("link set {uplink} addrgenmode none address {} up", text(mac_of(BRIDGE.at))))?;
        ip(&format!("addr add {node}/24 dev {uplink}"))?;
        ip(&format!("neigh replace {router} lladdr {} dev {uplink} nud permanent", text(mac_of(ROUTER))))?;
        ip(&format!("route add {remote}/32 via {router}"))?;
        let links: serde_json::Value = serde_json::from_str(&ip(&format!("-j link show {name}"))?)?;
        let ifindex = links[0]["ifindex"].as_u64().with_context(|| format!("no {name}: {links}"))? as u32;
        let end = Some(drops(ifindex)?);
        Ok(Wire { ifindex, name, end })
    }

    /// Its interface index.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// How many frames have come out of the uplink so far.
    pub fn ended(&self) -> Result<u64> {
        let links: serde_json::Value = serde_json::from_str(&ip(&format!("-s -j link show {}", self.name))?)?;
        links[0]["stats64"]["rx"]["packets"].as_u64().with_context(|| format!("no count: {links}"))
    }

    /// The last frame that comes out of the uplink while something is done.
    pub fn last(&mut self, traffic: &Traffic, during: impl FnOnce() -> Result<()>) -> Result<Vec<u8>> {
        // A device has one program.
        self.end = None;
        let keeper = in_driver(traffic.keeper()?, self.ifindex)?;
        during()?;
        drop(keeper);
        self.end = Some(drops(self.ifindex)?);
        traffic.kept()
    }
}

/// A MAC as `ip` reads it.
fn text(mac: Mac) -> String {
    let bytes: [u8; 6] = bytemuck::cast(mac);
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

fn ip(arguments: &str) -> Result<String> {
    let output = Command::new("ip").args(arguments.split(' ')).output().context("running ip")?;
    ensure!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8(output.stdout)?)
}
