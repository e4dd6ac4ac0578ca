//! Who reaches whom through services, on every kind of network: `docs/networks.md` has the table.

mod cell;
mod page;
mod stated;
mod topology;

use std::{env, fs, path::Path, thread};

use anyhow::{Context as _, Result, bail, ensure};
use lb_tests::node::binary;
use xtask::{lab::Lab, run::Agent};

use self::{
    cell::{Backend, Cell, Client, config},
    stated::{Gives, REFUSED, Refused, stated},
    topology::{NODE, Topology},
};
use crate::{
    Test,
    bed::{Bed, NAME, Up},
};

pub const ALL: &[Test] = &[
    ("networks: a bridge with veths", || calls(Topology::Veths)),
    ("networks: a bridge with taps", || calls(Topology::Taps)),
    ("networks: routed veths, a fixed gateway", || calls(Topology::Routed)),
    ("networks: routed veths, an address of the host's at each", || calls(Topology::Ptp)),
    ("networks: two bridges", || calls(Topology::TwoBridges)),
    ("networks: two uplinks", || calls(Topology::TwoUplinks)),
    ("networks: an uplink alone", || calls(Topology::UplinkAlone)),
    ("networks: what is refused", refused),
    ("networks: the page", page::compare),
];

/// Every cell is as it is stated.
fn calls(topology: Topology) -> Result<()> {
    let cells: Vec<(Cell, Gives)> = Client::ALL
        .into_iter()
        .flat_map(|client| Backend::ALL.into_iter().flat_map(move |backend| Cell::of(client, backend)))
        .map(|cell| (cell, stated(topology, cell)))
        .filter(|(_, gives)| !matches!(gives, Gives::Absent(_)))
        .collect();
    let there = |backend: &Backend| cells.iter().any(|(cell, _)| cell.backend == *backend);
    let backends: Vec<Backend> = Backend::ALL.into_iter().filter(there).collect();
    let config = config(topology, &backends);
    let bed = Bed::at(Topology::lab(), NODE, topology.devices(), &config, &[], |lab| topology.make(lab))?;
    bed.wait_for("backends are reached", || {
        let backends = bed.json(&["get", "backends"])?;
        let rows = backends.as_array().context("no list")?;
        Ok(!rows.is_empty() && rows.iter().all(|row| row["reachedBy"] != "nothing" && row["state"] != "gone"))
    })?;
    let (answered, others): (Vec<_>, Vec<_>) =
        cells.into_iter().partition(|(_, gives)| *gives == Gives::Answer);
    // In one go: each of the others takes as long as a client waits.
    let wrong: Vec<String> = thread::scope(|scope| {
        let lab = bed.lab();
        let waiting: Vec<_> = others
            .into_iter()
            .map(|(cell, gives)| scope.spawn(move || is_without(cell, lab, topology, gives)))
            .collect();
        let mut results: Vec<Result<()>> =
            answered.into_iter().map(|(cell, _)| answers(cell, lab, topology)).collect();
        results.extend(waiting.into_iter().map(|one| one.join().expect("no call panics")));
        results.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect()
    });
    ensure!(
        wrong.is_empty(),
        "{topology:?}: {} cells are not as stated:\n{}\nthe agent's log:\n{}",
        wrong.len(),
        wrong.join("\n"),
        bed.agent.log()?
    );
    Ok(())
}

/// The service answers. Where it does not, whether the backend itself would is said, too.
fn answers(cell: Cell, lab: &Lab, topology: Topology) -> Result<()> {
    cell.call(lab, topology, cell.service()).map_err(|error| {
        let direct = cell.call(lab, topology, cell.direct(topology));
        error.context(match direct {
            Ok(()) => "directly it works".to_owned(),
            Err(direct) => format!("directly it fails, too ({direct:#})"),
        })
    })
}

/// The client has no answer, by the service as little as by the backend's own address.
fn is_without(cell: Cell, lab: &Lab, topology: Topology, gives: Gives) -> Result<()> {
    let (by, direct) = thread::scope(|scope| {
        let by = scope.spawn(|| cell.call(lab, topology, cell.service()));
        let direct = cell.call(lab, topology, cell.direct(topology));
        (by.join().expect("no call panics"), direct)
    });
    match (by, direct) {
        (Err(_), Err(_)) => Ok(()),
        (Ok(()), _) => bail!("{cell:?} is answered, and stated as {gives:?}"),
        (Err(by), Ok(())) => Err(by.context(format!("{cell:?} works directly, and is stated as {gives:?}"))),
    }
}

/// Each of them.
fn refused() -> Result<()> {
    let up = Up::new(Topology::lab())?;
    let path = env::temp_dir().join(format!("{NAME}-{}.yaml", std::process::id()));
    fs::write(&path, config(Topology::Veths, &[Backend::Pod]))?;
    let all = REFUSED.iter().try_for_each(|one| is_refused(&up.0, &path, one));
    fs::remove_file(path).context("removing the config")?;
    all
}

/// The agent says why, and has attached nothing.
fn is_refused(lab: &Lab, config: &Path, one: &Refused) -> Result<()> {
    lab.on(NODE, one.made_by)?;
    let mut agent = Agent::start_at(lab, NODE, one.devices, &binary()?, config, NAME, &[])?;
    let error = agent.wait_ready().err().with_context(|| format!("{} is taken", one.name))?;
    let error = format!("{error:#}");
    ensure!(error.contains(one.says), "{}: {error}", one.name);
    let attached = lab.output(NODE, "bpftool net show")?;
    ensure!(!attached.contains("_ingress"), "{}: something is attached: {attached}", one.name);
    Ok(())
}
