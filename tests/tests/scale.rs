//! 10,000 services: how long the agent takes to serve them, and that one more costs what it costs
//! among a few.

use std::{
    fmt::Write as _,
    io,
    net::IpAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use ipnet::IpNet;
use lb_common::abi::{NextHopKind, NextHopRow};
use lb_tests::node::{Node, cpu_time};
use lb_user::{
    apply::{Rows, apply},
    compile::{NodeFacts, compile},
    maps::Sizes,
    model::{Model, diff},
    plan::{self, Ids, Mirror, Routes, Step, Tuning},
    sources::file,
};

const SERVICES: u32 = 10_000;

/// A config of `count` services with three backends each, all in the bridge's subnet.
fn config(count: u32) -> String {
    let mut text = "services:\n".to_owned();
    for service in 0..count {
        let backends: Vec<String> = (0..3)
            .map(|backend| {
                let host = 0x100 + 3 * service + backend;
                format!("{{address: 10.{}.{}.{}}}", 128 + (host >> 16), host >> 8 & 255, host & 255)
            })
            .collect();
        let (high, low) = (service >> 8, service & 255);
        let backends = backends.join(", ");
        let _ = writeln!(
            text,
            "  - {{name: s{service}, address: 10.96.{high}.{low}, ports: [{{port: 80, targetPort: 8080}}], \
             backends: [{backends}]}}"
        );
    }
    text
}

#[test]
fn ten_thousand_services_are_served_in_two_seconds() -> Result<()> {
    let node = Node::new("lbs-node")?;
    node.write("c.yaml", &config(SERVICES))?;
    let start = Instant::now();
    let mut agent = node.agent_on("--bridge br0", "scale", "c.yaml")?;
    agent.wait_for("ready: 10000 services", 0)?;
    let (wall, cpu) = (start.elapsed(), cpu_time(agent.pid())?);
    println!("{SERVICES} services: ready after {wall:.2?}, {cpu:.2?} of them computing");
    // Of the processor, not by the clock: other tests may keep the machine busy.
    ensure!(cpu < Duration::from_secs(2), "{cpu:?} to serve {SERVICES} services");

    let log = agent.log()?;
    ensure!(log.lines().count() < 50, "a line for each service:\n{log}");
    let (start, before) = (Instant::now(), cpu_time(agent.pid())?);
    node.write("c.yaml", &config(SERVICES + 1))?;
    let said = agent.wait_for("service default/s10000 ", log.len())?;
    let (wall, cpu) = (start.elapsed(), cpu_time(agent.pid())?.saturating_sub(before));
    println!("one more: served after {wall:.2?}, {cpu:.2?} of them computing");
    let services: Vec<&str> = said.lines().filter(|line| line.contains("service default/")).collect();
    ensure!(services.len() == 1, "more than the new service has changed:\n{said}");
    ensure!(services[0].contains("3 of 3 backends take flows"), "{}", services[0]);
    Ok(())
}

/// Counts what is written.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    writes: u64,
    slots: usize,
}

impl Rows for Counted {
    fn write(&mut self, step: &Step) -> io::Result<()> {
        match step {
            Step::Slots { rows, .. } => self.slots += rows.len(),
            Step::Ranges { ranges, .. } => self.writes += ranges.len() as u64,
            Step::RetireSet { .. } | Step::RetireService { .. } | Step::RetireNextHop { .. } => {}
            _ => self.writes += 1,
        }
        Ok(())
    }

    fn delete_ranges(&mut self, _: u32, ranges: &[IpNet]) -> io::Result<()> {
        self.writes += ranges.len() as u64;
        Ok(())
    }
}

struct Anywhere;

impl Routes for Anywhere {
    fn next_hop(&self, _: IpAddr) -> (NextHopRow, u16) {
        (NextHopRow { ifindex: 7, kind: NextHopKind::Peer as u32, ..NextHopRow::default() }, 3)
    }
}

/// What is written for one service more than `count`, and how long planning and writing take.
fn one_more_than(count: u32) -> Result<(Counted, Duration)> {
    let mut mirror = Mirror::new(Ids::of(Sizes { services: 2 * SERVICES, flows: 1024 }));
    let model =
        |count| -> Result<Model> { Ok(file::parse(&[(PathBuf::from("c.yaml"), config(count))])?.model) };
    let (mut old, node) = (Model::default(), NodeFacts::default());
    let tuning = Tuning { seed: 1, hz: 100, tick_shift: 7 };
    let mut pass = |mut new: Model| -> Result<(Counted, Duration)> {
        let mut rows = Counted::default();
        let changed = diff::changes(&old, &mut new);
        let start = Instant::now();
        for wanted in
            changed.iter().filter_map(|name| new.services.get(name)).flat_map(|found| compile(found, &node))
        {
            let steps = plan::service(&mut mirror, &wanted, &Anywhere, tuning)?;
            apply(&mut rows, &mut mirror, &steps)?;
        }
        let steps = plan::addresses(&mut mirror, &node.own, &[]);
        apply(&mut rows, &mut mirror, &steps)?;
        let took = start.elapsed();
        old = new;
        Ok((rows, took))
    };
    pass(model(count)?)?;
    pass(model(count + 1)?)
}

#[test]
fn one_more_service_costs_the_same_among_many() -> Result<()> {
    let (few, few_took) = one_more_than(100)?;
    let (many, many_took) = one_more_than(SERVICES)?;
    println!("one more than 100: {few:?} in {few_took:?}; than {SERVICES}: {many:?} in {many_took:?}");
    // Three backends and ways, the set, the service, the frontend and the row of its address.
    ensure!(few == Counted { writes: 10, slots: 307 }, "{few:?} for a service");
    ensure!(few == many, "{many:?} among {SERVICES}, {few:?} among 100");
    Ok(())
}
