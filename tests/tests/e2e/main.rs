//! End to end: the agent on real bridges, real sockets through the VIPs. Each test has a lab of its own.

mod alone;
mod announce;
mod answers;
mod bed;
mod bridges;
mod crowd;
mod dsr;
mod flows;
mod follow;
mod forward;
mod fragments;
mod icmp;
mod lan;
mod neighbours;
mod networks;
mod node_gone;
mod nodes;
mod objects;
mod one_pod;
mod ports;
mod reload;
mod restart;
mod routed;
mod routed_pods;
mod same_port;
mod seen;
mod services;
mod sizes;
mod snat_ports;
mod sockets;
mod source_guard;
mod tap;
mod uninstall;
mod uplinks;
mod vlan;
mod xdp;

use libtest_mimic::{Arguments, Failed, Trial};

/// A test by name.
type Test = (&'static str, fn() -> anyhow::Result<()>);

fn main() {
    flows::flood::serve_if_asked();
    let mut arguments = Arguments::from_args();
    // They load the same cores, and the death of the thread that started an agent ends the agent.
    arguments.test_threads = Some(1);
    let all = [
        alone::ALL,
        announce::ALL,
        answers::ALL,
        bridges::ALL,
        crowd::ALL,
        dsr::ALL,
        flows::ALL,
        follow::ALL,
        forward::ALL,
        icmp::ALL,
        fragments::ALL,
        source_guard::ALL,
        snat_ports::ALL,
        lan::ALL,
        neighbours::ALL,
        networks::ALL,
        node_gone::ALL,
        nodes::ALL,
        objects::ALL,
        one_pod::ALL,
        ports::ALL,
        reload::ALL,
        restart::ALL,
        seen::ALL,
        same_port::ALL,
        services::ALL,
        routed::ALL,
        sizes::ALL,
        sockets::ALL,
        uninstall::ALL,
        uplinks::ALL,
        vlan::ALL,
        xdp::ALL,
    ];
    let trial = |(name, test): Test| {
        Trial::test(format!("e2e/{name}"), move || test().map_err(|error| Failed::from(format!("{error:#}"))))
    };
    let mut trials: Vec<Trial> = all.concat().into_iter().map(trial).collect();
    // Minutes, and so only where they are asked for.
    trials.extend(flows::LONG.iter().chain(crowd::LONG).map(|test| trial(*test).with_ignored_flag(true)));
    libtest_mimic::run(&arguments, trials).exit();
}
