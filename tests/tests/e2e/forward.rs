//! Every way packets can travel on: from pods, from outside, to pods, to oneself, to the node.

use anyhow::{Result, ensure};

use crate::{
    Test,
    bed::{Bed, CONFIG, only, service, vip},
};

pub const ALL: &[Test] = &[
    ("forward auto", || all_paths(&[], "peer")),
    ("forward peer", || all_paths(&["--forward", "peer"], "peer")),
    ("forward bridge", || all_paths(&["--forward", "bridge"], "bridge")),
    ("forward stack", || all_paths(&["--forward", "stack"], "stack")),
    ("forward auto by clsact filters", || all_paths(&["--clsact"], "peer")),
    ("forward bridge by clsact filters", || all_paths(&["--forward", "bridge", "--clsact"], "bridge")),
    ("rules that drop what is invalid", invalid_is_dropped),
    ("forward stack by clsact filters", || all_paths(&["--forward", "stack", "--clsact"], "stack")),
];

/// Whether the bridge hands packets to netfilter is a namespace's own.
fn invalid_is_dropped() -> Result<()> {
    let bed = |mode| {
        Bed::with(CONFIG, &["--forward", mode], |lab| {
            lab.sysctl("node", "net/bridge/bridge-nf-call-iptables", "1")?;
            lab.output("node", "iptables -A FORWARD -m conntrack --ctstate INVALID -j DROP")?;
            Ok(())
        })
    };
    let said = "takes for INVALID";
    {
        let bed = bed("bridge")?;
        ensure!(bed.agent.log()?.contains(said), "no word");
        ensure!(bed.pages("red", vip(false, service::BLUE, 80), 1).is_err(), "it is served: say so");
        bed.lab().sysctl("node", "net/bridge/bridge-nf-call-iptables", "0")?;
        only(&bed.pages("red", vip(false, service::BLUE, 80), 5)?, &["blue"])?;
    }
    for mode in ["stack", "peer"] {
        let bed = bed(mode)?;
        ensure!(!bed.agent.log()?.contains(said), "{mode}: said for nothing");
        only(&bed.pages("red", vip(false, service::BLUE, 80), 5)?, &["blue"])?;
    }
    Ok(())
}

const PODS: [&str; 3] = ["red", "blue", "green"];

fn all_paths(options: &[&str], expected: &str) -> Result<()> {
    let bed = Bed::new(options)?;
    let way = bed.forward_of("veth-red")?;
    ensure!(way == expected, "veth-red forwards by {way:?}, not by {expected:?}");
    for from in ["red", "blue", "green", "client"] {
        bed.answered(from, service::WEB, &PODS, 40)?;
        bed.answered(from, service::BLUE, &["blue"], 5)?;
        for ipv6 in [false, true] {
            only(&bed.pages(from, vip(ipv6, service::NODE, 443), 5)?, &["node"])?;
        }
    }
    // A pod that is chosen for its own call.
    bed.answered("red", service::SELF, &["red"], 5)
}
