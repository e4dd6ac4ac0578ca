//! How an instance is.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use lb_common::abi::Counter;
use serde::Serialize;

use super::{
    attached::missing,
    life::Life,
    pressure::{Pressure, pressure},
    snat::{Allocated, allocated},
    view::View,
};
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
    /// Nothing is wrong: an agent runs and is well, its programs are attached, nothing was refused, no map is
    /// nearly full, nor the node's ports used up.
    pub healthy: bool,
    /// The agent's process, if one runs.
    pub agent: Option<u32>,
    /// Lines of its log that were lost: the disk was full, or they were not read in time.
    pub log_lost: u64,
    /// The config it serves.
    pub config: String,
    /// `--forward`.
    pub forward: String,
    /// `tcx` or `clsact`.
    pub attach: String,
    /// Where XDP runs, by uplink: `native` or `generic`; empty where it does not.
    pub xdp: BTreeMap<String, String>,
    /// Whose sockets are translated when they connect: `host`, or `off` and why.
    pub socket_lb: String,
    /// What tells the seed of the choice of backends from other nodes'; not the seed, which is nobody's business.
    pub seed_hash: String,
    /// What is wrong: with the agent, with what is attached, with the config, and what could not be applied.
    pub problems: Vec<String>,
    /// What may go wrong on this host.
    pub warnings: Vec<String>,
    /// What translated traffic passes by.
    pub bypassed: Vec<String>,
    /// Packets by outcome.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// The node's ports that flows to other nodes have; `None`: they have none.
    pub snat: Option<Allocated>,
    /// Maps that refuse soon, and what that means, and backends towards which the node's ports run out.
    pub nearly_full: Vec<String>,
    /// Maps that are full and go on by evicting rows.
    pub evicting: Vec<String>,
    /// How full the maps are.
    pub maps: Vec<Pressure>,
}

/// Reads it all.
pub fn read(pins: &Pins) -> Result<Status> {
    pins.check()?;
    let maps = Maps::open(&pins.maps())?;
    let view = View::read(&pins.view())?.unwrap_or_default();
    let life = Life::read(pins).context("looking for the agent's heartbeat")?;
    let agent = life.agent(view.pid);
    let mut problems = life.problems(pins);
    problems.extend(missing(pins, &view, agent));
    problems.extend(view.problems.iter().cloned());
    let mut outcomes = BTreeMap::new();
    for counter in Counter::ALL {
        let cpus = maps.counters.get(&(*counter as u32), 0)?;
        outcomes.insert(counter.label(), cpus.iter().sum());
    }
    let maps = pressure(pins, &maps, &adopt(&maps))?;
    let snat = allocated(pins, &view)?;
    let nearly_full =
        maps.iter().filter_map(Pressure::warning).chain(snat.as_ref().and_then(Allocated::warning));
    let nearly_full: Vec<String> = nearly_full.collect();
    Ok(Status {
        instance: pins.instance.clone(),
        healthy: agent.is_some() && problems.is_empty() && nearly_full.is_empty(),
        agent,
        log_lost: life.log_lost(),
        config: view.config,
        forward: view.forward,
        attach: view.attach,
        xdp: view.ports.into_iter().filter_map(|port| Some((port.name, port.xdp?))).collect(),
        socket_lb: view.socket_lb,
        seed_hash: view.seed_hash,
        problems,
        warnings: view.warnings,
        bypassed: view.bypassed,
        outcomes,
        snat,
        nearly_full,
        evicting: maps.iter().filter_map(Pressure::note).collect(),
        maps,
    })
}
