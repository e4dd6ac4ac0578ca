//! A load balancer without a bridge: an agent on the uplink of one of three nodes, in front of the others.

use std::{
    env, fs,
    net::UdpSocket,
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use xtask::{
    lab::{
        self, Lab, Nodes,
        request::{ask, echoes, pages},
    },
    run::Agent,
};

use crate::{
    Test,
    bed::{NAME, Up, agent, only},
};

pub const ALL: &[Test] =
    &[("a load balancer without a bridge", serves), ("a next hop that does not answer", silent)];

/// `front` on the pods of the other nodes, `host` on processes of these nodes.
const CONFIG: &str = r#"
serviceCIDRs: [10.96.0.0/12, "fd00:96::/112"]
services:
  - name: front
    type: LoadBalancer
    addresses: [10.96.0.10, "fd00:96::10"]
    loadBalancerIPs: [198.51.100.10, "2001:db8:100::10"]
    ports:
      - {name: page, port: 80, targetPort: 8080, nodePort: 30080}
      - {name: echo, port: 9090, nodePort: 30090, protocol: UDP}
    backends:
      - {address: 10.244.2.2}
      - {address: "fd00:244:2::2"}
      - {address: 10.244.3.2}
      - {address: "fd00:244:3::2"}
  - name: host
    type: NodePort
    addresses: [10.96.0.11, "fd00:96::11"]
    ports: [{port: 443, targetPort: 6443, nodePort: 30443}]
    backends:
      - {address: 192.168.1.12}
      - {address: "fd00:1::12"}
      - {address: 192.168.1.13}
      - {address: "fd00:1::13"}
"#;

const NODE: &str = "node1";

struct Alone {
    agent: Agent,
    up: Up,
    config: PathBuf,
}

impl Alone {
    fn new(prepare: impl FnOnce(&Lab) -> Result<()>) -> Result<Alone> {
        let lab = Lab::of(NAME, Nodes::Three);
        lab.up_anew()?;
        let up = Up(lab.clone());
        lab::serve(&lab)?;
        prepare(&lab)?;
        let config = env::temp_dir().join(format!("{NAME}-alone-{}.yaml", std::process::id()));
        fs::write(&config, CONFIG)?;
        let lb = agent()?;
        let mut agent = Agent::start_at(&lab, NODE, &["--uplink", "eth0"], &lb, &config, NAME, &[])?;
        agent.wait_ready()?;
        Ok(Alone { agent, up, config })
    }

    fn answered(&self, to: &[&str], by: &[&str]) -> Result<()> {
        for to in to {
            let request = if to.ends_with("90") { echoes } else { pages };
            let answers = request(&self.up.0, "client", to.parse()?, 60);
            answers.and_then(|answers| only(&answers, by)).with_context(|| format!("asking {to}"))?;
        }
        Ok(())
    }

    /// Neighbours of the node that the kernel keeps fresh.
    fn fresh(&self) -> Result<Vec<String>> {
        fresh(&self.up.0)
    }

    fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.agent.output(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("{arguments:?} printed {text}"))
    }

    /// What `lb status` warns of.
    fn warnings(&self) -> Result<String> {
        Ok(self.json(&["status"])?["warnings"].to_string())
    }

    fn wait_for(&self, what: &str, mut so: impl FnMut() -> Result<bool>) -> Result<()> {
        let start = Instant::now();
        while !so()? {
            ensure!(
                start.elapsed() < Duration::from_secs(30),
                "not within 30 s: {what}; {}",
                self.agent.log()?
            );
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.config);
    }
}

fn fresh(lab: &Lab) -> Result<Vec<String>> {
    let output = lab.command(NODE, "ip")?.args(["neigh", "show", "dev", "eth0"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let managed = text.lines().filter(|line| line.split(' ').any(|word| word == "managed"));
    let mut addresses: Vec<String> =
        managed.filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect();
    addresses.sort();
    Ok(addresses)
}

const FRONTS: [&str; 6] = [
    "192.168.1.11:30080",
    "[fd00:1::11]:30080",
    "192.168.1.11:30090",
    "[fd00:1::11]:30090",
    "198.51.100.10:80",
    "[2001:db8:100::10]:9090",
];
const HOSTS: [&str; 2] = ["192.168.1.11:30443", "[fd00:1::11]:30443"];
const NEXT_HOPS: [&str; 4] = ["192.168.1.12", "192.168.1.13", "fd00:1::12", "fd00:1::13"];

fn serves() -> Result<()> {
    let mut alone = Alone::new(|_| Ok(()))?;
    alone.answered(&FRONTS, &["red2", "red3"])?;
    alone.answered(&HOSTS, &["node2", "node3"])?;
    alone.wait_for("next hops are kept fresh", || Ok(alone.fresh()? == NEXT_HOPS))?;
    ensure!(alone.warnings()? == "[]", "{}", alone.warnings()?);

    // Who is no backend any more is nobody to keep fresh; another agent takes the others over.
    let without: Vec<&str> =
        CONFIG.lines().filter(|line| !line.contains(".13}") && !line.contains("::13\"")).collect();
    let without: Vec<&str> =
        without.into_iter().filter(|line| !line.contains("244:3:") && !line.contains("244.3")).collect();
    alone.agent.signal(Signal::TERM)?;
    alone.answered(&FRONTS, &["red2", "red3"])?;
    ensure!(alone.fresh()? == NEXT_HOPS, "without an agent: {:?}", alone.fresh()?);
    fs::write(&alone.config, without.join("\n"))?;
    alone.agent.start_again()?;
    alone.agent.wait_ready()?;
    alone
        .wait_for("one node's addresses are left", || Ok(alone.fresh()? == ["192.168.1.12", "fd00:1::12"]))?;
    alone.answered(&FRONTS, &["red2"])?;
    // Who was forgotten by somebody else is found again.
    alone.up.0.on(NODE, "neigh flush dev eth0")?;
    alone.wait_for("asked for again", || Ok(alone.fresh()? == ["192.168.1.12", "fd00:1::12"]))?;

    let lab = alone.up.0.clone();
    alone.agent.end()?;
    ensure!(fresh(&lab)?.is_empty(), "left: {:?}", fresh(&lab)?);
    Ok(())
}

/// Sockets of flows to the echo's node ports, half of which are to be red3's.
fn talking() -> Result<Vec<UdpSocket>> {
    let to = [("0.0.0.0:0", FRONTS[2]), ("[::]:0", FRONTS[3])];
    let talk = |(any, to): (&str, &str)| -> Result<_> {
        let socket = UdpSocket::bind(any)?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        ask(&socket)?;
        Ok(socket)
    };
    to.into_iter().cycle().take(32).map(talk).collect()
}

/// New flows go elsewhere, and that is said.
fn silent() -> Result<()> {
    let alone = Alone::new(|lab| {
        // The kernel would take most of a minute to be sure.
        for family in ["ipv4", "ipv6"] {
            for (name, value) in [("base_reachable_time_ms", "1000"), ("delay_first_probe_time", "1")] {
                lab.sysctl(NODE, &format!("net/{family}/neigh/eth0/{name}"), value)?;
            }
        }
        Ok(())
    })?;
    alone.answered(&FRONTS, &["red2", "red3"])?;
    alone.wait_for("next hops are kept fresh", || Ok(alone.fresh()? == NEXT_HOPS))?;
    let sockets = alone.up.0.within("client", talking)??;
    let lan = |state: &str| alone.up.0.on("lan", &format!("link set node3 {state}"));
    lan("down")?;
    let missed = || -> Result<[bool; 2]> {
        let said = alone.warnings()?;
        Ok(["192.168.1.13", "fd00:1::13"].map(|one| said.contains(&format!("{one} at eth0 does not answer"))))
    };
    alone.wait_for("both are missed", || Ok(missed()? == [true, true]))?;
    // Flows of UDP that were red3's move with their next datagram.
    for socket in &sockets {
        let by = ask(socket)?;
        ensure!(by == "red2", "{by} has answered {socket:?}");
    }
    alone.answered(&FRONTS, &["red2"])?;
    alone.answered(&HOSTS, &["node2"])?;
    let backends = alone.json(&["get", "backends"])?;
    let silent = backends.as_array().into_iter().flatten().filter(|backend| backend["state"] == "silent");
    let silent: Vec<&str> = silent.filter_map(|backend| backend["address"].as_str()).collect();
    ensure!(!silent.is_empty(), "no backend is silent: {backends}");
    ensure!(
        silent.iter().all(|at| at.contains("244.3") || at.contains(":3:") || at.ends_with("13")),
        "{silent:?}"
    );
    lan("up")?;
    alone.wait_for("both are back", || Ok(missed()? == [false, false]))?;
    alone.answered(&FRONTS, &["red2", "red3"])
}
