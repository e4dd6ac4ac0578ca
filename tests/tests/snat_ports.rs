//! Nearly all of the range of ports is allocated before a flow is refused.

use std::net::Ipv4Addr;

use bumpalo::Bump;
use lb_common::{
    abi::{Settings, Stop, ZONE_UPLINK},
    family::{V4, V6},
    path::{Hook, Verdict},
    wire::Protocol,
};
use lb_tests::{
    family::Net,
    host::Running,
    packet::tcp,
    state::{State, UPLINK, on_uplink, outside},
};

const VIP: &str = "10.96.0.10:80";
/// How many ports a range has: the fewest, some, and as many as by default.
const RANGES: [u32; 3] = [64, 1000, 20_000];
/// Every so many ports a flow to another backend comes in between.
const OTHERS: u32 = 3;

/// Flows that were let in until one was refused, of clients outside, of which `clients` share an address.
fn until_refused<F: Net>(ports: u32, clients: u32) -> u32 {
    let state = State::<F>::default()
        .service(1, &[(Protocol::Tcp, VIP)], &[1])
        .backend(1, 1, "10.244.9.9:8080", ZONE_UPLINK, outside())
        .service(2, &[(Protocol::Tcp, "10.96.0.11:80")], &[2])
        .backend(2, 2, "10.244.9.8:8080", ZONE_UPLINK, outside());
    let mut settings = Settings { snat_first: 10_000, snat_ports: ports, ..on_uplink() };
    F::set_host(&mut settings, Ipv4Addr::new(192, 168, 1, 11));
    let arena = Bump::new();
    let mut node = Running::new(&arena, &state, settings);
    let mut asks = |number: u32, vip: &str| {
        let [_, high, middle, low] = (number / clients).to_be_bytes();
        let from = format!("10.{high}.{middle}.{low}:{}", 20_000 + number % clients);
        node.run(Hook::UplinkIngress, UPLINK, &tcp(&from, vip).syn().bytes::<F>()).0
    };
    let mut others = 0;
    let refused = (0..=ports).find(|number| {
        if number % OTHERS == 0 && matches!(asks(*number, "10.96.0.11:80"), Verdict::Forward(_)) {
            others += 1;
        }
        match asks(*number, VIP) {
            Verdict::Forward(_) => false,
            verdict => {
                assert_eq!(verdict, Verdict::Drop(Stop::NoSnatPort));
                true
            }
        }
    });
    let let_in = refused.expect("more flows than there are ports");
    // The ports are the keys of these rows: no two flows have one.
    assert_eq!(node.outcome().learned.snat.len() as u32, let_in + others);
    let_in
}

fn nearly_all<F: Net>() {
    for ports in RANGES {
        for clients in [1, 100, 20_001] {
            let let_in = until_refused::<F>(ports, clients);
            assert!(let_in * 10 >= ports * 9, "{}: refused when {let_in} of {ports} were allocated", F::NAME);
        }
    }
}

#[test]
fn nearly_all_ports_are_lent_over_ipv4() {
    nearly_all::<V4>();
}

#[test]
fn nearly_all_ports_are_lent_over_ipv6() {
    nearly_all::<V6>();
}
