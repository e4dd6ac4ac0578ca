//! Configs in, models and messages out.

use std::{fs, path::PathBuf};

use super::*;
use crate::model::{Endpoint, Service};

mod bad;
mod damaged;
mod good;

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

/// The model, a line for each port of a service.
fn show(model: &Model) -> Vec<String> {
    model.services.values().flat_map(|service| show_service(service)).collect()
}

fn show_service(service: &Service) -> Vec<String> {
    let list = |texts: Vec<String>| texts.join(" ");
    let addresses = service.addresses.iter().map(ToString::to_string);
    let wants = service.wants.iter().map(|family| format!("any-{family}"));
    let head = format!("{} at {}", service.name, list(addresses.chain(wants).collect()));
    let lines = service.ports.iter().map(|port| {
        let endpoints = list(port.endpoints.iter().map(show_endpoint).collect());
        let name = if port.name.is_empty() { String::new() } else { format!("({})", port.name) };
        format!("{head} {}/{}{name} -> {endpoints}", port.port, port.protocol).trim_end().to_owned()
    });
    lines.collect()
}

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
    format!("{address}{weight}{flags}")
}
