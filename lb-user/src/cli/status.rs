//! `lb status`.

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::Result;

use super::output::{Format, print, table};
use crate::{
    maps::Pins,
    observe::{
        snat::Allocated,
        status::{Status, read},
    },
};

/// Says how an instance is; the code is 1 where something is wrong.
pub fn status(pins: &Pins, format: Format) -> Result<ExitCode> {
    let status = read(pins)?;
    print(format, &status, || text(&status))?;
    Ok(if status.healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn snat(allocated: Option<&Allocated>) -> String {
    match allocated {
        None => "off".to_owned(),
        Some(Allocated { ports, backend: None, .. }) => format!("ports {ports}, none is allocated"),
        Some(Allocated { ports, backend: Some(backend), used, max, pressure }) => {
            let percent = pressure * 100.0;
            format!("ports {ports}, {used} of {max} allocated towards {backend} ({percent:.1}%), the most")
        }
    }
}

fn xdp(modes: &BTreeMap<String, String>) -> String {
    let shown: Vec<String> = modes.iter().map(|(uplink, mode)| format!("{mode} at {uplink}")).collect();
    if shown.is_empty() { "off".to_owned() } else { shown.join(", ") }
}

fn text(status: &Status) -> String {
    let agent = match &status.agent {
        Some(pid) => format!("running, process {pid}"),
        None => "not running; services go on without it, changes are not taken over".to_owned(),
    };
    let mut text = format!(
        "Instance:  {}\nAgent:     {agent}\nConfig:    {}\nForward:   {}, attached by {}\nXDP:       {}\nSockets:   {}\nHash seed: one with the hash {}\nSNAT:      {}\n",
        status.instance,
        status.config,
        status.forward,
        status.attach,
        xdp(&status.xdp),
        status.socket_lb,
        status.seed_hash,
        snat(status.snat.as_ref())
    );
    if status.log_lost > 0 {
        text += &format!("Log:       {} lines lost\n", status.log_lost);
    }
    for (title, lines) in [
        ("Problems", &status.problems),
        ("Nearly full", &status.nearly_full),
        ("Full", &status.evicting),
        ("Warnings", &status.warnings),
        ("Bypassed", &status.bypassed),
    ] {
        if !lines.is_empty() {
            text += &format!("\n{title}:\n");
            text.extend(lines.iter().map(|line| format!("  {line}\n")));
        }
    }
    let pressure = status.maps.iter().map(|map| {
        [map.name.clone(), map.used.to_string(), map.max.to_string(), format!("{:.1}%", map.pressure * 100.0)]
    });
    text += "\n";
    text += &table(["MAP", "USED", "MAX", "PRESSURE"], pressure.collect(), "");
    let outcomes = status.outcomes.iter().filter(|(_, packets)| **packets > 0);
    let outcomes = outcomes.map(|(outcome, packets)| [(*outcome).to_owned(), packets.to_string()]);
    text += "\n";
    text += &table(["OUTCOME", "PACKETS"], outcomes.collect(), "No packets seen.");
    text
}
