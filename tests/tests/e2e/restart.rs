//! The agent goes and comes while traffic flows.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle, sleep},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use lb_common::{abi::maps, family::V4};
use lb_tests::node::{binary, cpu_time};
use rustix::process::Signal;
use xtask::{
    lab::{Lab, request},
    run::Agent,
};

use crate::{
    Test,
    bed::{Bed, CONFIG, NAME, pinned, programs, service, vip},
};

pub const ALL: &[Test] = &[
    ("killed under load, and another takes over", || killed_under_load(&[])),
    ("killed under load, by clsact filters", || killed_under_load(&["--clsact"])),
    ("a second agent is turned away", second),
    ("another instance at the same devices is turned away", other_instance),
    ("what changed while no agent ran", changed_meanwhile),
    ("another way of forwarding after a restart", other_way),
    ("programs that are there are taken over", taken_over),
    ("maps by the names of a version before are taken over", by_old_names),
    ("maps of another version are named", of_another_version),
];

/// Of a processor, to start where nothing has changed.
const WARM: Duration = Duration::from_millis(500);

/// Clients that never stop, until they are asked how it went.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Result<u64>>>,
}

type Client = fn(&AtomicBool, bool) -> Result<u64>;

impl Load {
    /// New connections, connections that stay and datagrams, of both families.
    fn start(lab: &Lab) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |client: Client, ipv6: bool| {
            let (lab, stop) = (lab.clone(), stop.clone());
            thread::spawn(move || lab.within("red", move || client(&stop, ipv6))?)
        };
        let all: [Client; 3] = [new_connections, one_connection, one_socket];
        let clients = all.into_iter().flat_map(|each| [client(each, false), client(each, true)]).collect();
        Load { stop, clients }
    }

    /// How many requests were answered; an error if one was not, or if one that stays has moved.
    fn end(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut answered = 0;
        for client in self.clients {
            let count = client.join().map_err(|_| anyhow!("a client ended badly"))??;
            ensure!(count > 20, "a client made {count} requests only");
            answered += count;
        }
        Ok(answered)
    }
}

fn new_connections(stop: &AtomicBool, ipv6: bool) -> Result<u64> {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        request::page(vip(ipv6, service::WEB, 80)).with_context(|| format!("new connection {count}"))?;
        count += 1;
        sleep(Duration::from_millis(1));
    }
    Ok(count)
}

fn one_connection(stop: &AtomicBool, ipv6: bool) -> Result<u64> {
    let stream = TcpStream::connect(vip(ipv6, service::WEB, 80))?;
    let mut stays = Stays::default();
    let mut reader = BufReader::new(stream);
    while !stop.load(Ordering::Relaxed) {
        let body = next_page(&mut reader).with_context(|| format!("request {}", stays.count))?;
        stays.with(body.split(' ').next().unwrap_or_default())?;
    }
    Ok(stays.count)
}

/// A request over a connection that goes on; the body of its answer.
pub fn next_page(stream: &mut BufReader<TcpStream>) -> Result<String> {
    page_within(stream, Duration::from_secs(3))
}

/// The same, with this much patience.
pub fn page_within(stream: &mut BufReader<TcpStream>, patience: Duration) -> Result<String> {
    stream.get_ref().set_read_timeout(Some(patience))?;
    stream.get_mut().write_all(b"GET / HTTP/1.1\r\n\r\n")?;
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        ensure!(stream.read_line(&mut line)? > 0, "the connection was closed");
    }
    line.clear();
    stream.read_line(&mut line)?;
    Ok(line)
}

fn one_socket(stop: &AtomicBool, ipv6: bool) -> Result<u64> {
    let socket = request::connected(vip(ipv6, service::WEB, 90))?;
    let mut stays = Stays::default();
    while !stop.load(Ordering::Relaxed) {
        stays.with(&request::ask(&socket).with_context(|| format!("datagram {}", stays.count))?)?;
    }
    Ok(stays.count)
}

/// One answers all.
#[derive(Default)]
struct Stays {
    by: String,
    count: u64,
}

impl Stays {
    fn with(&mut self, name: &str) -> Result<()> {
        if self.by.is_empty() {
            self.by = name.to_owned();
        }
        ensure!(self.by == name, "request {} moved from {} to {name}", self.count, self.by);
        self.count += 1;
        sleep(Duration::from_millis(1));
        Ok(())
    }
}

fn killed_under_load(options: &[&str]) -> Result<()> {
    let mut bed = Bed::new(options)?;
    let load = Load::start(bed.lab());
    sleep(Duration::from_millis(500));
    for _ in 0..3 {
        bed.agent.signal(Signal::KILL)?;
        sleep(Duration::from_millis(300));
        bed.agent.start_again()?;
        sleep(Duration::from_millis(200));
    }
    load.end()?;
    // It has taken over: what changes now is followed.
    bed.configure(&CONFIG.replace("10.96.0.12", "10.96.0.18"), "10.96.0.18:80")?;
    let moved = "10.96.0.18:80".parse()?;
    bed.pages("green", moved, 5).map(drop)
}

/// Whether its agent runs or not: what is attached is in the way.
fn other_instance() -> Result<()> {
    let mut bed = Bed::new(&[])?;
    let name = format!("{NAME}-other");
    let pins = std::path::Path::new("/sys/fs/bpf/lb").join(&name);
    for (signal, agent) in
        [(None, "whose agent runs: end it, then run"), (Some(Signal::TERM), "whose agent has ended: run")]
    {
        if let Some(signal) = signal {
            bed.agent.signal(signal)?;
        }
        let mut other = Agent::start(bed.lab(), &binary()?, bed.config(), &name, &[])?;
        let Err(refused) = other.wait_ready() else { bail!("the device has two instances") };
        let expected = format!(
            "v-net-0 has programs of the instance {NAME} already, {agent} `lb uninstall --instance {NAME}`"
        );
        ensure!(refused.to_string().contains(&expected), "{refused}");
        ensure!(!pins.exists(), "something of it is left");
        bed.answered("red", service::BLUE, &["blue"], 3)?;
    }
    bed.agent.end()?;
    Agent::start(bed.lab(), &binary()?, bed.config(), &name, &[])?.wait_ready()
}

fn second() -> Result<()> {
    let bed = Bed::new(&[])?;
    let (status, said) = bed.agent.start_second()?;
    ensure!(
        !status.success() && said.contains(&format!("an agent already runs instance {NAME}")),
        "{status}: {said}"
    );
    bed.answered("red", service::BLUE, &["blue"], 3)
}

/// A new agent serves what the config says now, and a given address is the same one.
fn changed_meanwhile() -> Result<()> {
    let given = "\n  - name: given\n    ports: [{port: 80, targetPort: 8080}]\n    backends: [{address: 10.244.1.4}]\n";
    let mut bed = Bed::with(&(CONFIG.to_owned() + given), &[], |_| Ok(()))?;
    let address = |bed: &Bed| -> Result<String> {
        let services = bed.json(&["get", "services"])?;
        let row = services.as_array().into_iter().flatten().find(|row| row["name"] == "given");
        Ok(row.and_then(|row| row["address"].as_str()).context("no service given")?.to_owned())
    };
    let before = address(&bed)?;
    bed.agent.signal(Signal::TERM)?;
    // Services go on without an agent.
    bed.answered("red", service::BLUE, &["blue"], 3)?;
    let other = CONFIG.replace("name: blue", "name: azure").replace("10.96.0.11", "10.96.0.19");
    bed.replace(
        &(other
            + given
            + "\n  - name: given2\n    ports: [{port: 80}]\n    backends: [{address: 10.244.1.4}]\n"),
    )?;
    bed.agent.start_again()?;
    ensure!(address(&bed)? == before, "given was {before} and is {}", address(&bed)?);
    bed.answered("red", service::BLUE, &["blue"], 3)?;
    bed.pages("red", "10.96.0.19:80".parse()?, 3)?;
    let gone = vip(false, service::SELF, 80);
    ensure!(bed.pages("blue", gone, 1).is_err(), "{gone} is served though no service has it");
    let services = bed.json(&["get", "services"])?.to_string();
    ensure!(services.contains("azure") && !services.contains("10.96.0.11"), "{services}");
    Ok(())
}

/// Another `--forward`, then filters instead of links: each start replaces what the one before set up.
fn other_way() -> Result<()> {
    let mut bed = Bed::new(&[])?;
    for (options, way) in [
        (&["--forward", "bridge"][..], "bridge"),
        (&["--forward", "stack", "--clsact"], "stack"),
        (&["--forward", "stack"], "stack"),
        (&[], "peer"),
    ] {
        bed.agent.signal(Signal::TERM)?;
        bed.agent.start_with(options)?;
        ensure!(bed.forward_of("veth-red")? == way, "{options:?}: not {way}");
        bed.answered("red", service::WEB, &["red", "blue", "green"], 30)?;
        bed.answered("client", service::WEB, &["red", "blue", "green"], 30)?;
    }
    Ok(())
}

/// An agent that finds the programs that it would load loads none, and keeps none that it does not use.
fn taken_over() -> Result<()> {
    let mut bed = Bed::new(&[])?;
    let (first, loading) = (programs()?, cpu_time(bed.agent.pid())?);
    bed.agent.signal(Signal::TERM)?;
    bed.agent.start_again()?;
    let warm = cpu_time(bed.agent.pid())?;
    println!("{} programs loaded in {loading:.2?} of a processor, taken over in {warm:.2?}", first.len());
    ensure!(warm < WARM, "{warm:?} to start where nothing has changed");
    ensure!(programs()? == first, "other programs where nothing has changed");
    bed.answered("red", service::WEB, &["red", "blue", "green"], 30)?;

    bed.agent.signal(Signal::TERM)?;
    bed.agent.start_with(&["--forward", "bridge"])?;
    let other = programs()?;
    ensure!(other != first && other.len() <= first.len(), "{first:?} became {other:?}");
    bed.answered("red", service::WEB, &["red", "blue", "green"], 30)
}

/// Where the instance's maps are pinned.
fn map_pin(name: &str) -> PathBuf {
    pinned("maps").join(name)
}

/// Connections go on, and who looks while the agent of the version before runs sees its flows.
fn by_old_names() -> Result<()> {
    let mut bed = Bed::new(&[])?;
    let load = Load::start(bed.lab());
    sleep(Duration::from_millis(500));
    bed.agent.signal(Signal::KILL)?;
    for (old, new) in maps::RENAMED {
        fs::rename(map_pin(new), map_pin(old)).with_context(|| format!("naming {new} {old}"))?;
    }
    ensure!(bed.json(&["get", "flows"])?.as_array().is_some_and(|flows| !flows.is_empty()), "no flows");
    bed.agent.start_again()?;
    sleep(Duration::from_millis(200));
    for (old, new) in maps::RENAMED {
        ensure!(map_pin(new).exists() && !map_pin(old).exists(), "{old} is not {new}");
    }
    load.end()?;
    bed.configure(&CONFIG.replace("10.96.0.12", "10.96.0.18"), "10.96.0.18:80")?;
    bed.pages("green", "10.96.0.18:80".parse()?, 5).map(drop)
}

/// The agent says which map it is and what to do, changes nothing, and starts after that has been done.
fn of_another_version() -> Result<()> {
    let mut bed = Bed::new(&[])?;
    bed.agent.signal(Signal::TERM)?;
    let (flows, aside) = (map_pin(maps::of_family::<V4>().flows.name), map_pin("aside"));
    // With a map that is yet to be made and without: both ways of the start.
    for missing in [None, Some(maps::COOKIES.name)] {
        fs::rename(&flows, &aside)?;
        let make =
            ["map", "create", &flows.to_string_lossy(), "type", "lru_hash", "key", "16", "value", "28"];
        let made = Command::new("bpftool").args(make).args(["entries", "64", "name", "FLOWS4"]).output()?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        if let Some(missing) = missing {
            fs::remove_file(map_pin(missing))?;
        }
        let (status, said) = bed.agent.start_second()?;
        let says = said.contains(&*flows.to_string_lossy()) && said.contains("lb uninstall");
        ensure!(!status.success() && says, "{status}: {said}");
        fs::rename(&aside, &flows)?;
        bed.answered("red", service::BLUE, &["blue"], 3)?;
    }
    bed.agent.start_again()?;
    bed.answered("red", service::WEB, &["red", "blue", "green"], 30)
}
