//! Every way packets can travel on: from pods, from outside, to pods, to oneself, to the node.

use anyhow::{Result, ensure};

use crate::{
    Test,
    bed::{Bed, only, service, vip},
};

pub const ALL: &[Test] = &[
    ("forward auto", || all_paths(&[], "peer")),
    ("forward peer", || all_paths(&["--forward", "peer"], "peer")),
    ("forward bridge", || all_paths(&["--forward", "bridge"], "bridge")),
    ("forward stack", || all_paths(&["--forward", "stack"], "stack")),
    ("forward auto by clsact filters", || all_paths(&["--clsact"], "peer")),
    ("forward bridge by clsact filters", || all_paths(&["--forward", "bridge", "--clsact"], "bridge")),
    ("forward stack by clsact filters", || all_paths(&["--forward", "stack", "--clsact"], "stack")),
];

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
