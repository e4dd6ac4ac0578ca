//! A lab with servers and an agent, for one test.

use std::{
    collections::BTreeSet,
    env, fs,
    net::{SocketAddr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{node::binary, wait::until};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use xtask::{
    lab::{
        self, Lab,
        request::{self, Answers},
    },
    run::Agent,
};

/// Prefix of the namespaces, instance and files of these tests; built with another one in `LB_TEST_NAME` they run beside
/// themselves.
pub const NAME: &str = match option_env!("LB_TEST_NAME") {
    Some(name) => name,
    None => "lbtest",
};

/// The services of most tests: `web` on every pod, `self` on red alone, `blue` on blue alone, `node` a
/// process of the node. Each has TCP 80 and, but for `node`, UDP 90, on an address of each family.
pub const CONFIG: &str = r#"
serviceCIDRs: [10.96.0.0/12, "fd00:96::/112"]
hashSeed: 7f3a9c01d2e4b586
services:
  - name: web
    addresses: [10.96.0.10, "fd00:96::10"]
    ports: [{name: page, port: 80, targetPort: 8080}, {name: echo, port: 90, targetPort: 9090, protocol: UDP}]
    backends:
      - {address: 10.244.1.2}
      - {address: 10.244.1.3}
      - {address: 10.244.1.4}
      - {address: "fd00:244:1::2"}
      - {address: "fd00:244:1::3"}
      - {address: "fd00:244:1::4"}
  - name: self
    addresses: [10.96.0.11, "fd00:96::11"]
    ports: [{name: page, port: 80, targetPort: 8080}, {name: echo, port: 90, targetPort: 9090, protocol: UDP}]
    backends: [{address: 10.244.1.2}, {address: "fd00:244:1::2"}]
  - name: blue
    addresses: [10.96.0.12, "fd00:96::12"]
    ports: [{name: page, port: 80, targetPort: 8080}, {name: echo, port: 90, targetPort: 9090, protocol: UDP}, {name: iperf3, port: 5201}]
    backends: [{address: 10.244.1.3}, {address: "fd00:244:1::3"}]
  - name: node
    addresses: [10.96.0.1, "fd00:96::1"]
    ports: [{port: 443, targetPort: 6443}]
    backends: [{address: 192.168.1.11}, {address: "fd00:1::11"}]
"#;

/// Last parts of the addresses in [`CONFIG`].
pub mod service {
    pub const WEB: u16 = 0x10;
    pub const SELF: u16 = 0x11;
    pub const BLUE: u16 = 0x12;
    pub const NODE: u16 = 0x1;
}

/// Where the instance's maps, programs and links are pinned.
pub fn pinned(what: &str) -> PathBuf {
    ["/sys/fs/bpf/lb", NAME, what].iter().collect()
}

/// The names of the pinned programs.
pub fn programs() -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(pinned("programs"))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// A service's address in a family, from its last part as it is written in both.
pub fn vip(ipv6: bool, last: u16, port: u16) -> SocketAddr {
    let text = if ipv6 { format!("[fd00:96::{last:x}]:{port}") } else { format!("10.96.0.{last:x}:{port}") };
    text.parse().expect("an address")
}

/// A lab with its servers, taken down at the end.
pub struct Up(pub Lab);

impl Up {
    pub fn new(lab: Lab) -> Result<Up> {
        lab.up_anew()?;
        let up = Up(lab);
        lab::serve(&up.0)?;
        Ok(up)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.0.down();
    }
}

/// See the module. The agent ends and is uninstalled before the lab goes.
pub struct Bed {
    pub agent: Agent,
    up: Up,
    config: PathBuf,
}

impl Bed {
    /// The lab, `CONFIG` served.
    pub fn new(options: &[&str]) -> Result<Bed> {
        Bed::with(CONFIG, options, |_| Ok(()))
    }

    /// The lab, changed by `prepare` before the agent starts with `config`.
    pub fn with(config: &str, options: &[&str], prepare: impl FnOnce(&Lab) -> Result<()>) -> Result<Bed> {
        let lab = Lab::new(NAME);
        let devices = ["--bridge", "v-net-0", "--uplink", "eth0"];
        Bed::at(lab, "node", &devices, config, options, prepare)
    }

    /// A lab's node with an agent for these devices.
    pub fn at(
        lab: Lab,
        node: &str,
        devices: &[&str],
        config: &str,
        options: &[&str],
        prepare: impl FnOnce(&Lab) -> Result<()>,
    ) -> Result<Bed> {
        let up = Up::new(lab)?;
        prepare(&up.0)?;
        let path = env::temp_dir().join(format!("{NAME}-{}.yaml", std::process::id()));
        fs::write(&path, config)?;
        let mut agent = Agent::start_at(&up.0, node, devices, &binary()?, &path, NAME, options)?;
        agent.wait_ready()?;
        Ok(Bed { agent, up, config: path })
    }

    pub fn lab(&self) -> &Lab {
        &self.up.0
    }

    /// The config's file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Replaces the config's file whole, as tools that write configs do.
    pub fn replace(&self, config: &str) -> Result<()> {
        let new = self.config.with_extension("new");
        fs::write(&new, config)?;
        fs::rename(&new, &self.config).context("replacing the config")
    }

    /// Makes the agent serve another config; returns when it has said something about it.
    pub fn configure(&self, config: &str, said: &str) -> Result<()> {
        let before = self.agent.log()?.len();
        self.replace(config)?;
        self.wait_for(&format!("the agent says {said:?}"), || {
            Ok(self.agent.log()?.get(before..).is_some_and(|log| log.contains(said)))
        })
    }

    /// Tries until it is so.
    pub fn wait_for(&self, what: &str, mut so: impl FnMut() -> Result<bool>) -> Result<()> {
        let log = || self.agent.log().unwrap_or_default();
        until(|| Ok(so()?.then_some(()))).with_context(|| format!("{what}; the agent's log:\n{}", log()))
    }

    /// What `lb get` or `lb status` prints as JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        self.agent.json(arguments)
    }

    /// Waits until every backend takes flows and it is known where it is.
    pub fn wait_settled(&self) -> Result<()> {
        let ports = self.json(&["get", "ports"])?;
        let over_stack = ports.as_array().into_iter().flatten().any(|port| port["forward"] == "stack");
        self.wait_for("backends are reached", || {
            let backends = self.json(&["get", "backends"])?;
            let rows = backends.as_array().context("no list")?;
            let settled = |row: &Value| match (row["state"].as_str(), row["reachedBy"].as_str()) {
                (Some("removed"), _) => true,
                (_, Some("neighbour")) => over_stack,
                (state, by) => state == Some("ready") && !matches!(by, None | Some("nothing" | "gone")),
            };
            Ok(!rows.is_empty() && rows.iter().all(settled))
        })
    }

    /// How packets travel on from a port.
    pub fn forward_of(&self, port: &str) -> Result<String> {
        let ports = self.json(&["get", "ports"])?;
        let port = ports.as_array().into_iter().flatten().find(|row| row["name"] == port);
        Ok(port.map_or_else(String::new, |row| row["forward"].as_str().unwrap_or_default().to_owned()))
    }

    pub fn pages(&self, from: &str, to: SocketAddr, count: u32) -> Result<Answers> {
        request::pages(self.lab(), from, to, count).with_context(|| format!("pages from {from} to {to}"))
    }

    pub fn echoes(&self, from: &str, to: SocketAddr, count: u32) -> Result<Answers> {
        request::echoes(self.lab(), from, to, count).with_context(|| format!("echoes from {from} to {to}"))
    }

    /// Pages and echoes of a service answered by exactly these, in both families.
    pub fn answered(&self, from: &str, service: u16, by: &[&str], count: u32) -> Result<()> {
        for ipv6 in [false, true] {
            let found = self.pages(from, vip(ipv6, service, 80), count)?;
            only(&found, by).with_context(|| format!("pages from {from}, {}", vip(ipv6, service, 80)))?;
            let found = self.echoes(from, vip(ipv6, service, 90), count)?;
            only(&found, by).with_context(|| format!("echoes from {from}, {}", vip(ipv6, service, 90)))?;
        }
        Ok(())
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.config);
    }
}

/// Each of `by` has answered, and nobody else.
pub fn only(answers: &Answers, by: &[&str]) -> Result<()> {
    let names: Vec<&str> = answers.keys().map(String::as_str).collect();
    let mut by = by.to_vec();
    by.sort_unstable();
    ensure!(names == by, "answered by {answers:?} where {by:?} should have");
    Ok(())
}

/// Patience with one answer.
pub const TIMEOUT: Duration = Duration::from_secs(3);

/// A connected socket at that end, which others may have, too.
pub fn connect_from(kind: Type, from: SocketAddr, to: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), kind, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&from.into())?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.connect_timeout(&to.into(), TIMEOUT).with_context(|| format!("connecting from {from} to {to}"))?;
    Ok(socket)
}

/// Who answers one request over such a socket.
pub fn answer(kind: Type, socket: Socket) -> Result<String> {
    match kind {
        Type::STREAM => request::get(&TcpStream::from(socket)).map(|(name, _)| name),
        _ => request::ask(&UdpSocket::from(socket)),
    }
}
