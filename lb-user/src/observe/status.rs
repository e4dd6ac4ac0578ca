//! How an instance is.

use std::collections::BTreeMap;

use anyhow::Result;
use lb_common::abi::Counter;
use serde::Serialize;

use super::{flows, view::View};
use crate::{
    maps::{Maps, Pins},
    plan::adopt,
};

/// See the fields.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Its name.
    pub instance: String,
    /// Nothing is wrong: an agent runs, nothing was refused, no map is nearly full.
    pub healthy: bool,
    /// The agent's process, if one runs.
    pub agent: Option<u32>,
    /// The config it serves.
    pub config: String,
    /// `--forward`.
    pub forward: String,
    /// `tcx` or `clsact`.
    pub attach: String,
    /// Whose sockets are translated when they connect: `host`, or `off` and why.
    pub socket_lb: String,
    /// Seed of the choice of backends.
    pub hash_seed: String,
    /// What is wrong with the config or could not be applied.
    pub problems: Vec<String>,
    /// What translated traffic passes by.
    pub bypassed: Vec<String>,
    /// Packets by outcome.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// How full the maps are.
    pub maps: Vec<Pressure>,
}

/// How full a map is.
#[derive(Clone, Debug, Serialize)]
pub struct Pressure {
    /// What is in it.
    pub name: &'static str,
    /// Rows in use.
    pub used: u32,
    /// Rows.
    pub max: u32,
    /// One by the other.
    pub pressure: f64,
}

/// Above this a map of services is nearly full. Flow tables may be full: they drop the oldest.
const NEARLY_FULL: f64 = 0.9;

/// Reads it all.
pub fn read(pins: &Pins) -> Result<Status> {
    let maps = Maps::open(&pins.maps())?;
    let view = View::read(&pins.view())?.unwrap_or_default();
    let agent = pins.is_locked()?.then_some(view.pid);
    let mut outcomes = BTreeMap::new();
    for counter in Counter::ALL {
        let cpus = maps.counters.get(&(*counter as u32), 0)?;
        outcomes.insert(counter.label(), cpus.iter().sum());
    }
    let mirror = adopt(&maps);
    let used = mirror.used();
    let rows = [
        ("services", used.services, maps.services.len()),
        ("frontends, IPv4", used.frontends[0], maps.v4.max_frontends),
        ("frontends, IPv6", used.frontends[1], maps.v6.max_frontends),
        ("backends, IPv4", used.backends[0], maps.v4.backends.len()),
        ("backends, IPv6", used.backends[1], maps.v6.backends.len()),
        ("slots", used.slots, maps.slots.len()),
    ];
    let full = rows.iter().any(|(_, used, max)| *used as f64 > *max as f64 * NEARLY_FULL);
    let maps = rows
        .into_iter()
        .chain(flows::pressure(&maps))
        .map(|(name, used, max)| Pressure { name, used, max, pressure: used as f64 / max.max(1) as f64 })
        .collect();
    Ok(Status {
        instance: pins.instance.clone(),
        healthy: agent.is_some() && view.problems.is_empty() && !full,
        agent,
        config: view.config,
        forward: view.forward,
        attach: view.attach,
        socket_lb: view.socket_lb,
        hash_seed: view.hash_seed,
        problems: view.problems,
        bypassed: view.bypassed,
        outcomes,
        maps,
    })
}
