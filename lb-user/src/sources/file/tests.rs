//! Configs in, models and messages out.

use std::{fs, path::PathBuf};

use super::*;
use crate::model::{
    Algorithm, Distribution, Endpoint, Forwarding, OnRemoval, Place as Whereabouts, Service, ServiceType,
    TrafficPolicy,
};

mod bad;
mod damaged;
mod good;
mod objects;
mod services;

/// A directory of a test's own, removed at its end.
pub(crate) struct Directory(pub PathBuf);

impl Directory {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lb-test-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory for the test");
        Directory(path)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.0.join(name);
        fs::write(&file, text).expect("a file for the test");
        file
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn parse_texts(texts: &[(&str, &str)]) -> Result<Loaded, LoadError> {
    let texts: Vec<_> = texts.iter().map(|(name, text)| (PathBuf::from(name), (*text).to_owned())).collect();
    parse(&texts)
}

fn testdata(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The model, a line for each port of a service. What is as it is by default is left out.
fn show(model: &Model) -> Vec<String> {
    model.services.values().flat_map(|service| show_service(service)).collect()
}

fn show_service(service: &Service) -> Vec<String> {
    let list = |texts: Vec<String>| texts.join(" ");
    let addresses = service.addresses.iter().map(ToString::to_string);
    let wants = service.wants.iter().map(|family| format!("any-{family}"));
    let at = list(addresses.chain(wants).chain(options(service)).collect());
    let lines = service.ports.iter().map(|port| {
        let endpoints = list(port.endpoints.iter().map(show_endpoint).collect());
        let name = if port.name.is_empty() { String::new() } else { format!("({})", port.name) };
        let node_port = port.node_port.map(|number| format!(" node:{number}")).unwrap_or_default();
        let host_port = port.host_port.map(|number| format!(" host:{number}")).unwrap_or_default();
        let lost: String = port.lost.iter().map(|address| format!(" lost:{address}")).collect();
        let port = format!("{}/{}{name}{node_port}{host_port}{lost}", port.port, port.protocol);
        format!("{} at {at} {port} -> {endpoints}", service.name).trim_end().to_owned()
    });
    lines.collect()
}

/// What a service says besides its addresses and ports.
fn options(service: &Service) -> Vec<String> {
    let mut options = Vec::new();
    if service.kind != ServiceType::ClusterIp {
        options.push(service.kind.to_string());
    }
    options.extend(service.external_ips.iter().map(|address| format!("external:{address}")));
    options.extend(service.load_balancer_ips.iter().map(|address| format!("balanced:{address}")));
    options.extend(service.source_ranges.iter().map(|range| format!("from:{range}")));
    for (policy, name) in [(service.internal_policy, "internal"), (service.external_policy, "external")] {
        if policy == TrafficPolicy::Local {
            options.push(format!("{name}-Local"));
        }
    }
    options.extend(service.affinity.map(|seconds| format!("affinity:{seconds}s")));
    if service.algorithm == Algorithm::Random {
        options.push("random".to_owned());
    }
    if service.distribution != Distribution::Even {
        options.push(format!("{:?}", service.distribution));
    }
    if service.on_removal == OnRemoval::Reset {
        options.push("resets".to_owned());
    }
    if service.forwarding == Forwarding::Dsr {
        options.push("dsr".to_owned());
    }
    options.extend(service.health_check.map(|port| format!("health:{port}")));
    options
}

/// Its place behind `@` is its node, its zone, and the zones and nodes that are to use it.
fn show_endpoint(endpoint: &Endpoint) -> String {
    let address = std::net::SocketAddr::new(endpoint.address, endpoint.port);
    let weight = if endpoint.weight == 1 { String::new() } else { format!("*{}", endpoint.weight) };
    let conditions = endpoint.conditions;
    let mut flags = String::new();
    for (set, flag) in [
        (!conditions.ready, "!ready"),
        (!conditions.serving, "!serving"),
        (conditions.terminating, "terminating"),
    ] {
        if set {
            flags = format!("{flags},{flag}");
        }
    }
    let place = endpoint.place.as_deref().map(|Whereabouts { node, zone, for_zones, for_nodes }| {
        let told = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".to_owned());
        let hints = for_zones.iter().map(|zone| format!("+{zone}"));
        let hints: String = hints.chain(for_nodes.iter().map(|node| format!("+node:{node}"))).collect();
        format!("@{}/{}{hints}", told(node), told(zone))
    });
    format!("{address}{weight}{flags}{}", place.unwrap_or_default())
}

/// The problems of what was loaded.
fn problems(loaded: &Loaded) -> Vec<String> {
    loaded.problems.iter().map(ToString::to_string).collect()
}
