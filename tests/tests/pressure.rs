//! How full maps are, in `lb status`: right, said in time, and cheap with a million flows.

use std::{net::Ipv4Addr, time::Instant};

use anyhow::{Context, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use lb_common::{
    abi::{FlowKey, FlowRow, Lifetimes, NeighKey, ProxyNeighRow, RangeKey, SnatRow, maps::of_family},
    family::{Addr4, V4},
};
use lb_tests::node::Node;
use lb_user::{
    maps::{Maps, Pins, batches, snat_ports},
    observe::clock::{hz, now_ticks},
};
use serde_json::Value;

const FLOWS: u32 = 1 << 20;
/// The smallest.
const SERVICES: u32 = 16;

fn status(node: &Node) -> Result<(Value, bool)> {
    let output = node.lb("status -o json --instance pressure")?;
    let json = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok((json, output.status.success()))
}

/// Used and all rows.
fn rows(status: &Value, name: &str) -> Result<(u64, u64)> {
    let map = status["maps"].as_array().into_iter().flatten().find(|map| map["name"] == name);
    let map = map.with_context(|| format!("no map {name} in {status}"))?;
    Ok((map["used"].as_u64().context("used")?, map["max"].as_u64().context("max")?))
}

fn flow(number: u32) -> FlowKey<V4> {
    FlowKey { src: Addr4(number), protocol: 6, zone: 1, ..Default::default() }
}

/// Allocated ports are forgotten a while after their flows, and no others.
fn swept() -> Result<()> {
    let pins = Pins::new("pressure");
    let path = pins.maps().join(of_family::<V4>().snat.name);
    let mut allocated =
        HashMap::<_, FlowKey<V4>, SnatRow<V4>>::try_from(Map::HashMap(MapData::from_pin(path)?))?;
    let lifetimes = Lifetimes { udp_unanswered: 30, ..Lifetimes::default() };
    for idle in [0, 30, 31, 90, 91, 1000] {
        let seen = 0u32.wrapping_sub(idle);
        let row = SnatRow { row: FlowRow { seen, ..Default::default() }, ..Default::default() };
        allocated.insert(FlowKey { dst_port: idle as u16, protocol: 17, ..Default::default() }, row, 0)?;
    }
    let free = snat_ports::sweep(&pins.maps(), 0, &lifetimes)?;
    let mut left: Vec<u16> = allocated.keys().filter_map(|key| Some(key.ok()?.dst_port)).collect();
    left.sort_unstable();
    ensure!(free == 2 && left == [0, 30, 31, 90], "{free} forgotten, of idle {left:?} left");
    for idle in left {
        allocated.remove(&FlowKey { dst_port: idle, protocol: 17, ..Default::default() })?;
    }
    Ok(())
}

/// As many as a range holds are allocated towards one backend.
fn ports_run_out(node: &Node) -> Result<()> {
    let path = Pins::new("pressure").maps().join(of_family::<V4>().snat.name);
    let mut allocated =
        HashMap::<_, FlowKey<V4>, SnatRow<V4>>::try_from(Map::HashMap(MapData::from_pin(path)?))?;
    let key = |port: u16| FlowKey {
        src: Ipv4Addr::new(10, 244, 2, 2).into(),
        src_port: 8080u16.to_be(),
        dst_port: port.to_be(),
        protocol: 6,
        ..Default::default()
    };
    let row = SnatRow { row: FlowRow { seen: now_ticks(hz()), ..Default::default() }, ..Default::default() };
    for port in 10_000..10_900 {
        allocated.insert(key(port), row, 0)?;
    }
    let text = || Ok::<_, anyhow::Error>(String::from_utf8(node.lb("status --instance pressure")?.stdout)?);
    let said = text()?;
    let line = "\nSNAT:      ports 10000-10999, 900 of 1000 allocated towards TCP 10.244.2.2:8080 (90.0%), the most\n";
    ensure!(said.contains(line) && !said.contains("Nearly full"), "{said}");
    allocated.insert(key(10_900), row, 0)?;
    let (json, healthy) = status(node)?;
    ensure!(!healthy && json["snat"]["used"] == 901 && json["snat"]["first"] == 10_000, "{json}");
    let said = text()?;
    let warning =
        "Nearly full:\n  snatPorts 10000-10999: 901 of 1000 ports are allocated towards TCP 10.244.2.2:8080;";
    ensure!(said.contains(warning), "{said}");
    for port in 10_000..10_901 {
        allocated.remove(&key(port))?;
    }
    let said = text()?;
    ensure!(said.contains("\nSNAT:      ports 10000-10999, none is allocated\n"), "{said}");
    Ok(())
}

#[test]
fn of_every_map() -> Result<()> {
    let node = Node::new("lbp-node")?;
    let config =
        "services: [{name: a, address: 10.96.0.1, ports: [{port: 80}], backends: [{address: 10.128.0.2}]}]";
    node.write("c.yaml", &format!("{config}\nsnatPorts: 10000-10999\n"))?;
    let options = format!("c.yaml --max-flows {FLOWS} --max-services {SERVICES}");
    let mut agent = node.agent_on("--bridge br0", "pressure", &options)?;
    agent.wait_for("ready: 1 services", 0)?;
    let mut maps = Maps::open(&Pins::new("pressure").maps())?;

    let (empty, healthy) = status(&node)?;
    ensure!(healthy, "{empty}");
    for (name, used) in [
        ("services", 1),
        ("sets", 1),
        ("backends, IPv4", 1),
        ("backends, IPv6", 0),
        ("next hops", 1),
        // And the row of its address.
        ("frontends, IPv4", 2),
        ("source ranges, IPv4", 0),
        ("proxy ARP, ND", 0),
        ("source guard", 0),
        ("bridge ports", 0),
        ("cookies", 0),
        ("flows, IPv4", 0),
        ("affinity, IPv6", 0),
        ("sockets, IPv4", 0),
        ("SNAT ports, IPv4", 0),
    ] {
        ensure!(rows(&empty, name)?.0 == used, "{name} should have {used} rows: {empty}");
    }
    ports_run_out(&node)?;
    swept()?;

    // Ranges are keyed by prefixes, and there are more of them than are read at once.
    const RANGES: u32 = 20_000;
    for number in 0..RANGES {
        let range = RangeKey::<V4> { set: 1 << 30, addr: Addr4(number) };
        maps.v4.ranges.insert(&aya::maps::lpm_trie::Key::new(64, range), 1, 0)?;
    }
    // Past the end, so that rows are evicted.
    for number in 0..FLOWS + 1000 {
        maps.v4.flows.insert(flow(number), FlowRow::default(), 0)?;
    }
    let start = Instant::now();
    let (full, healthy) = status(&node)?;
    let whole = start.elapsed();
    let (used, max) = rows(&full, "flows, IPv4")?;
    ensure!(rows(&full, "source ranges, IPv4")?.0 == u64::from(RANGES), "{full}");
    ensure!(max == u64::from(FLOWS) && used <= max && used > max - max / 100, "{used} of {max}");
    let (start, mut calls) = (Instant::now(), 0);
    let maps_dir = Pins::new("pressure").maps();
    let counted = batches(&maps_dir, &of_family::<V4>().flows, |_, _, _| calls += 1)?;
    let in_batches = start.elapsed();
    let start = Instant::now();
    let really = maps.v4.flows.keys().count() as u64;
    let by_key = start.elapsed();
    println!(
        "{used} flows: counted by {calls} calls in {in_batches:.2?}, key by key in {by_key:.2?}; lb status takes \
         {whole:.2?}"
    );
    ensure!(really == used && u64::from(counted.0) == used, "{really}, {counted:?} and {used} flows");
    ensure!(calls * 1000 < used, "{calls} calls to count {used} flows");
    ensure!(healthy, "flow tables may be full: {full}");
    ensure!(
        full["evicting"][0].as_str().is_some_and(|note| note.starts_with("flows, IPv4: full, idle flows"))
    );

    for number in 0..SERVICES - 1 {
        maps.proxy_neigh.insert(NeighKey::v4(Default::default(), number), ProxyNeighRow::new([0; 3]), 0)?;
    }
    let (refusing, healthy) = status(&node)?;
    ensure!(!healthy && refusing["healthy"] == false, "{refusing}");
    let warning = refusing["nearlyFull"][0].as_str().unwrap_or_default();
    ensure!(warning.starts_with("proxy ARP, ND: 15 of 16 rows are used"), "{refusing}");
    let text = String::from_utf8(node.lb("status --instance pressure")?.stdout)?;
    ensure!(
        text.contains("\nNearly full:\n  proxy ARP, ND: 15 of 16") && text.contains("\nFull:\n  flows, IPv4"),
        "{text}"
    );
    Ok(())
}
