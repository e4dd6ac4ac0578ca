//! Golden scripts: versions of a config, one after the other, through everything that is pure. The
//! file source reads them, addresses are given, rows are compiled and planned; maps in memory take
//! the steps. What comes out is text.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write as _,
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use lb_common::abi::{
    BackendState, BackendWord, FrontendKind, ReachKind, ReachRow, Scope, Scopes, SetRow, SlotRow, Word,
    ZONE_OF_CLIENT, ZONE_UPLINK, set_flags,
};
use lb_user::{
    apply::{Rows, apply},
    compile::{Frontend, NodeFacts, WantedFrontend, compile},
    maps::Sizes,
    model::{Model, addresses::Allocations, diff},
    observe::{backends::way, kind_name},
    plan::{self, FoundBackend, Ids, Mirror, Published, Step, Tuning, Ways},
    sources::file,
};

/// A line that begins so ends one version and begins the next; the rest of the line names it.
const THEN: &str = "# --- then";
/// A tick is a second.
const TUNING: Tuning = Tuning { seed: 0x5eed, hz: 1, tick_shift: 0 };

/// Runs a script; `name` is what messages call its file.
pub fn run(name: &str, script: &str) -> Result<String> {
    let mut agent = Agent::new();
    let mut text = String::new();
    for (index, (title, config)) in versions(script).into_iter().enumerate() {
        if index > 0 {
            writeln!(text)?;
        }
        writeln!(text, "== {}{title}", index + 1)?;
        agent.load(name, config, &mut text).with_context(|| format!("version {}", index + 1))?;
    }
    Ok(text)
}

/// The versions of a script, each with its title.
fn versions(script: &str) -> Vec<(&str, &str)> {
    let mut versions = Vec::new();
    let (mut title, mut rest) = ("", script);
    while let Some(at) = rest.find(THEN) {
        versions.push((title, &rest[..at]));
        let line = rest[at..].lines().next().unwrap_or_default();
        title = line[THEN.len()..].trim_end_matches(['-', ' ']);
        rest = &rest[at + line.len()..];
    }
    versions.push((title, rest));
    versions
}

/// What the agent keeps between configs.
struct Agent {
    rows: Recorded,
    mirror: Mirror,
    model: Model,
    given: Allocations,
}

impl Agent {
    fn new() -> Agent {
        let mirror = Mirror::new(Ids::of(Sizes { services: 64, flows: 1024 }));
        Agent { rows: Recorded::default(), mirror, model: Model::default(), given: Allocations::default() }
    }

    fn load(&mut self, name: &str, config: &str, text: &mut String) -> Result<()> {
        let loaded = match file::parse(&[(PathBuf::from(name), config.to_owned())]) {
            Ok(loaded) => loaded,
            Err(error) => {
                for problem in error.problems {
                    writeln!(text, "error: {problem}")?;
                }
                return self.show(text);
            }
        };
        for problem in &loaded.problems {
            writeln!(text, "warning: {problem}")?;
        }
        let mut model = loaded.model;
        self.given.assign(&mut model)?;
        let changed = diff::changes(&self.model, &mut model);
        let old = std::mem::replace(&mut self.model, model);
        let frontends = |model: &Model, name| -> HashSet<Frontend> {
            let service = model.services.get(name).map(|service| compile(service, &node(model)));
            let frontends = service.into_iter().flatten().flat_map(|wanted| wanted.frontends);
            frontends.map(|frontend| frontend.at).collect()
        };
        // What goes, goes first, as in the agent.
        for name in &changed {
            let now = frontends(&self.model, name);
            let Some(service) = old.services.get(name) else { continue };
            for wanted in compile(service, &node(&old)) {
                if !wanted.frontends.iter().any(|frontend| now.contains(&frontend.at))
                    && let Some(id) = self.mirror.service_of(&wanted.frontends[0].at)
                {
                    let steps = plan::removal(&self.mirror, id);
                    self.carry_out(&steps, text)?;
                }
            }
        }
        // What a service's backends are to a node concerns all services, as in the agent.
        let moved = node(&old) != node(&self.model);
        let others = self.model.services.keys().filter(|name| moved && !changed.contains(name));
        let published: Vec<_> = changed.iter().chain(others).cloned().collect();
        for name in &published {
            let Some(service) = self.model.services.get(name).cloned() else { continue };
            for wanted in compile(&service, &node(&self.model)) {
                let steps = plan::service(&mut self.mirror, &wanted, &World, TUNING)?;
                self.carry_out(&steps, text)?;
            }
        }
        let here = node(&self.model);
        let steps = plan::addresses(&mut self.mirror, &here.own, &here.other_node_ports);
        self.carry_out(&steps, text)?;
        for (set, ranges) in self.mirror.retired_ranges() {
            self.rows.delete_ranges(set, ranges)?;
        }
        self.mirror.reclaim();
        self.show(text)?;
        self.again(text)
    }

    fn carry_out(&mut self, steps: &[Step], text: &mut String) -> Result<()> {
        for step in steps {
            writeln!(text, "{}", describe(step))?;
            apply(&mut self.rows, &mut self.mirror, std::slice::from_ref(step))?;
            for frontend in self.rows.frontends.keys() {
                self.rows
                    .lookup(frontend, Scope::Cluster)
                    .with_context(|| format!("after {}", describe(step)))?;
            }
        }
        Ok(())
    }

    /// A second pass has nothing to do.
    fn again(&mut self, text: &mut String) -> Result<()> {
        let mut steps = plan::leftovers(&self.mirror);
        let here = node(&self.model);
        steps.extend(plan::addresses(&mut self.mirror, &here.own, &here.other_node_ports));
        for service in self.model.services.values() {
            for wanted in compile(service, &node(&self.model)) {
                steps.extend(plan::service(&mut self.mirror, &wanted, &World, TUNING)?);
            }
        }
        let steps: Vec<String> = steps.iter().map(describe).collect();
        ensure!(steps.is_empty(), "a second pass has steps:\n{}", steps.join("\n"));
        writeln!(text, "again: no steps")?;
        Ok(())
    }

    /// Who gets which part of the flows of a frontend.
    fn shares(&self, frontend: &Frontend, scope: Scope) -> Result<String> {
        let slots = self.rows.lookup(frontend, scope)?;
        let total: u32 = slots.values().sum();
        let shares = slots.iter().map(|(id, count)| {
            let share = f64::from(*count) / f64::from(total) * 100.0;
            format!("{} {share:.1}%", self.rows.backends[id].socket())
        });
        let shares: Vec<String> = shares.collect();
        Ok(if shares.is_empty() { "nobody".to_owned() } else { shares.join(", ") })
    }

    /// What packets would find now.
    fn show(&self, text: &mut String) -> Result<()> {
        writeln!(text, "--")?;
        for (frontend, (service, kind)) in &self.rows.frontends {
            let shares = self.shares(frontend, Scope::Cluster)?;
            let set = self.rows.set_of(frontend)?;
            let local = match self.shares(frontend, Scope::Local)? {
                local if local == shares || !is_local(set) => String::new(),
                local => format!("; if local: {local}"),
            };
            let kind = match kind {
                FrontendKind::ClusterIp => String::new(),
                other => format!("{}, ", kind_name(*other)),
            };
            let options = options(set);
            writeln!(text, "{} ({kind}service {service}{options}): {shares}{local}", show(frontend))?;
            if let Some(ranges) = self.rows.ranges.get(&set.source_ranges) {
                let ranges: Vec<String> = ranges.iter().map(IpNet::to_string).collect();
                writeln!(text, "  from {}", ranges.join(", "))?;
            }
        }
        for (address, kind) in &self.rows.addresses {
            let said = match kind {
                FrontendKind::Node => "another node's",
                _ => "other ports are refused",
            };
            writeln!(text, "{address}: {said}")?;
        }
        for (id, backend) in &self.rows.backends {
            let kind = self.rows.reach.get(&backend.word.reach()).map_or(ReachKind::None, |row| row.kind());
            let (socket, service, state) = (backend.socket(), backend.service, state(backend.word));
            let id = id % IPV6;
            writeln!(text, "backend {id} {socket} of service {service}: {state}, reached by {}", way(kind))?;
        }
        Ok(())
    }
}

/// Whether a policy of the set is Local.
fn is_local(set: &SetRow) -> bool {
    set.flags & (set_flags::INTERNAL_LOCAL | set_flags::EXTERNAL_LOCAL | set_flags::DSR) != 0
}

/// What a set says besides its slots.
fn options(set: &SetRow) -> String {
    let mut text = String::new();
    for (flag, words) in [
        (set_flags::DSR, ", DSR"),
        (set_flags::INTERNAL_LOCAL, ", internal Local"),
        (set_flags::EXTERNAL_LOCAL, ", external Local"),
        (set_flags::RANDOM, ", random"),
        (set_flags::RESET_ON_REMOVAL, ", reset on removal"),
    ] {
        if set.flags & flag != 0 {
            text += words;
        }
    }
    if set.affinity != 0 {
        // A tick is a second here, and one is added for what has passed of the first.
        text += &format!(", affinity {} s", set.affinity - 1);
    }
    text
}

/// The node that scripts are about, unless they say otherwise.
fn node(model: &Model) -> NodeFacts {
    let own = ["10.244.1.1", "fd00:244:1::1", "192.168.1.11", "fd00:1::11"];
    let own: Vec<IpAddr> = own.iter().map(|text| text.parse().expect("an address")).collect();
    let pods = ["10.244.1.0/24", "fd00:244:1::/64"];
    let known = model.this_node("node1");
    let others = model.nodes.iter().filter(|(name, _)| *name != "node1");
    let mut others: Vec<IpAddr> = others.flat_map(|(_, node)| node.addresses.clone()).collect();
    others.sort();
    NodeFacts {
        name: known.name.unwrap_or_default(),
        zone: known.zone,
        node_ports: own[2..].to_vec(),
        own,
        pods: pods.iter().map(|text| text.parse().expect("a range")).collect(),
        other_node_ports: others,
        nodes: std::sync::Arc::clone(&model.nodes),
        no_tunnels: Vec::new(),
        ..NodeFacts::default()
    }
}

/// Three pods on the bridge, the node itself, and everything else far away.
struct World;

impl Ways for World {
    fn way(&self, address: IpAddr) -> (ReachRow, u16) {
        let pod = match address {
            IpAddr::V4(v4) if v4.octets()[..3] == [10, 244, 1] => v4.octets()[3] as u32,
            IpAddr::V6(v6) if v6.segments()[..3] == [0xfd00, 0x244, 1] => v6.segments()[7] as u32,
            _ => 0,
        };
        let row = |kind: ReachKind, ifindex| ReachRow { ifindex, kind: kind as u32, ..ReachRow::default() };
        match pod {
            1 => (row(ReachKind::Host, 0), ZONE_OF_CLIENT),
            2..=4 => (row(ReachKind::Peer, 10 + pod), 1),
            _ => (row(ReachKind::Uplink, 2), ZONE_UPLINK),
        }
    }
}

/// A backend's row.
struct Backend {
    service: u32,
    address: IpAddr,
    port: u16,
    word: BackendWord,
}

impl Backend {
    fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

/// Maps in memory.
#[derive(Default)]
struct Recorded {
    reach: BTreeMap<u32, ReachRow>,
    /// Ids of both families are one here: [`IPV6`] is added to those of IPv6.
    backends: BTreeMap<u32, Backend>,
    slots: BTreeMap<u32, SlotRow>,
    sets: BTreeMap<u32, SetRow>,
    services: BTreeMap<u32, Word>,
    frontends: BTreeMap<Frontend, (u32, FrontendKind)>,
    addresses: BTreeMap<IpAddr, FrontendKind>,
    ranges: BTreeMap<u32, Vec<IpNet>>,
}

const IPV6: u32 = 1_000_000;

fn key(ipv6: bool, id: u32) -> u32 {
    if ipv6 { id + IPV6 } else { id }
}

impl Recorded {
    /// The set that a frontend leads to.
    fn set_of(&self, frontend: &Frontend) -> Result<&SetRow> {
        let (service, _) = self.frontends.get(frontend).context("no such frontend")?;
        let word = self.services.get(service).context("a frontend leads to no service")?;
        let set = self.sets.get(&word.low).context("a service leads to no set")?;
        ensure!(set.service == *service, "a service leads to the set of another");
        let ranges = set.source_ranges == 0 || self.ranges.contains_key(&set.source_ranges);
        ensure!(ranges, "a set has source ranges that are not written");
        Ok(set)
    }

    /// The backends that packets to a frontend are sent to, with their numbers of slots.
    fn lookup(&self, frontend: &Frontend, scope: Scope) -> Result<BTreeMap<u32, u32>> {
        let set = self.set_of(frontend)?;
        let service = &set.service;
        let (first, len) = match scope {
            Scope::Cluster => (set.first, set.len),
            Scope::Local => (set.local_first, set.local_len),
        };
        let mut found = BTreeMap::new();
        for index in first..first + len {
            let slot = self.slots.get(&index).context("a set has slots that are not written")?;
            ensure!(slot.service == *service, "a set has slots of another service");
            let id = key(frontend.address.is_ipv6(), slot.backend);
            let backend = self.backends.get(&id).context("a slot leads to no backend")?;
            ensure!(backend.service == *service, "a slot leads to a backend of another service");
            ensure!(backend.word.takes(scope), "a slot leads to a backend that does not take its flows");
            ensure!(self.reach.contains_key(&backend.word.reach()), "a backend has no way");
            *found.entry(id).or_default() += 1;
        }
        Ok(found)
    }
}

impl Rows for Recorded {
    fn reach(&mut self, index: u32, row: ReachRow) {
        self.reach.insert(index, row);
    }
    fn backend(&mut self, service: u32, backend: &FoundBackend, _zone: u16) {
        let FoundBackend { id, address, port, word, .. } = *backend;
        self.backends.insert(key(address.is_ipv6(), id), Backend { service, address, port, word });
    }
    fn slots(&mut self, first: u32, rows: &[SlotRow]) {
        self.slots.extend((first..).zip(rows.iter().copied()));
    }
    fn set(&mut self, index: u32, row: SetRow) {
        self.sets.insert(index, row);
    }
    fn service(&mut self, id: u32, word: Word) {
        self.services.insert(id, word);
    }
    fn backend_word(&mut self, ipv6: bool, id: u32, word: Word) {
        if let Some(backend) = self.backends.get_mut(&key(ipv6, id)) {
            backend.word = BackendWord(word);
        }
    }
    fn insert_address(&mut self, address: IpAddr, kind: FrontendKind) -> io::Result<()> {
        self.addresses.insert(address, kind);
        Ok(())
    }
    fn delete_address(&mut self, address: IpAddr) -> io::Result<()> {
        self.addresses.remove(&address);
        Ok(())
    }
    fn insert_ranges(&mut self, set: u32, ranges: &[IpNet]) -> io::Result<()> {
        self.ranges.insert(set, ranges.to_vec());
        Ok(())
    }
    fn delete_ranges(&mut self, set: u32, _: &[IpNet]) -> io::Result<()> {
        self.ranges.remove(&set);
        Ok(())
    }
    fn insert_frontend(&mut self, frontend: &WantedFrontend, service: u32) -> io::Result<()> {
        match self.frontends.insert(frontend.at, (service, frontend.kind)) {
            None => Ok(()),
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }
    fn delete_frontend(&mut self, frontend: &Frontend) -> io::Result<()> {
        self.frontends.remove(frontend);
        Ok(())
    }
}

fn show(frontend: &Frontend) -> String {
    format!("{} {}", frontend.protocol, SocketAddr::new(frontend.address, frontend.port))
}

fn state(word: BackendWord) -> &'static str {
    match word.state() {
        BackendState::Free => "free",
        BackendState::Active(Scopes::Both) => "active",
        BackendState::Active(Scopes::Cluster) => "active elsewhere",
        BackendState::Active(Scopes::Local) => "active for this node",
        BackendState::Draining => "draining",
        BackendState::Silent => "silent",
        BackendState::Removed => "removed",
        BackendState::Reset => "removed, reset",
    }
}

/// A step in a line.
fn describe(step: &Step) -> String {
    match step {
        Step::Reach { index, address, row } => {
            let device = if row.ifindex == 0 { String::new() } else { format!(" device {}", row.ifindex) };
            format!("way {index} to {address}: {}{device}", way(row.kind()))
        }
        Step::Backend { service, backend, zone } => {
            let socket = SocketAddr::new(backend.address, backend.port);
            let zone = match *zone {
                ZONE_UPLINK => "outside".to_owned(),
                ZONE_OF_CLIENT => "of the client".to_owned(),
                zone => zone.to_string(),
            };
            let node = backend.node.map(|node| format!(" node {node}")).unwrap_or_default();
            format!(
                "backend {} {socket} {} reach {} zone {zone} service {service}{node}",
                backend.id,
                state(backend.word),
                backend.word.reach()
            )
        }
        Step::Slots { first, rows } => {
            let mut counts = BTreeMap::<u32, u32>::new();
            for row in rows {
                *counts.entry(row.backend).or_default() += 1;
            }
            let counts: Vec<String> = counts.iter().map(|(id, count)| format!("{id}:{count}")).collect();
            let by =
                if counts.is_empty() { String::new() } else { format!(", by backend: {}", counts.join(" ")) };
            format!("slots {first}..{} ({} rows{by})", first + rows.len() as u32, rows.len())
        }
        Step::Set { index, row } => {
            let local = match !is_local(row) || (row.local_first, row.local_len) == (row.first, row.len) {
                true => String::new(),
                false => format!(", if local {}..{}", row.local_first, row.local_first + row.local_len),
            };
            let SetRow { first, len, service, .. } = *row;
            format!("set {index}: slots {first}..{}{local} service {service}", first + len)
        }
        Step::Service { id, word, .. } => {
            format!("service {id} -> set {} generation {}", word.low, word.generation)
        }
        Step::BackendWord { address, id, word } => {
            format!("backend {id} {address} {} reach {}", state(*word), word.reach())
        }
        Step::InsertFrontend { frontend, service } => {
            format!("frontend + {} {} -> service {service}", kind_name(frontend.kind), show(&frontend.at))
        }
        Step::DeleteFrontend { frontend, service } => {
            format!("frontend - {} {} -> service {service}", kind_name(frontend.kind), show(&frontend.at))
        }
        Step::Ranges { set, ranges } => format!("source ranges of set {set}: {} of them", ranges.len()),
        Step::InsertAddress { address, kind: FrontendKind::Node } => {
            format!("address + {address} of another node")
        }
        Step::InsertAddress { address, .. } => format!("address + {address}"),
        Step::DeleteAddress { address } => format!("address - {address}"),
        Step::RetireSet { published } => {
            let Published { set, first, len, .. } = published;
            format!("retire set {set}: slots {first}..{}", first + len)
        }
        Step::RetireService { id } => format!("retire service {id}"),
        Step::RetireReach { index, address } => format!("retire way {index} to {address}"),
        Step::RetireBackend { address, id, .. } => format!("retire backend {id} {address}"),
    }
}

/// The lines in which two texts differ, with what is around them.
pub fn difference(expected: &str, found: &str) -> String {
    let (expected, found): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    // Lengths of the longest common subsequences of what follows; scripts are short.
    let mut common = vec![vec![0u32; found.len() + 1]; expected.len() + 1];
    for i in (0..expected.len()).rev() {
        for j in (0..found.len()).rev() {
            common[i][j] = if expected[i] == found[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < expected.len() || j < found.len() {
        if i < expected.len() && j < found.len() && expected[i] == found[j] {
            lines.push((' ', expected[i]));
            (i, j) = (i + 1, j + 1);
        } else if i < expected.len() && (j == found.len() || common[i + 1][j] >= common[i][j + 1]) {
            lines.push(('-', expected[i]));
            i += 1;
        } else {
            lines.push(('+', found[j]));
            j += 1;
        }
    }
    const AROUND: usize = 2;
    let near = |index: usize| {
        let around = index.saturating_sub(AROUND)..(index + AROUND + 1).min(lines.len());
        lines[around].iter().any(|(mark, _)| *mark != ' ')
    };
    let shown = lines.iter().enumerate().filter(|(index, _)| near(*index));
    shown.map(|(_, (mark, line))| format!("{mark} {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_titles() {
        let script = "a: 1\n# --- then: two ---\nb: 2\n---\nc: 3\n# --- then\nd: 4\n";
        assert_eq!(versions(script), [("", "a: 1\n"), (": two", "\nb: 2\n---\nc: 3\n"), ("", "\nd: 4\n")]);
    }

    #[test]
    fn differences_have_their_surroundings() {
        let expected = "1\n2\n3\n4\n5\n6\n7\n";
        assert_eq!(difference(expected, expected), "");
        assert_eq!(difference(expected, "1\n2\n3\n4\n5a\n6\n7\n"), "  3\n  4\n- 5\n+ 5a\n  6\n  7\n");
    }

    #[test]
    fn the_world_is_as_described() {
        let kind = |address: [u8; 4]| World.way(IpAddr::from(address)).0.kind();
        assert_eq!(kind([10, 244, 1, 1]), ReachKind::Host);
        assert_eq!(kind([10, 244, 1, 3]), ReachKind::Peer);
        assert_eq!(kind([10, 244, 2, 3]), ReachKind::Uplink);
    }
}
