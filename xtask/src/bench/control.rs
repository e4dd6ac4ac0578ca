//! What the control plane costs: loading, one change, memory, the agent at rest and under changes.

use std::{
    fs,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;

use super::{
    contestant::{Up, config_of},
    rules::VIP,
};
use crate::{
    build::workspace,
    lab::{self, Lab, request},
    run::{Agent, ended},
    setup::say,
};

/// One figure, and what it should be at most.
#[derive(Serialize)]
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// Value.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// At most this, if there is a goal.
    pub at_most: Option<f64>,
}

/// Changes of each size, of which the median and the worst are told.
const CHANGES: u32 = 20;
/// Changes a second under which the agent's time is measured.
const BUSY: u32 = 100;

/// Measures everything; 50,000 services unless `quick`.
pub fn measure(lb: &Path, quick: bool) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let sizes: &[u32] = if quick { &[100, 10_000] } else { &[100, 10_000, 50_000] };
    for services in sizes {
        say(&format!("control plane: {services} services"));
        of_size(lb, *services, &mut figures)?;
    }
    say("control plane: a service with 10,000 backends");
    large_service(lb, &mut figures)?;
    Ok(figures)
}

/// An agent in a lab of its own.
struct Bed {
    agent: Agent,
    config: std::path::PathBuf,
    lab: Lab,
    _up: Up,
}

impl Bed {
    fn new(lb: &Path, config: &str, max: u32) -> Result<Bed> {
        let lab = Lab::new("lbbenchc");
        lab.up_anew()?;
        let up = Up(lab.clone());
        lab::serve(&lab)?;
        let path = workspace().join("target/lab/lbbenchc.yaml");
        fs::create_dir_all(workspace().join("target/lab"))?;
        fs::write(&path, config)?;
        let max = max.next_power_of_two().max(16_384).to_string();
        let mut agent = Agent::start(&lab, lb, &path, "lbbenchc", &["--max-services", &max])?;
        agent.wait_ready()?;
        Ok(Bed { agent, config: path, lab, _up: up })
    }

    /// Replaces the config whole.
    fn configure(&self, config: &str) -> Result<()> {
        let new = self.config.with_extension("new");
        fs::write(&new, config)?;
        fs::rename(&new, &self.config).context("replacing the config")
    }

    /// Replaces the config; seconds of reading it, of comparing it with what is served and of
    /// publishing what has changed, as the agent tells them.
    fn change(&self, config: &str) -> Result<[f64; 3]> {
        let before = self.agent.log()?.len();
        self.configure(config)?;
        let start = Instant::now();
        loop {
            let log = self.agent.log()?;
            let new = log.get(before..).unwrap_or_default();
            if let Some(line) = new.lines().find(|line| line.contains("config taken over:")) {
                let time = |name: &str| {
                    let (_, time) = line.split_once(name).context("the agent's log has no times")?;
                    seconds(time.split(',').next().unwrap_or_default())
                };
                return Ok([time("read in ")?, time("compared in ")?, time("published in ")?]);
            }
            if ended() || start.elapsed() > Duration::from_secs(30) {
                bail!("the agent has not read its config:\n{log}");
            }
            sleep(Duration::from_millis(1));
        }
    }

    /// The agent's processor time so far, seconds.
    fn cpu(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.agent.pid()))?;
        // Behind the name in parentheses: the 12th and 13th are user and system time, in ticks.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let field = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
        let ticks = field(11).zip(field(12)).map(|(user, system)| user + system);
        Ok(ticks.context("reading the agent's time")? / rustix::param::clock_ticks_per_second() as f64)
    }

    /// The agent's own memory (RssAnon), MB.
    fn memory(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.agent.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
        Ok(kilobytes.context("reading the agent's memory")? / 1000.0)
    }

    fn end(mut self) -> Result<()> {
        self.agent.end()
    }
}

/// Seconds from a duration as Rust shows it.
fn seconds(text: &str) -> Result<f64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit.trim() {
        "s" => 1.0,
        "ms" => 1e-3,
        "µs" => 1e-6,
        "ns" => 1e-9,
        _ => bail!("{text:?} is no duration"),
    };
    Ok(number.parse::<f64>()? * factor)
}

fn of_size(lb: &Path, services: u32, figures: &mut Vec<Figure>) -> Result<()> {
    let config = config_of(services);
    let mut note = |what: &str, value: f64, unit: &'static str, at_most: Option<f64>| {
        figures.push(Figure { what: format!("{services} services: {what}"), value, unit, at_most });
    };
    let start = Instant::now();
    let bed = Bed::new(lb, &config, services + 1)?;
    note("from nothing to ready, lab included", start.elapsed().as_secs_f64(), "s", None);
    note("agent's processor time until ready", bed.cpu()?, "s", None);
    note("agent's memory", bed.memory()?, "MB", (services == 10_000).then_some(25.0));

    // One more, and without it again.
    let more = config.clone()
        + "  - name: one-more\n    address: 10.96.0.99\n    ports: [{port: 80}]\n    backends: [{address: 10.244.1.3}]\n";
    let mut times = [const { Vec::new() }; 3];
    for round in 0..CHANGES {
        let change = bed.change(if round % 2 == 0 { &more } else { &config })?;
        times.iter_mut().zip(change).for_each(|(times, time)| times.push(time * 1e3));
    }
    let [read, compared, published] = &mut times;
    note("reading the file, median", median(read), "ms", None);
    note("finding the one change in it, median", median(compared), "ms", None);
    note("publishing the one change, median", median(published), "ms", None);
    let worst = published.iter().copied().fold(0.0, f64::max);
    note("publishing the one change, worst", worst, "ms", Some(1.0));

    // From the change of the file to the first request that is answered by the new backend.
    let target = (VIP, 8080).into();
    let mut first = Vec::new();
    let on = |host: u8| {
        config.clone()
            + &format!(
                "  - name: moved\n    address: {VIP}\n    ports: [{{port: 8080}}]\n    backends: [{{address: 10.244.1.{host}}}]\n"
            )
    };
    bed.change(&on(3))?;
    for round in 0..CHANGES {
        let (host, name) = if round % 2 == 0 { (4, "green") } else { (3, "blue") };
        let config = on(host);
        bed.configure(&config)?;
        let start = Instant::now();
        bed.lab.within("red", move || -> Result<()> {
            while request::page(target)?.0 != name {
                if start.elapsed() > Duration::from_secs(30) {
                    bail!("no request was answered by {name}");
                }
            }
            Ok(())
        })??;
        first.push(start.elapsed().as_secs_f64() * 1e3);
    }
    note("file changed to first request that sees it, median", median(&mut first), "ms", None);

    sleep(Duration::from_secs(2));
    let before = bed.cpu()?;
    sleep(Duration::from_secs(5));
    note("agent at rest", (bed.cpu()? - before) / 5.0 * 100.0, "% of a core", Some(0.1));
    if services == 100 {
        let (before, start) = (bed.cpu()?, Instant::now());
        for round in 0..BUSY * 3 {
            bed.configure(if round % 2 == 0 { &more } else { &config })?;
            let next = start + Duration::from_secs(1) / BUSY * (round + 1);
            sleep(next.saturating_duration_since(Instant::now()));
        }
        let used = (bed.cpu()? - before) / start.elapsed().as_secs_f64() * 100.0;
        note("agent under 100 changes of the file a second", used, "% of a core", None);
    }
    bed.end()
}

fn large_service(lb: &Path, figures: &mut Vec<Figure>) -> Result<()> {
    let backends = (0..10_000u32).map(|n| format!("{{address: 10.200.{}.{}}}", n >> 8, n & 0xff));
    let config = format!(
        "services:\n  - name: large\n    address: {VIP}\n    ports: [{{port: 80}}]\n    backends: [{}]\n",
        backends.collect::<Vec<_>>().join(", ")
    );
    let bed = Bed::new(lb, &config, 1)?;
    let fewer = config.replace("{address: 10.200.0.0}, ", "");
    let mut published = Vec::new();
    for round in 0..CHANGES {
        let [_, _, time] = bed.change(if round % 2 == 0 { &fewer } else { &config })?;
        published.push(time * 1e3);
    }
    figures.push(Figure {
        what: "one service with 10,000 backends: publishing a change of one backend, median".to_owned(),
        value: median(&mut published),
        unit: "ms",
        at_most: None,
    });
    bed.end()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The figures as a table.
pub fn table(figures: &[Figure]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(["CONTROL PLANE", "FOUND", "", "AT MOST"]);
    for figure in figures {
        let at_most = figure.at_most.map_or_else(String::new, |most| {
            format!("{most} ({})", if figure.value <= most { "met" } else { "missed" })
        });
        table.add_row([figure.what.as_str(), &format!("{:.2}", figure.value), figure.unit, &at_most]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn durations_as_rust_shows_them() {
        for duration in [1.5e-9f64, 2.25e-6, 0.0031, 2.0] {
            let shown = format!("{:.3?}", std::time::Duration::from_secs_f64(duration));
            let found = seconds(&shown).expect("a duration");
            assert!((found - duration).abs() <= 1e-9, "{shown} was read as {found}");
        }
        assert!(seconds("soon").is_err());
    }
}
