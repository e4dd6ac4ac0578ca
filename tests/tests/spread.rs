//! The hash that picks a slot spreads flows evenly, whatever it is that differs between them.

use std::net::Ipv4Addr;

use lb_common::{
    abi::FlowKey,
    family::{V4, V6},
    path::slot_hash,
};
use lb_tests::family::Net;

const SLOTS: usize = 251;
const FLOWS: u32 = 251 * 100;

fn key<F: Net>(client: Ipv4Addr, client_port: u16, vip: Ipv4Addr, port: u16) -> FlowKey<F> {
    FlowKey {
        src: F::addr(client),
        dst: F::addr(vip),
        src_port: client_port.to_be(),
        dst_port: port.to_be(),
        zone: 1,
        protocol: 6,
    }
}

/// Chi-square over the slots: its mean is SLOTS - 1 and its deviation sqrt(2 * (SLOTS - 1)), so that
/// 5 deviations are one chance in about a million for an even hash.
fn assert_even<F: Net>(what: &str, seed: u32, flow: impl Fn(u32) -> FlowKey<F>) {
    let mut counts = [0u32; SLOTS];
    for index in 0..FLOWS {
        let hash = slot_hash(&flow(index), seed);
        counts[((hash as u64 * SLOTS as u64) >> 32) as usize] += 1;
    }
    let expected = (FLOWS as usize / SLOTS) as f64;
    let chi: f64 = counts.iter().map(|count| (*count as f64 - expected).powi(2) / expected).sum();
    let freedom = (SLOTS - 1) as f64;
    let most = freedom + 5.0 * (2.0 * freedom).sqrt();
    assert!(chi < most, "{} {what}, seed {seed:#x}: chi-square {chi:.0} of {most:.0}: {counts:?}", F::NAME);
}

fn spreads<F: Net>() {
    let client = Ipv4Addr::new(10, 244, 1, 2);
    let vip = Ipv4Addr::new(10, 96, 0, 10);
    // The digits of one byte of an IPv4 address are one group of the IPv6 address.
    let nth = |index: u32| Ipv4Addr::new(10, (index >> 16) as u8, (index >> 8) as u8, index as u8);
    for seed in [0, 1, 0x5eed, u32::MAX] {
        assert_even::<F>("client ports", seed, |i| key(client, 32_768 + i as u16, vip, 80));
        assert_even::<F>("every other client port", seed, |i| key(client, (i * 2) as u16, vip, 80));
        assert_even::<F>("clients", seed, |i| key(nth(i), 40_000, vip, 80));
        assert_even::<F>("VIPs", seed, |i| key(client, 40_000, nth(i), 80));
        assert_even::<F>("frontend ports", seed, |i| key(client, 40_000, vip, i as u16));
        assert_even::<F>("clients that are VIPs", seed, |i| key(nth(i), 40_000, nth(i), 80));
        assert_even::<F>("equal ports", seed, |i| key(client, i as u16, vip, i as u16));
    }
}

#[test]
fn slots_spread_over_ipv4_flows() {
    spreads::<V4>();
}

#[test]
fn slots_spread_over_ipv6_flows() {
    spreads::<V6>();
}

#[test]
fn seeds_choose_differently() {
    let same = (0..10_000u32).filter(|i| {
        let key = key::<V4>(Ipv4Addr::new(10, 244, 1, 2), *i as u16, Ipv4Addr::new(10, 96, 0, 10), 80);
        slot_hash(&key, 1) >> 24 == slot_hash(&key, 2) >> 24
    });
    let same = same.count();
    assert!((10..100).contains(&same), "{same} of 10,000 flows in the same of 256 slots; 39 by chance");
}
