//! Golden scripts: versions of a config, one after the other, through everything that is pure. The
//! file source reads them, addresses are given, rows are compiled and planned; maps in memory take
//! the steps. What comes out is text.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Context, Error, Result, ensure};
use lb_common::{
    abi::{
        BackendState, BackendWord, FrontendKind, FrontendRow, NextHopKind, NextHopRow, Scope, Scopes, SetRow,
        ZONE_OF_CLIENT, ZONE_UPLINK, set_flags,
    },
    family::{Family, V4, V6},
};
use lb_sim::Maps;
use lb_user::{
    apply::{Rows, apply},
    compile::{Frontend, NodeFacts, compile},
    maps::Sizes,
    model::{Model, Protocol, addresses::Allocations, diff},
    observe::{backends::next_hop, kind_name},
    plan::{self, Ids, Mirror, Published, Routes, Step, Tuning},
    sources::file,
};
use similar::TextDiff;

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
    maps: Maps,
    mirror: Mirror,
    model: Model,
    given: Allocations,
}

impl Agent {
    fn new() -> Agent {
        let mirror = Mirror::new(Ids::of(Sizes { services: 64, flows: 1024 }));
        Agent { maps: Maps::default(), mirror, model: Model::default(), given: Allocations::default() }
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
                let steps = plan::lost(&self.mirror, &wanted, &now);
                self.carry_out(&steps, text)?;
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
            Rows::delete_ranges(&mut self.maps, set, ranges)?;
        }
        self.mirror.reclaim();
        self.show(text)?;
        self.again(text)
    }

    fn carry_out(&mut self, steps: &[Step], text: &mut String) -> Result<()> {
        for step in steps {
            writeln!(text, "{}", describe(step))?;
            apply(&mut self.maps, &mut self.mirror, std::slice::from_ref(step))?;
            for (frontend, row) in frontends::<V4>(&self.maps).chain(frontends::<V6>(&self.maps)) {
                lookup(&self.maps, &frontend, row.service, Scope::Cluster)
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
    fn shares(&self, frontend: &Frontend, service: u32, scope: Scope) -> Result<String> {
        let slots = lookup(&self.maps, frontend, service, scope)?;
        let total: u32 = slots.iter().map(|(_, count)| count).sum();
        let shares = slots.iter().map(|(socket, count)| {
            let share = f64::from(*count) / f64::from(total) * 100.0;
            format!("{socket} {share:.1}%")
        });
        let shares: Vec<String> = shares.collect();
        Ok(if shares.is_empty() { "nobody".to_owned() } else { shares.join(", ") })
    }

    /// What packets would find now.
    fn show(&self, text: &mut String) -> Result<()> {
        writeln!(text, "--")?;
        let (v4, v6) = (frontends::<V4>(&self.maps), frontends::<V6>(&self.maps));
        for (frontend, row) in v4.chain(v6).collect::<BTreeMap<_, _>>() {
            let service = row.service;
            let shares = self.shares(&frontend, service, Scope::Cluster)?;
            let set = self.maps.shared.set_of(service).context("a service has no set")?;
            let local = match self.shares(&frontend, service, Scope::Local)? {
                local if local == shares || !is_local(set) => String::new(),
                local => format!("; if local: {local}"),
            };
            let kind = match FrontendKind::from_bits(row.kind) {
                FrontendKind::ClusterIp => String::new(),
                other => format!("{}, ", kind_name(other)),
            };
            let options = options(set);
            writeln!(text, "{} ({kind}service {service}{options}): {shares}{local}", show(&frontend))?;
            let (v4, v6) =
                (ranges::<V4>(&self.maps, set.source_ranges), ranges::<V6>(&self.maps, set.source_ranges));
            let ranges: Vec<String> = v4.chain(v6).collect();
            if !ranges.is_empty() {
                writeln!(text, "  from {}", ranges.join(", "))?;
            }
        }
        let (v4, v6) = (addresses::<V4>(&self.maps), addresses::<V6>(&self.maps));
        for (address, kind) in v4.chain(v6).collect::<BTreeMap<_, _>>() {
            let said = match kind {
                FrontendKind::Node => "another node's",
                _ => "other ports are refused",
            };
            writeln!(text, "{address}: {said}")?;
        }
        self.show_backends::<V4>(text)?;
        self.show_backends::<V6>(text)
    }

    fn show_backends<F: Family>(&self, text: &mut String) -> Result<()> {
        let side = F::of(&self.maps);
        for (id, row) in &side.backends {
            let word = BackendWord(row.word);
            let found = self.maps.shared.next_hops.get(&word.next_hop());
            let kind = found.map_or(NextHopKind::None, |row| row.kind());
            let (socket, service, state) = (side.socket(*id).context("its row")?, row.service, state(word));
            writeln!(
                text,
                "backend {id} {socket} of service {service}: {state}, reached by {}",
                next_hop(kind)
            )?;
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
    let known = model.this_node("node1", &own);
    let others = model.nodes.iter().filter(|(name, _)| *name != "node1");
    let mut others: Vec<IpAddr> = others.flat_map(|(_, node)| node.addresses.clone()).collect();
    others.sort();
    NodeFacts {
        name: known.name.unwrap_or_default(),
        zone: known.zone,
        node_ports: own[2..].to_vec(),
        host_ports: own.clone(),
        host: own[2..].to_vec(),
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

impl Routes for World {
    fn next_hop(&self, address: IpAddr) -> (NextHopRow, u16) {
        let pod = match address {
            IpAddr::V4(v4) if v4.octets()[..3] == [10, 244, 1] => v4.octets()[3] as u32,
            IpAddr::V6(v6) if v6.segments()[..3] == [0xfd00, 0x244, 1] => v6.segments()[7] as u32,
            _ => 0,
        };
        let row =
            |kind: NextHopKind, ifindex| NextHopRow { ifindex, kind: kind as u32, ..NextHopRow::default() };
        match pod {
            1 => (row(NextHopKind::Host, 0), ZONE_OF_CLIENT),
            2..=4 => (row(NextHopKind::Peer, 10 + pod), 1),
            _ => (row(NextHopKind::Uplink, 2), ZONE_UPLINK),
        }
    }
}

/// The frontends of a family in the maps.
fn frontends<F: Family>(maps: &Maps) -> impl Iterator<Item = (Frontend, &FrontendRow)> {
    F::of(maps).frontends.iter().filter_map(|(key, row)| {
        let protocol = Protocol::from_number(key.protocol)?;
        Some((Frontend { address: F::to_ip(key.addr), port: u16::from_be(key.port), protocol }, row))
    })
}

/// The rows of addresses of a family.
fn addresses<F: Family>(maps: &Maps) -> impl Iterator<Item = (IpAddr, FrontendKind)> {
    let rows = F::of(maps).frontends.iter().filter(|(key, _)| key.port == 0);
    rows.map(|(key, row)| (F::to_ip(key.addr), FrontendKind::from_bits(row.kind)))
}

/// The source ranges of a set, of a family.
fn ranges<F: Family>(maps: &Maps, set: u32) -> impl Iterator<Item = String> {
    let rows = F::of(maps).ranges.iter().filter(move |(_, key)| key.set == set);
    rows.map(|(prefix, key)| format!("{}/{prefix}", F::to_ip(key.addr)))
}

/// The backends that packets to a frontend of a service are sent to, with their numbers of slots.
fn lookup(maps: &Maps, frontend: &Frontend, service: u32, scope: Scope) -> Result<Vec<(SocketAddr, u32)>> {
    fn of_family<F: Family>(maps: &Maps, service: u32, scope: Scope) -> Result<Vec<(SocketAddr, u32)>> {
        let found = maps.backends::<F>(service, scope).map_err(Error::msg)?;
        let found = found.into_iter().filter_map(|(id, slots)| Some((F::of(maps).socket(id)?, slots)));
        Ok(found.collect())
    }
    match frontend.address {
        IpAddr::V4(_) => of_family::<V4>(maps, service, scope),
        IpAddr::V6(_) => of_family::<V6>(maps, service, scope),
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
        Step::NextHop { index, address, row } => {
            let device = if row.ifindex == 0 { String::new() } else { format!(" device {}", row.ifindex) };
            format!("way {index} to {address}: {}{device}", next_hop(row.kind()))
        }
        Step::Backend { service, backend } => {
            let socket = SocketAddr::new(backend.address, backend.port);
            let zone = match backend.zone {
                ZONE_UPLINK => "outside".to_owned(),
                ZONE_OF_CLIENT => "of the client".to_owned(),
                zone => zone.to_string(),
            };
            let node = backend.node.map(|node| format!(" node {node}")).unwrap_or_default();
            format!(
                "backend {} {socket} {} reach {} zone {zone} service {service}{node}",
                backend.id,
                state(backend.word),
                backend.word.next_hop()
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
            format!("backend {id} {address} {} reach {}", state(*word), word.next_hop())
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
        Step::RetireNextHop { index, address } => format!("retire way {index} to {address}"),
        Step::RetireBackend { address, id, .. } => format!("retire backend {id} {address}"),
    }
}

/// The lines in which two texts differ, with what is around them.
pub fn difference(expected: &str, found: &str) -> String {
    const AROUND: usize = 2;
    let diff = TextDiff::from_lines(expected, found);
    let groups = diff.grouped_ops(AROUND);
    let changes = groups.iter().flatten().flat_map(|op| diff.iter_changes(op));
    changes.map(|change| format!("{} {change}", change.tag())).collect()
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
        let kind = |address: [u8; 4]| World.next_hop(IpAddr::from(address)).0.kind();
        assert_eq!(kind([10, 244, 1, 1]), NextHopKind::Host);
        assert_eq!(kind([10, 244, 1, 3]), NextHopKind::Peer);
        assert_eq!(kind([10, 244, 2, 3]), NextHopKind::Uplink);
    }
}
