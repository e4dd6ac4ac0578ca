//! The hosts of the lab and their wires.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::netns;

/// A pod by its place on a bridge.
#[derive(Clone, Copy, Debug)]
pub struct Pod {
    /// Its name.
    pub name: &'static str,
    /// The bridge's network: 10.244.N.0/24 and fd00:244:N::/64 are on `v-net-(N-1)`.
    pub network: u8,
    /// Last part of its addresses.
    pub host: u8,
}

impl Pod {
    /// The pods every lab has.
    pub const ALL: [Pod; 3] = [
        Pod { name: "red", network: 1, host: 2 },
        Pod { name: "blue", network: 1, host: 3 },
        Pod { name: "green", network: 1, host: 4 },
    ];

    /// 10.244.1.2 and so on.
    pub fn ipv4(&self) -> IpAddr {
        Ipv4Addr::new(10, 244, self.network, self.host).into()
    }

    /// fd00:244:1::2 and so on.
    pub fn ipv6(&self) -> IpAddr {
        Ipv6Addr::new(0xfd00, 0x244, self.network as u16, 0, 0, 0, 0, self.host as u16).into()
    }

    /// The bridge it hangs off.
    pub fn bridge(&self) -> String {
        bridge(self.network)
    }
}

fn bridge(network: u8) -> String {
    format!("v-net-{}", network - 1)
}

/// A lab by the prefix of its namespaces, so that several can be up.
#[derive(Clone, Debug)]
pub struct Lab {
    prefix: String,
}

impl Lab {
    /// The lab with that prefix, up or not.
    pub fn new(prefix: &str) -> Lab {
        Lab { prefix: prefix.to_owned() }
    }

    /// The namespace of a host.
    pub fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// A command that will run in a host's network.
    pub fn command(&self, host: &str, program: &str) -> Result<Command> {
        netns::enter(&self.namespace(host), program)
    }

    /// Runs `work` in a host's network.
    pub fn within<T: Send + 'static>(
        &self,
        host: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        netns::within(&self.namespace(host), work)
    }

    /// Brings everything up; if that fails, takes down what there is.
    pub fn up(&self) -> Result<()> {
        if std::path::Path::new("/run/netns").join(self.namespace("node")).exists() {
            bail!("the lab {} is up already: `cargo xtask lab down` takes it down", self.prefix);
        }
        self.build().inspect_err(|_| self.down())
    }

    /// Brings everything up, after taking down what a run that was killed has left.
    pub fn up_anew(&self) -> Result<()> {
        self.down();
        self.up()
    }

    /// Takes everything down; what is not there is fine.
    pub fn down(&self) {
        let Ok(namespaces) = std::fs::read_dir("/run/netns") else { return };
        for name in namespaces.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
            if name.strip_prefix(&self.prefix).is_some_and(|rest| rest.starts_with('-')) {
                let _ = ip(&format!("netns del {name}"));
            }
        }
    }

    fn build(&self) -> Result<()> {
        self.add_host("node")?;
        self.add_bridge(1)?;
        for pod in Pod::ALL {
            self.add_pod(pod)?;
        }
        self.add_host("client")?;
        let (node, client) = (self.namespace("node"), self.namespace("client"));
        ip(&format!("link add eth0 netns {node} type veth peer name eth0 netns {client}"))?;
        for (host, last) in [("node", "11"), ("client", "100")] {
            self.on(host, &format!("addr add 192.168.1.{last}/24 dev eth0"))?;
            self.on(host, &format!("addr add fd00:1::{last}/64 dev eth0 nodad"))?;
            self.on(host, "link set eth0 up")?;
        }
        self.on("node", "route add default via 192.168.1.100")?;
        self.on("node", "-6 route add default via fd00:1::100")?;
        self.on("client", "route add default via 192.168.1.11")?;
        self.on("client", "-6 route add default via fd00:1::11")?;
        self.sysctl("node", "net/ipv4/ip_forward", "1")?;
        self.sysctl("node", "net/ipv6/conf/all/forwarding", "1")?;
        // What every such host has: pods that go out get the node's address.
        for (tool, pods, cluster) in [
            ("iptables", "10.244.1.0/24", "10.244.0.0/16"),
            ("ip6tables", "fd00:244:1::/64", "fd00:244::/32"),
        ] {
            let rule = format!("-t nat -A POSTROUTING -s {pods} ! -d {cluster} -o eth0 -j MASQUERADE");
            check(self.command("node", tool)?.args(rule.split(' ')))?;
        }
        Ok(())
    }

    /// Adds the bridge of a network to the node.
    pub fn add_bridge(&self, network: u8) -> Result<()> {
        let bridge = bridge(network);
        self.on("node", &format!("link add {bridge} type bridge"))?;
        self.on("node", &format!("addr add 10.244.{network}.1/24 dev {bridge}"))?;
        self.on("node", &format!("addr add fd00:244:{network}::1/64 dev {bridge} nodad"))?;
        self.on("node", &format!("link set {bridge} up"))
    }

    /// Takes a pod away, its port with it.
    pub fn remove_pod(&self, pod: Pod) -> Result<()> {
        self.on("node", &format!("link del veth-{}", pod.name))?;
        ip(&format!("netns del {}", self.namespace(pod.name)))
    }

    /// Makes a pod and plugs it into its bridge.
    pub fn add_pod(&self, pod: Pod) -> Result<()> {
        self.add_host(pod.name)?;
        let (node, namespace, name) = (self.namespace("node"), self.namespace(pod.name), pod.name);
        ip(&format!("link add veth-{name} netns {node} type veth peer name eth0 netns {namespace}"))?;
        self.on("node", &format!("link set veth-{name} master {} up", pod.bridge()))?;
        self.give_addresses(pod)
    }

    /// Gives a pod's `eth0` its addresses and routes.
    pub fn give_addresses(&self, pod: Pod) -> Result<()> {
        let Pod { name, network, .. } = pod;
        self.on(name, &format!("addr add {}/24 dev eth0", pod.ipv4()))?;
        self.on(name, &format!("addr add {}/64 dev eth0 nodad", pod.ipv6()))?;
        self.on(name, "link set eth0 up")?;
        self.on(name, &format!("route add default via 10.244.{network}.1"))?;
        self.on(name, &format!("-6 route add default via fd00:244:{network}::1"))
    }

    /// Makes a host without any wire.
    pub fn add_host(&self, host: &str) -> Result<()> {
        ip(&format!("netns add {}", self.namespace(host)))?;
        self.on(host, "link set lo up")
    }

    /// `ip` in a host's network.
    pub fn on(&self, host: &str, arguments: &str) -> Result<()> {
        ip(&format!("-n {} {arguments}", self.namespace(host)))
    }

    /// Sets a kernel parameter of a host's network, by its path below /proc/sys.
    pub fn sysctl(&self, host: &str, path: &str, value: &str) -> Result<()> {
        let (path, value) = (format!("/proc/sys/{path}"), value.to_owned());
        self.within(host, move || std::fs::write(&path, value).with_context(|| format!("writing {path}")))?
    }
}

fn ip(arguments: &str) -> Result<()> {
    check(Command::new("ip").args(arguments.split(' ')))
}

/// Runs a command to its end; its words if it fails.
fn check(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}").replace('"', "");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("running `{shown}`"))?;
    if !output.status.success() {
        bail!("`{shown}`: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
