use std::collections::BTreeSet;

use super::*;
use crate::model::Service;

/// A model of the given ranges and services: a name and either `wants` (`4`, `6`, `46`) or an address.
fn model(ranges: &[&str], services: &[(&str, &str)]) -> Model {
    let services = services.iter().map(|&(name, what)| {
        let name = ServiceName { namespace: "default".into(), name: name.into() };
        let (addresses, wants) = match what {
            "4" => (vec![], vec![Family::V4]),
            "6" => (vec![], vec![Family::V6]),
            "46" => (vec![], vec![Family::V4, Family::V6]),
            address => (vec![address.parse().expect("an address")], vec![]),
        };
        (name.clone(), Arc::new(Service { name, addresses, wants, ..Service::default() }))
    });
    let service_cidrs = ranges.iter().map(|range| range.parse().expect("a range")).collect();
    Model { services: services.collect(), service_cidrs, ..Model::default() }
}

fn addresses(model: &Model, name: &str) -> Vec<String> {
    let service = model.services.values().find(|service| service.name.name == name).expect("the service");
    service.addresses.iter().map(IpAddr::to_string).collect()
}

#[test]
fn a_service_keeps_its_address_over_a_restart_and_beside_others() {
    let mut allocations = Allocations::default();
    let mut first = model(&["10.96.0.0/12", "fd00::/112"], &[("web", "46"), ("dns", "4")]);
    allocations.assign(&mut first).expect("room");
    let web = addresses(&first, "web");
    assert_eq!(web.len(), 2);
    assert!(web[0].starts_with("10.") && web[1].starts_with("fd00::"), "{web:?}");

    let json = serde_json::to_string(&allocations).expect("JSON");
    let mut restarted: Allocations = serde_json::from_str(&json).expect("the same JSON");
    assert_eq!(restarted, allocations);
    let mut second = model(&["10.96.0.0/12", "fd00::/112"], &[("api", "4"), ("web", "46")]);
    restarted.assign(&mut second).expect("room");
    assert_eq!(addresses(&second, "web"), web);

    // `dns` was away for one model and still has its own.
    let mut third = first.clone();
    restarted.assign(&mut third).expect("room");
    assert_eq!(third, first);
}

#[test]
fn the_start_depends_on_the_name_alone() {
    let both = &mut model(&["10.96.0.0/12"], &[("a", "4"), ("b", "4")]);
    let one = &mut model(&["10.96.0.0/12"], &[("b", "4")]);
    Allocations::default().assign(both).expect("room");
    Allocations::default().assign(one).expect("room");
    assert_eq!(addresses(both, "b"), addresses(one, "b"));
}

#[test]
fn all_usable_addresses_are_given_and_no_other() {
    let cases: [(&str, &str, &[&str]); 6] = [
        ("192.0.2.8/30", "4", &["192.0.2.9", "192.0.2.10"]),
        ("192.0.2.8/31", "4", &["192.0.2.8", "192.0.2.9"]),
        ("192.0.2.8/32", "4", &["192.0.2.8"]),
        ("255.255.255.252/30", "4", &["255.255.255.253", "255.255.255.254"]),
        ("fd00::/126", "6", &["fd00::1", "fd00::2", "fd00::3"]),
        ("fd00::7/128", "6", &["fd00::7"]),
    ];
    for (range, wants, expected) in cases {
        let names = ["a", "b", "c", "d", "e"];
        let services: Vec<_> = names[..expected.len()].iter().map(|&name| (name, wants)).collect();
        let mut fits = model(&[range], &services);
        let mut allocations = Allocations::default();
        allocations.assign(&mut fits).expect("room for as many as are expected");
        let given: BTreeSet<IpAddr> =
            fits.services.values().flat_map(|service| service.addresses.clone()).collect();
        let expected_set = expected.iter().map(|text| text.parse().expect("an address")).collect();
        assert_eq!(given, expected_set, "{range}");

        let services: Vec<_> = names[..=expected.len()].iter().map(|&name| (name, wants)).collect();
        let mut full = model(&[range], &services);
        let (before, untouched) = (allocations.clone(), full.clone());
        let error = allocations.assign(&mut full).expect_err("one too many");
        let family = if wants == "4" { "IPv4" } else { "IPv6" };
        let name = names[expected.len()];
        assert_eq!(
            error.to_string(),
            format!(
                "serviceCIDRs {range} is full: no free {family} address for service default/{name}; \
                 widen it, add a range, or remove services"
            )
        );
        assert_eq!((allocations, full), (before, untouched), "a refused model changes nothing");
    }
}

#[test]
fn an_address_somebody_names_is_not_given_and_is_given_up() {
    let mut allocations = Allocations::default();
    let mut before = model(&["192.0.2.0/30"], &[("web", "4")]);
    allocations.assign(&mut before).expect("room");
    let web = addresses(&before, "web");
    let other = if web[0] == "192.0.2.1" { "192.0.2.2" } else { "192.0.2.1" };

    let mut after = model(&["192.0.2.0/30"], &[("fixed", &web[0]), ("web", "4")]);
    allocations.assign(&mut after).expect("room");
    assert_eq!(addresses(&after, "web"), [other]);
    assert_eq!(addresses(&after, "fixed"), web);
}

#[test]
fn a_vanished_service_gives_way_only_to_a_full_range() {
    let mut allocations = Allocations::default();
    allocations.assign(&mut model(&["192.0.2.0/30"], &[("gone", "4")])).expect("room");
    allocations.assign(&mut model(&["192.0.2.0/30"], &[("a", "4")])).expect("room");
    assert!(allocations.by_name.contains_key("default/gone"));
    let mut both = model(&["192.0.2.0/30"], &[("a", "4"), ("b", "4")]);
    allocations.assign(&mut both).expect("room once the vanished one gives way");
    assert!(!allocations.by_name.contains_key("default/gone"));
}

#[test]
fn a_second_range_takes_what_the_first_cannot() {
    let ranges = ["192.0.2.1/32", "198.51.100.1/32"];
    let mut two = model(&ranges, &[("a", "4"), ("b", "4")]);
    Allocations::default().assign(&mut two).expect("room");
    assert_eq!(addresses(&two, "a"), ["192.0.2.1"]);
    assert_eq!(addresses(&two, "b"), ["198.51.100.1"]);
}

#[test]
fn a_changed_range_and_a_damaged_file_are_mended() {
    let json = r#"{"default/a": ["10.0.0.5"], "default/b": ["192.0.2.1"], "default/c": ["192.0.2.1"]}"#;
    let mut allocations: Allocations = serde_json::from_str(json).expect("JSON");
    let mut new = model(&["192.0.2.0/24"], &[("a", "4"), ("b", "4"), ("c", "4")]);
    allocations.assign(&mut new).expect("room");
    let given: BTreeSet<String> = ["a", "b", "c"].iter().flat_map(|name| addresses(&new, name)).collect();
    assert_eq!(given.len(), 3);
    assert!(given.iter().all(|address| address.starts_with("192.0.2.")), "{given:?}");
    assert_eq!(addresses(&new, "b"), ["192.0.2.1"]);
}

#[test]
fn without_a_range_there_is_no_address() {
    let error =
        Allocations::default().assign(&mut model(&["10.96.0.0/12"], &[("web", "6")])).expect_err("no range");
    assert_eq!(
        error.to_string(),
        "service default/web has no address and serviceCIDRs has no IPv6 range to give it one from; \
         add a range or an address"
    );
}

#[test]
fn an_address_outside_is_not_given() {
    let ranges = ["192.0.2.0/30"];
    let mut alone = model(&ranges, &[("web", "4")]);
    Allocations::default().assign(&mut alone).expect("room");
    let web: IpAddr = addresses(&alone, "web")[0].parse().expect("an address");
    for balanced in [true, false] {
        let mut both = model(&ranges, &[("out", "10.0.0.1"), ("web", "4")]);
        for service in both.services.values_mut().filter(|service| service.name.name == "out") {
            let service = Arc::make_mut(service);
            let list = if balanced { &mut service.load_balancer_ips } else { &mut service.external_ips };
            list.push(web);
        }
        Allocations::default().assign(&mut both).expect("room");
        assert_ne!(addresses(&both, "web"), [web.to_string()]);
    }
}
