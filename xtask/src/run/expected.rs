//! What the demonstration asks for and who must answer.

use super::checks::{Check, Shares, echo, page};
use crate::lab::Nodes;

/// The checks of a lab.
pub fn of(nodes: Nodes) -> &'static [Check] {
    match nodes {
        Nodes::One => &ONE_NODE,
        Nodes::Three => &THREE_NODES,
    }
}

const ALL: Shares = &[("red", 1), ("blue", 1), ("green", 1)];

const ONE_NODE: [Check; 12] = [
    page(&["red"], "web", "10.96.0.10:80", 600, ALL),
    page(&["red"], "web", "[fd00:96::10]:80", 600, ALL),
    echo(&["red"], "echo", "10.96.0.11:9090", 600, ALL),
    echo(&["red"], "echo", "[fd00:96::11]:9090", 600, ALL),
    page(&["red"], "weighted", "10.96.0.12:80", 900, &[("red", 1), ("blue", 2)]),
    page(&["red"], "itself (hairpin)", "10.96.0.13:80", 20, &[("red", 1)]),
    page(&["red"], "kubernetes (the node)", "10.96.0.1:443", 20, &[("node", 1)]),
    page(&["blue"], "kubernetes (the node)", "[fd00:96::1]:443", 20, &[("node", 1)]),
    page(&["green"], "web", "10.96.0.10:80", 300, ALL),
    page(&["client"], "web", "10.96.0.10:80", 300, ALL),
    page(&["client"], "web", "[fd00:96::10]:80", 300, ALL),
    page(&["client"], "kubernetes (the node)", "10.96.0.1:443", 20, &[("node", 1)]),
];

/// Every pod, or every node, or who is outside.
const PODS: &[&str] = &["red1", "blue1", "red2", "blue2", "red3", "blue3"];
const NODES: &[&str] = &["node1", "node2", "node3"];
const CLIENT: &[&str] = &["client"];

const OF_ALL: Shares = &[("red1", 1), ("blue1", 1), ("red2", 1), ("blue2", 1), ("red3", 1), ("blue3", 1)];
const OF_NODE1: Shares = &[("red1", 1), ("blue1", 1)];
const OF_NODE2: Shares = &[("red2", 1), ("blue2", 1)];
const OF_NODE3: Shares = &[("red3", 1), ("blue3", 1)];
const THE_NODES: Shares = &[("node1", 1), ("node2", 1), ("node3", 1)];

/// Requests of one host: that one of six backends gets none happens once in 500 million times.
const MANY: u32 = 120;
/// The same for two or three backends.
const FEW: u32 = 50;

const THREE_NODES: [Check; 56] = [
    page(PODS, "web", "10.96.0.10:80", MANY, OF_ALL),
    page(PODS, "web", "[fd00:96::10]:80", MANY, OF_ALL),
    echo(PODS, "echo", "10.96.0.11:9090", MANY, OF_ALL),
    echo(PODS, "echo", "[fd00:96::11]:9090", MANY, OF_ALL),
    page(PODS, "front", "10.96.0.12:80", MANY, OF_ALL),
    page(PODS, "front", "[fd00:96::12]:80", MANY, OF_ALL),
    echo(PODS, "front", "10.96.0.12:9090", MANY, OF_ALL),
    echo(PODS, "front", "[fd00:96::12]:9090", MANY, OF_ALL),
    page(PODS, "front (balancer)", "198.51.100.10:80", MANY, OF_ALL),
    page(PODS, "front (balancer)", "[2001:db8:100::10]:80", MANY, OF_ALL),
    echo(PODS, "front (balancer)", "198.51.100.10:9090", MANY, OF_ALL),
    echo(PODS, "front (balancer)", "[2001:db8:100::10]:9090", MANY, OF_ALL),
    page(PODS, "local", "10.96.0.13:80", MANY, OF_ALL),
    echo(PODS, "local", "[fd00:96::13]:9090", MANY, OF_ALL),
    page(PODS, "kubernetes (the nodes)", "10.96.0.1:443", FEW, THE_NODES),
    page(PODS, "kubernetes (the nodes)", "[fd00:96::1]:443", FEW, THE_NODES),
    // The port of a pod's own node.
    page(&["red1", "blue1"], "front (node port)", "192.168.1.11:30080", MANY, OF_ALL),
    echo(&["red2", "blue2"], "front (node port)", "[fd00:1::12]:30090", MANY, OF_ALL),
    page(&["red3", "blue3"], "front (node port)", "[fd00:1::13]:30080", MANY, OF_ALL),
    page(NODES, "web", "10.96.0.10:80", MANY, OF_ALL),
    page(NODES, "web", "[fd00:96::10]:80", MANY, OF_ALL),
    echo(NODES, "echo", "10.96.0.11:9090", MANY, OF_ALL),
    echo(NODES, "echo", "[fd00:96::11]:9090", MANY, OF_ALL),
    // From outside, to backends of the node that is called.
    page(CLIENT, "local (node port)", "192.168.1.11:30081", FEW, OF_NODE1),
    page(CLIENT, "local (node port)", "192.168.1.12:30081", FEW, OF_NODE2),
    page(CLIENT, "local (node port)", "192.168.1.13:30081", FEW, OF_NODE3),
    page(CLIENT, "local (node port)", "[fd00:1::11]:30081", FEW, OF_NODE1),
    page(CLIENT, "local (node port)", "[fd00:1::12]:30081", FEW, OF_NODE2),
    page(CLIENT, "local (node port)", "[fd00:1::13]:30081", FEW, OF_NODE3),
    echo(CLIENT, "local (node port)", "192.168.1.12:30091", FEW, OF_NODE2),
    echo(CLIENT, "local (node port)", "[fd00:1::13]:30091", FEW, OF_NODE3),
    page(CLIENT, "local (balancer)", "198.51.100.11:80", FEW, OF_NODE1),
    echo(CLIENT, "local (balancer)", "[2001:db8:100::11]:9090", FEW, OF_NODE1),
    // From outside, to backends of all nodes.
    page(CLIENT, "front (node port)", "192.168.1.11:30080", MANY, OF_ALL),
    page(CLIENT, "front (node port)", "192.168.1.12:30080", MANY, OF_ALL),
    page(CLIENT, "front (node port)", "192.168.1.13:30080", MANY, OF_ALL),
    page(CLIENT, "front (node port)", "[fd00:1::11]:30080", MANY, OF_ALL),
    page(CLIENT, "front (node port)", "[fd00:1::12]:30080", MANY, OF_ALL),
    page(CLIENT, "front (node port)", "[fd00:1::13]:30080", MANY, OF_ALL),
    echo(CLIENT, "front (node port)", "192.168.1.11:30090", MANY, OF_ALL),
    echo(CLIENT, "front (node port)", "192.168.1.12:30090", MANY, OF_ALL),
    echo(CLIENT, "front (node port)", "192.168.1.13:30090", MANY, OF_ALL),
    echo(CLIENT, "front (node port)", "[fd00:1::11]:30090", MANY, OF_ALL),
    echo(CLIENT, "front (node port)", "[fd00:1::12]:30090", MANY, OF_ALL),
    echo(CLIENT, "front (node port)", "[fd00:1::13]:30090", MANY, OF_ALL),
    page(CLIENT, "front (balancer)", "198.51.100.10:80", MANY, OF_ALL),
    page(CLIENT, "front (balancer)", "[2001:db8:100::10]:80", MANY, OF_ALL),
    echo(CLIENT, "front (balancer)", "198.51.100.10:9090", MANY, OF_ALL),
    echo(CLIENT, "front (balancer)", "[2001:db8:100::10]:9090", MANY, OF_ALL),
    page(CLIENT, "web", "10.96.0.10:80", MANY, OF_ALL),
    page(CLIENT, "web", "[fd00:96::10]:80", MANY, OF_ALL),
    echo(CLIENT, "echo", "10.96.0.11:9090", MANY, OF_ALL),
    echo(CLIENT, "echo", "[fd00:96::11]:9090", MANY, OF_ALL),
    page(CLIENT, "kubernetes (the nodes)", "10.96.0.1:443", FEW, THE_NODES),
    // To another node a pod is somebody outside, with its own node's address.
    page(&["red1", "blue3"], "front (node port)", "192.168.1.12:30080", MANY, OF_ALL),
    echo(&["red1", "blue3"], "front (node port)", "[fd00:1::12]:30090", MANY, OF_ALL),
];
