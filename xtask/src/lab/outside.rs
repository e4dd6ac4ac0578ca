//! What nodes and the client are to each other: their wires, routes and what leaves under another address.

use anyhow::{Context as _, Result};

use super::{Lab, Nodes, hosts::check, pass, topology::CLIENT};

/// The host that is the LAN: nothing but the bridge of that name.
const LAN: &str = "lan";
/// Last part of the client's addresses, 192.168.1.0/24 and fd00:1::/64.
const CLIENT_AT: u8 = 100;

/// Last part of the address of the node that has the network.
fn node_at(network: u8) -> u8 {
    10 + network
}

impl Lab {
    /// Joins the nodes and the client, each by its `eth0`, and has them route.
    pub fn wire(&self) -> Result<()> {
        let nodes = self.nodes().names();
        match self.nodes() {
            Nodes::One => self.add_wire((nodes[0], "eth0"), (CLIENT, "eth0"))?,
            Nodes::Three => self.add_lan()?,
        }
        let numbered = || (1..).zip(nodes.iter().copied());
        let at = numbered().map(|(network, node)| (node, node_at(network)));
        for (host, last) in at.chain([(CLIENT, CLIENT_AT)]) {
            self.on(host, &format!("addr add 192.168.1.{last}/24 dev eth0"))?;
            self.on(host, &format!("addr add fd00:1::{last}/64 dev eth0 nodad"))?;
            self.on(host, "link set eth0 up")?;
        }
        self.add_default_route(CLIENT, node_at(1))?;
        for (network, node) in numbered() {
            self.add_default_route(node, CLIENT_AT)?;
            for (other, _) in numbered().filter(|(other, _)| *other != network) {
                let last = node_at(other);
                self.on(node, &format!("route add 10.244.{other}.0/24 via 192.168.1.{last}"))?;
                self.on(node, &format!("-6 route add fd00:244:{other}::/64 via fd00:1::{last}"))?;
            }
            self.forward(node, network)?;
        }
        Ok(())
    }

    fn add_default_route(&self, host: &str, last: u8) -> Result<()> {
        self.on(host, &format!("route add default via 192.168.1.{last}"))?;
        self.on(host, &format!("-6 route add default via fd00:1::{last}"))
    }

    /// Makes a node a router for its pods.
    fn forward(&self, node: &str, network: u8) -> Result<()> {
        self.sysctl(node, "net/ipv4/ip_forward", "1")?;
        self.sysctl(node, "net/ipv6/conf/all/forwarding", "1")?;
        // What every such host has: pods that go out get the node's address.
        for (tool, pods, cluster) in [
            ("iptables", format!("10.244.{network}.0/24"), "10.244.0.0/16"),
            ("ip6tables", format!("fd00:244:{network}::/64"), "fd00:244::/32"),
        ] {
            let rule = format!("-t nat -A POSTROUTING -s {pods} ! -d {cluster} -o eth0 -j MASQUERADE");
            check(self.command(node, tool)?.args(rule.split(' ')))?;
        }
        Ok(())
    }

    /// A bridge with a port for every node and for the client.
    fn add_lan(&self) -> Result<()> {
        self.add_host(LAN)?;
        self.on(LAN, &format!("link add {LAN} type bridge"))?;
        self.on(LAN, &format!("link set {LAN} up"))?;
        for host in self.nodes().names().iter().copied().chain([CLIENT]) {
            self.add_wire((host, "eth0"), (LAN, host))?;
            // As a NIC has it: between two veths checksums stay unfinished, and one that a program has got
            // wrong is never looked at. Segments are made before the wire and joined behind it.
            self.offload(host, "eth0", "tx off gro on")?;
            self.offload(LAN, host, "tx off")?;
            self.on(LAN, &format!("link set {host} master {LAN} up"))?;
        }
        Ok(())
    }

    /// Has the LAN hear at once what XDP at its nodes sends back.
    pub fn hear_xdp(&self) -> Result<()> {
        let nodes = self.nodes().names();
        self.within(LAN, move || pass::attach(nodes))?.context("attaching a program to the LAN's ports")
    }

    /// Sets what a device does for the stack, in ethtool's words.
    pub fn offload(&self, host: &str, device: &str, features: &str) -> Result<()> {
        check(self.command(host, "ethtool")?.args(["-K", device]).args(features.split(' ')))
    }
}
