//! Many bridges on one node: their programs are the same ones.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lb_common::abi::bridge_zone;
use lb_tests::node::cpu_time;
use lb_user::maps;
use rustix::process::Signal;
use serde_json::Value;
use xtask::lab::{self, Lab, Pod};

use crate::{
    Test,
    bed::{Bed, CONFIG, only, pinned, programs, service, vip},
};

pub const ALL: &[Test] = &[
    ("sixteen bridges have the programs of two", sixteen),
    ("a port moves from one bridge to another", moves),
    ("several bridges become one, and several again", fewer_and_more),
];

/// One on each further bridge.
const GUESTS: [Pod; 15] = [
    guest("a", 2),
    guest("b", 3),
    guest("c", 4),
    guest("d", 5),
    guest("e", 6),
    guest("f", 7),
    guest("g", 8),
    guest("h", 9),
    guest("i", 10),
    guest("j", 11),
    guest("k", 12),
    guest("l", 13),
    guest("m", 14),
    guest("n", 15),
    guest("o", 16),
];
const PODS: [&str; 3] = ["red", "blue", "green"];

/// Last part of a guest's service.
fn last(index: usize) -> u16 {
    let (tens, ones) = (index / 10, index % 10);
    0x20 + 0x10 * tens as u16 + ones as u16
}

const fn guest(name: &'static str, network: u8) -> Pod {
    Pod { name, network, host: 2 }
}

/// [`CONFIG`] and a service of each guest.
fn config(guests: &[Pod]) -> String {
    let mut text = CONFIG.to_owned();
    for (index, pod) in guests.iter().enumerate() {
        let (last, name, v4, v6) = (last(index), pod.name, pod.ipv4(), pod.ipv6());
        let _ = write!(
            text,
            "
  - name: guest-{name}
    addresses: [10.96.0.{last:x}, \"fd00:96::{last:x}\"]
    ports: [{{name: page, port: 80, targetPort: 8080}}, {{name: echo, port: 90, targetPort: 9090, protocol: UDP}}]
    backends: [{{address: {v4}}}, {{address: \"{v6}\"}}]
"
        );
    }
    text
}

/// What the agent is told of the guests' bridges.
fn options(guests: &[Pod]) -> Vec<String> {
    guests.iter().flat_map(|pod| ["--bridge".to_owned(), bridge(pod)]).collect()
}

fn bridge(pod: &Pod) -> String {
    format!("v-net-{}", pod.network - 1)
}

/// A bed with these guests on their bridges.
fn bed(guests: &[Pod]) -> Result<Bed> {
    let options = options(guests);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    Bed::with(&config(guests), &options, |lab| guests.iter().try_for_each(|pod| plug_in(lab, *pod)))
}

fn plug_in(lab: &Lab, pod: Pod) -> Result<()> {
    lab.add_bridge(pod.network)?;
    lab.add_pod(pod)?;
    lab::serve_pod(lab, pod)
}

/// Every guest is served, and serves.
fn served(bed: &Bed, guests: &[Pod]) -> Result<()> {
    for ((index, pod), next) in guests.iter().enumerate().zip(guests.iter().cycle().skip(1)) {
        bed.answered(pod.name, service::WEB, &PODS, 30)?;
        for from in ["red", "client", pod.name, next.name] {
            bed.answered(from, last(index), &[pod.name], 3)?;
        }
        only(&bed.pages(pod.name, vip(true, service::NODE, 443), 3)?, &["node"])?;
    }
    Ok(())
}

/// With as many bridges as there are guests and one more, started cold: its programs, and what that took.
fn started(guests: &[Pod]) -> Result<(usize, Duration)> {
    let bed = bed(guests)?;
    let (programs, took) = (programs()?.len(), cpu_time(bed.agent.pid())?);
    served(&bed, guests)?;
    Ok((programs, took))
}

fn sixteen() -> Result<()> {
    let (two, _) = started(&GUESTS[..1])?;
    let (one, alone) = started(&[])?;
    let (sixteen, all) = started(&GUESTS)?;
    println!("{one} programs, {alone:.2?} of a processor for one bridge; {sixteen}, {all:.2?} for sixteen");
    ensure!(sixteen == two, "{sixteen} programs for sixteen bridges, {two} for two");
    // Of the processor, not by the clock: other tests may keep the machine busy.
    ensure!(all < 2 * alone, "{all:?} of a processor to start with sixteen bridges, {alone:?} with one");
    Ok(())
}

/// What `lb get ports` shows of a device.
fn shown(bed: &Bed, name: &str) -> Result<Value> {
    let ports = bed.json(&["get", "ports"])?;
    let row = ports.as_array().into_iter().flatten().find(|row| row["name"] == *name);
    Ok(row.with_context(|| format!("{name} is not shown"))?.clone())
}

fn moves() -> Result<()> {
    let guests = &GUESTS[..2];
    let [guest, host] = guests else { unreachable!("two of them") };
    let bed = bed(guests)?;
    served(&bed, guests)?;
    // As a guest of the other bridge it has an address there.
    let there = Pod { network: host.network, host: 9, ..*guest };
    let port = format!("veth-{}", guest.name);
    bed.lab().on(guest.name, "link set eth0 down")?;
    bed.lab().on(guest.name, "addr flush dev eth0")?;
    bed.lab().on("node", &format!("link set {port} master {}", bridge(host)))?;
    bed.lab().give_addresses(there)?;
    bed.wait_for("the port on the other bridge", || Ok(shown(&bed, &port)?["bridge"] == *bridge(host)))?;
    let index = |name: &str| -> Result<u32> {
        let index = shown(&bed, name)?["ifindex"].as_u64().context("an interface index")?;
        Ok(index as u32)
    };
    let zone = maps::bridge_ports(&pinned("maps"))?.get(&index(&port)?, 0)?;
    ensure!(zone == u32::from(bridge_zone(index(&bridge(host))?)), "it is in zone {zone} still");
    only(&bed.pages(guest.name, vip(false, service::BLUE, 80), 3)?, &["blue"])?;
    bed.configure(&config(&[there, *host]), "config taken over")?;
    served(&bed, &[there, *host])
}

/// Constants become lookups, and the other way round.
fn fewer_and_more() -> Result<()> {
    let guests = &GUESTS[..1];
    let mut bed = bed(guests)?;
    let rows = || -> Result<usize> { Ok(maps::bridge_ports(&pinned("maps"))?.keys().flatten().count()) };
    ensure!(rows()? == 4, "{} rows for four ports of two bridges", rows()?);
    served(&bed, guests)?;
    bed.agent.signal(Signal::TERM)?;
    bed.agent.start_with(&[])?;
    bed.agent.wait_ready()?;
    ensure!(rows()? == 0, "{} rows for one bridge", rows()?);
    bed.answered("red", service::WEB, &PODS, 30)?;
    bed.agent.signal(Signal::TERM)?;
    let options = options(guests);
    bed.agent.start_with(&options.iter().map(String::as_str).collect::<Vec<_>>())?;
    bed.agent.wait_ready()?;
    served(&bed, guests)?;
    bed.lab().remove_pod(guests[0])?;
    bed.wait_for("the row of a port that has gone", || Ok(rows()? == 3))
}
