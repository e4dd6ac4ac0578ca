//! End to end: the agent on real bridges, real sockets through the VIPs. Each test has a lab of its own.

mod answers;
mod bed;
mod forward;
mod fragments;
mod homes;
mod icmp;
mod neighbours;
mod nodes;
mod ports;
mod reload;
mod restart;
mod seen;
mod services;
mod sockets;
mod tap;
mod uninstall;
mod vlan;

use libtest_mimic::{Arguments, Failed, Trial};

/// A test by name.
type Test = (&'static str, fn() -> anyhow::Result<()>);

fn main() {
    let mut arguments = Arguments::from_args();
    // They load the same cores, and the death of the thread that started an agent ends the agent.
    arguments.test_threads = Some(1);
    let all = [
        answers::ALL,
        forward::ALL,
        icmp::ALL,
        fragments::ALL,
        homes::ALL,
        neighbours::ALL,
        nodes::ALL,
        ports::ALL,
        reload::ALL,
        restart::ALL,
        seen::ALL,
        services::ALL,
        sockets::ALL,
        uninstall::ALL,
        vlan::ALL,
    ];
    let trials = all.concat().into_iter().map(|(name, test): Test| {
        Trial::test(format!("e2e/{name}"), move || test().map_err(|error| Failed::from(format!("{error:#}"))))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}
