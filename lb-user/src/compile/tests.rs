use std::sync::Arc;

use lb_common::abi::{Scope, Scopes};
use proptest::prelude::*;

use super::*;
use crate::model::{Conditions, Distribution, Model, Place, ServiceName, ServiceType};

/// The node `here` in zone `a`: its pods are in 10.1.0.0/16, and 192.0.2.1 is its own.
fn here() -> NodeFacts {
    let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect();
    NodeFacts {
        name: "here".into(),
        zone: Some("a".into()),
        node_ports: addresses(&["192.0.2.1", "fd00::1"]),
        host_ports: addresses(&["127.0.0.1", "192.0.2.1", "192.0.2.2", "fd00::1"]),
        host: addresses(&["192.0.2.1", "fd00::1"]),
        own: addresses(&["192.0.2.1", "fd00::1"]),
        pods: vec!["10.1.0.0/16".parse().expect("a range")],
        ..NodeFacts::default()
    }
}

/// `CONDITION@NODE/ZONE` with hints and a weight behind it, like `ready@here/a zones=a,b nodes=here *0`; a
/// node of `-` is not told. Addresses go 10.1.0.1, 10.1.0.2 ..., or 10.2.0.1 ... for `-far`.
fn endpoint(index: usize, text: &str) -> Endpoint {
    let mut words = text.split(' ');
    let first = words.next().unwrap_or_default();
    let (condition, place) = first.split_once('@').expect("a condition and a place");
    let (node, zone) = place.split_once('/').unwrap_or((place, ""));
    let told = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty() && !text.starts_with('-'));
    let mut place = Place { node: told(node), zone: told(zone), ..Place::default() };
    let mut weight = 1;
    for word in words {
        let names = |list: &str| list.split(',').map(str::to_owned).collect();
        match word.split_once('=') {
            Some(("zones", list)) => place.for_zones = names(list),
            Some(("nodes", list)) => place.for_nodes = names(list),
            _ => weight = word.trim_start_matches('*').parse().expect("a weight"),
        }
    }
    let (ready, serving, terminating) = match condition {
        "ready" => (true, true, false),
        "published" => (true, true, true), // publishNotReadyAddresses
        "unready" => (false, false, false),
        "ending" => (false, true, true),
        "dead" => (false, false, true),
        "warming" => (false, true, false),
        _ => panic!("{condition} is not a condition"),
    };
    let second = if node == "-far" { 2 } else { 1 };
    Endpoint {
        address: [10, second, 0, index as u8 + 1].into(),
        port: 8080,
        weight,
        conditions: Conditions { ready, serving, terminating },
        place: Some(Arc::new(place)).filter(|place| **place != Place::default()),
    }
}

/// What endpoints take, a letter each: both scopes, `C`luster or `L`ocal alone, `d`raining, `s`ilent, `-` removed.
fn states(endpoints: &[&str], distribution: Distribution, node: &NodeFacts) -> String {
    let endpoints: Vec<Endpoint> =
        endpoints.iter().enumerate().map(|(index, text)| endpoint(index, text)).collect();
    let letter = |state| match state {
        BackendState::Active(Scopes::Both) => 'B',
        BackendState::Active(Scopes::Cluster) => 'C',
        BackendState::Active(Scopes::Local) => 'L',
        BackendState::Draining => 'd',
        BackendState::Silent => 's',
        BackendState::Removed | BackendState::Reset => '-',
        BackendState::Free => '!',
    };
    let refs: Vec<&Endpoint> = endpoints.iter().collect();
    usable::states(&refs, distribution, node).into_iter().map(letter).collect()
}

#[track_caller]
fn check(distribution: Distribution, cases: &[(&[&str], &str)]) {
    for (endpoints, expected) in cases {
        assert_eq!(states(endpoints, distribution, &here()), *expected, "{distribution:?} {endpoints:?}");
    }
}

#[test]
fn conditions_decide_for_each_scope_by_itself() {
    check(
        Distribution::Even,
        &[
            (&[], ""),
            (&["ready@here", "ready@there"], "BC"),
            (&["ready@here", "unready@here", "warming@here", "ending@here", "dead@here"], "B-dd-"),
            // None is ready: those that serve while they terminate (KEP-1669).
            (&["ending@here", "ending@there", "dead@there", "unready@here"], "BC--"),
            (&["warming@here", "ending@there"], "dC"),
            (&["warming@here"], "d"),
            (&["unready@here", "dead@there"], "--"),
            // The scopes differ where this node's endpoints end and others are ready.
            (&["ending@here", "ready@there"], "LC"),
            (&["dead@here", "ready@there"], "-C"),
            (&["ending@here", "ready@here", "ready@there"], "dBC"),
            (&["ready@here", "ending@there"], "Bd"),
            // Published before they are ready: ready, whatever else.
            (&["published@here", "ending@here"], "Bd"),
            // Weight 0 takes nothing and is in nobody's way.
            (&["ready@here *0", "ready@there"], "dC"),
            (&["ready@here *0", "ending@here"], "dB"),
            (&["ready@here *0"], "d"),
            (&["unready@here *0"], "-"),
        ],
    );
}

#[test]
fn who_is_silent_takes_no_new_flows_as_long_as_another_does() {
    // Addresses end in the places from 1.
    for (endpoints, silent, expected) in [
        (&["ready@here", "ready@there", "ready@there"][..], &[2][..], "BsC"),
        (&["ready@there", "ready@there"], &[1], "sC"),
        (&["ready@there", "ending@there"], &[1], "sC"),
        (&["ready@there", "unready@there", "dead@there"], &[2], "C--"),
        (&["ready@there/a zones=a", "ready@there zones=b"], &[1], "sC"),
        // Nobody else is there: as if nothing were known.
        (&["ready@there", "ready@there"], &[1, 2], "CC"),
        (&["ready@there", "unready@there"], &[1], "C-"),
        (&["ready@there", "warming@there"], &[1], "Cd"),
        // It is another's.
        (&["ready@here", "ready@there"], &[9], "BC"),
    ] {
        let silent = silent.iter().map(|last| [10, 1, 0, *last].into()).collect();
        let node = NodeFacts { silent, ..here() };
        assert_eq!(states(endpoints, Distribution::Even, &node), expected, "{endpoints:?}");
    }
}

#[test]
fn an_endpoint_is_here_by_its_node_or_else_by_its_address() {
    check(
        Distribution::Even,
        &[(&["ready@-", "ready@-far"], "BC"), (&["ready@there", "ready@-far", "ready@here"], "CCB")],
    );
    let mut node = here();
    node.pods.clear();
    assert_eq!(states(&["ready@-", "ready@here"], Distribution::Even, &node), "CB");
    node.own = vec![[10, 1, 0, 1].into()];
    assert_eq!(states(&["ready@-", "ready@-"], Distribution::Even, &node), "BC");
}

#[test]
fn hints_count_if_all_ready_endpoints_have_them_and_one_is_for_here() {
    for distribution in [Distribution::Even, Distribution::SameZone, Distribution::SameNode] {
        check(
            distribution,
            &[
                (&["ready@there zones=a", "ready@there zones=b"], "Cd"),
                (&["ready@there zones=a,b", "ready@there zones=b"], "Cd"),
                // Scope Local does not look at them.
                (&["ready@there zones=a", "ready@here zones=b"], "CL"),
                // One ready endpoint has none; none is for this zone.
                (&["ready@there zones=a", "ready@there"], "CC"),
                (&["ready@there zones=b", "ready@there zones=c"], "CC"),
                // Those of endpoints that are not ready do not matter.
                (&["ready@there zones=a", "ready@there zones=b", "ending@there", "unready@there"], "Cdd-"),
                (&["ready@there zones=b", "ending@there zones=a"], "Cd"),
                (&["ending@there zones=a", "ending@there zones=b"], "CC"),
                (&["ready@there zones=a *0", "ready@there zones=b"], "dC"),
                // For nodes before those for zones, if they count.
                (&["ready@there nodes=here zones=b", "ready@there nodes=there zones=a"], "Cd"),
                (&["ready@there nodes=there zones=b", "ready@there nodes=there zones=a"], "dC"),
                (&["ready@there nodes=here zones=b", "ready@there zones=a"], "dC"),
                (&["ready@here nodes=there", "ready@there nodes=there"], "BC"),
            ],
        );
    }
    let nowhere = NodeFacts { zone: None, ..here() };
    assert_eq!(states(&["ready@there zones=a", "ready@there zones=b"], Distribution::Even, &nowhere), "CC");
}

#[test]
fn a_distribution_without_hints_follows_places() {
    let zones: &[&str] = &["ready@there/b", "ready@there/a", "ready@other"];
    let nodes: &[&str] = &["ready@there/a", "ready@here", "ready@other/b"];
    check(Distribution::Even, &[(zones, "CCC"), (nodes, "CBC")]);
    check(
        Distribution::SameZone,
        &[
            (zones, "dCd"),
            // What is here is in this zone, told or not.
            (nodes, "CBd"),
            (&["ready@there/b", "ending@there/a", "ready@other"], "CdC"),
            (&["ending@there/b", "ending@there/a"], "CC"),
        ],
    );
    check(
        Distribution::SameNode,
        &[
            (zones, "dCd"),
            (nodes, "dBd"),
            (&["ending@here/a", "ready@there/a", "ready@other/b"], "LCd"),
            (&["ready@here/a *0", "ready@there/b"], "dC"),
        ],
    );
    let nowhere = NodeFacts { zone: None, ..here() };
    assert_eq!(states(zones, Distribution::SameZone, &nowhere), "CCC");
    assert_eq!(states(nodes, Distribution::SameZone, &nowhere), "CBC");
    assert_eq!(states(nodes, Distribution::SameNode, &nowhere), "dBd");
}

fn service() -> Service {
    let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect();
    let ranges = ["198.51.100.0/24", "192.0.2.0/24", "198.51.100.0/24", "fd00:5::/64"];
    let port = ServicePort {
        name: "http".into(),
        port: 80,
        node_port: Some(30080),
        endpoints: vec![endpoint(0, "ready@here")],
        ..ServicePort::default()
    };
    let host = ServicePort { port: 443, host_port: Some(8443), ..ServicePort::default() };
    Service {
        kind: ServiceType::LoadBalancer,
        addresses: addresses(&["10.96.0.10", "fd00:96::10"]),
        external_ips: addresses(&["203.0.113.10", "198.51.100.10"]),
        load_balancer_ips: addresses(&["198.51.100.10"]),
        source_ranges: ranges.iter().map(|text| text.parse().expect("a range")).collect(),
        affinity: Some(60),
        algorithm: Algorithm::Random,
        external_policy: TrafficPolicy::Local,
        ports: vec![port, host],
        ..Service::default()
    }
}

#[test]
fn a_row_for_each_port_and_family_with_all_its_frontends() {
    let wanted = compile(&service(), &here());
    let lines: Vec<String> = wanted
        .iter()
        .map(|wanted| {
            let frontends = wanted.frontends.iter().map(|WantedFrontend { at, kind }| {
                format!(" {kind:?} {}", std::net::SocketAddr::new(at.address, at.port))
            });
            let backends = wanted.backends.len();
            format!("{}:{} -> {backends}", wanted.port_name, frontends.collect::<String>())
        })
        .collect();
    assert_eq!(
        lines,
        [
            // 198.51.100.10 is both: the load balancer's, so that source ranges hold.
            "http: ClusterIp 10.96.0.10:80 LoadBalancer 198.51.100.10:80 ExternalIp 203.0.113.10:80 \
             NodePort 192.0.2.1:30080 -> 1",
            ": ClusterIp 10.96.0.10:443 LoadBalancer 198.51.100.10:443 ExternalIp 203.0.113.10:443 \
             HostPort 127.0.0.1:8443 HostPort 192.0.2.1:8443 HostPort 192.0.2.2:8443 -> 0",
            "http: ClusterIp [fd00:96::10]:80 NodePort [fd00::1]:30080 -> 0",
            ": ClusterIp [fd00:96::10]:443 HostPort [fd00::1]:8443 -> 0",
        ]
    );
    let choice = &wanted[0].choice;
    assert_eq!((choice.affinity, choice.algorithm), (Some(60), Algorithm::Random));
    assert_eq!((choice.internal, choice.external), (TrafficPolicy::Cluster, TrafficPolicy::Local));
    let ranges = |index: usize| -> Vec<String> {
        wanted[index].choice.source_ranges.iter().map(ToString::to_string).collect()
    };
    assert_eq!(ranges(0), ["192.0.2.0/24", "198.51.100.0/24", "198.51.100.10/32"]);
    // No load balancer's address of the family: nothing to restrict.
    assert!(ranges(2).is_empty());
}

#[test]
fn what_does_not_serve_is_removed_as_the_service_says() {
    for (on_removal, expected) in
        [(OnRemoval::Keep, BackendState::Removed), (OnRemoval::Reset, BackendState::Reset)]
    {
        let endpoints = vec![endpoint(0, "ready@here"), endpoint(1, "dead@here"), endpoint(2, "ending@here")];
        let port = ServicePort { port: 80, endpoints, ..ServicePort::default() };
        let addresses = vec!["10.96.0.10".parse().expect("an address")];
        let service = Service { addresses, on_removal, ports: vec![port], ..Service::default() };
        let wanted = compile(&service, &here());
        let states: Vec<BackendState> = wanted[0].backends.iter().map(|backend| backend.state).collect();
        assert_eq!(states, [BackendState::Active(Scopes::Both), expected, BackendState::Draining]);
        assert_eq!(wanted[0].choice.on_removal, on_removal);
    }
}

#[test]
fn a_family_without_a_cluster_ip_is_not_served() {
    let mut single = service();
    single.addresses.pop();
    assert!(compile(&single, &here()).iter().all(|wanted| wanted.frontends[0].at.address.is_ipv4()));
    single.addresses.clear();
    assert_eq!(compile(&single, &here()), []);
}

#[test]
fn an_address_with_a_port_is_one_frontend() {
    let mut odd = service();
    odd.external_ips = vec![odd.addresses[0], [192, 0, 2, 1].into()];
    odd.ports[0].port = 30080;
    let wanted = compile(&odd, &here());
    let mut all: Vec<Frontend> = wanted.iter().flat_map(|wanted| &wanted.frontends).map(|f| f.at).collect();
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count);
    assert_eq!(wanted[0].frontends[0].kind, FrontendKind::ClusterIp);
}

fn any_endpoint() -> impl Strategy<Value = Endpoint> {
    let names = || prop::collection::vec(prop::sample::select(vec!["here", "there"]), 0..3);
    let zones = || prop::collection::vec(prop::sample::select(vec!["a", "b"]), 0..3);
    let place = (prop::option::of(names()), prop::option::of(zones()), zones(), names());
    (any::<(bool, bool, bool)>(), 0_u16..3, 0_u8..4, any::<bool>(), place).prop_map(
        |((ready, serving, terminating), weight, host, far, (node, zone, for_zones, for_nodes))| {
            let first = |list: Option<Vec<&str>>| list.and_then(|list| Some((*list.first()?).to_owned()));
            let all = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect();
            Endpoint {
                address: [10, if far { 2 } else { 1 }, 0, host].into(),
                port: 8080,
                weight,
                conditions: Conditions { ready, serving, terminating },
                place: Some(Arc::new(Place {
                    node: first(node),
                    zone: first(zone),
                    for_zones: all(for_zones),
                    for_nodes: all(for_nodes),
                })),
            }
        },
    )
}

proptest! {
    #[test]
    fn whoever_can_be_served_is(
        endpoints in prop::collection::vec(any_endpoint(), 0..6),
        distribution in prop::sample::select(vec![Distribution::Even, Distribution::SameZone, Distribution::SameNode]),
        zone in prop::option::of(Just("a".to_owned())),
    ) {
        let node = NodeFacts { zone, ..here() };
        let refs: Vec<&Endpoint> = endpoints.iter().collect();
        let states = usable::states(&refs, distribution, &node);
        prop_assert_eq!(states.len(), endpoints.len());
        let is_here = |endpoint: &Endpoint| match &endpoint.place.as_ref().and_then(|place| place.node.clone()) {
            Some(name) => *name == node.name,
            None => node.pods[0].contains(&endpoint.address),
        };
        let ready = |endpoint: &Endpoint| endpoint.weight > 0 && endpoint.conditions.ready;
        let ending = |endpoint: &Endpoint| {
            endpoint.weight > 0 && endpoint.conditions.serving && endpoint.conditions.terminating
        };
        for scope in [Scope::Cluster, Scope::Local] {
            let among = || endpoints.iter().filter(|endpoint| scope == Scope::Cluster || is_here(endpoint));
            let usable = among().any(|endpoint| ready(endpoint) || ending(endpoint));
            prop_assert_eq!(states.iter().any(|state| state.takes(scope)), usable);
            for (endpoint, state) in endpoints.iter().zip(&states).filter(|(_, state)| state.takes(scope)) {
                prop_assert!(endpoint.weight > 0, "{:?} {:?}", endpoint, state);
                prop_assert!(scope == Scope::Cluster || is_here(endpoint), "{:?} {:?}", endpoint, state);
                prop_assert_eq!(ready(endpoint), among().any(ready));
            }
        }
        for (endpoint, state) in endpoints.iter().zip(&states) {
            let lives = endpoint.conditions.ready || endpoint.conditions.serving;
            prop_assert_eq!(*state == BackendState::Removed, !lives);
        }
    }
}

/// Every local address has a host port, node ports those that they are given to; what another service has is left out.
#[test]
fn frontends_of_the_host_and_those_of_others() {
    let parse = |text: &str| text.parse::<IpAddr>().expect("an address");
    let port = ServicePort {
        port: 80,
        host_port: Some(8080),
        node_port: Some(30_080),
        lost: vec![parse("203.0.113.1")],
        ..ServicePort::default()
    };
    let mut service = Service {
        addresses: vec![parse("10.96.0.10")],
        external_ips: vec![parse("203.0.113.1"), parse("203.0.113.2")],
        ports: vec![port],
        ..Service::default()
    };
    let frontends = |service: &Service| -> Vec<String> {
        let wanted = compile(service, &here());
        let all = wanted.iter().flat_map(|wanted| &wanted.frontends);
        all.map(|frontend| format!("{}:{}", frontend.at.address, frontend.at.port)).collect()
    };
    let of_host = ["127.0.0.1:8080", "192.0.2.1:8080", "192.0.2.2:8080"];
    let all = [&["10.96.0.10:80", "203.0.113.2:80", "192.0.2.1:30080"][..], &of_host].concat();
    assert_eq!(frontends(&service), all);
    service.ports[0].lost.push(parse("10.96.0.10"));
    assert_eq!(frontends(&service), all[1..]);
    // Nothing is left of it.
    service.external_ips.clear();
    (service.ports[0].host_port, service.ports[0].node_port) = (None, None);
    assert_eq!(compile(&service, &here()), []);
}

#[test]
fn ready_endpoints_for_health_checks() {
    let cases: &[(&[&str], usize)] = &[
        (&[], 0),
        (&["ready@here", "ready@there", "ready@here", "ending@here", "unready@here"], 2),
        (&["ready@there", "ready@-far"], 0),
        (&["ready@-near"], 1),
    ];
    for &(endpoints, expected) in cases {
        let endpoints: Vec<Endpoint> =
            endpoints.iter().enumerate().map(|(index, text)| endpoint(index, text)).collect();
        let with_ipv6 = endpoints.iter().map(|endpoint| {
            let IpAddr::V4(address) = endpoint.address else { unreachable!("all are IPv4") };
            Endpoint { address: address.to_ipv6_mapped().into(), ..endpoint.clone() }
        });
        let ports = [endpoints.clone(), endpoints.clone(), with_ipv6.collect()];
        let ports = ports.into_iter().map(|endpoints| ServicePort { endpoints, ..ServicePort::default() });
        let service = Service { ports: ports.collect(), ..Service::default() };
        assert_eq!(ready_here(&service, &here()), expected);
    }
}

/// The host calls a load balancer's address that is its own from that address.
#[test]
fn a_load_balancers_address_may_call_itself() {
    let ranges = |address: &str, ranges: &[&str]| {
        let service = Service {
            addresses: vec!["10.96.0.10".parse().expect("IPv4")],
            load_balancer_ips: vec![address.parse().expect("an address")],
            source_ranges: ranges.iter().map(|text| text.parse().expect("a range")).collect(),
            ports: vec![ServicePort { port: 80, ..ServicePort::default() }],
            ..Service::default()
        };
        let wanted =
            compile(&service, &NodeFacts { own: vec!["192.0.2.2".parse().expect("IPv4")], ..here() });
        wanted[0].choice.source_ranges.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(ranges("203.0.113.1", &["10.0.0.0/8"]), ["10.0.0.0/8", "203.0.113.1/32"]);
    assert_eq!(ranges("192.0.2.2", &["10.0.0.0/8"]), ["10.0.0.0/8", "192.0.2.1/32", "192.0.2.2/32"]);
    assert_eq!(ranges("192.0.2.2", &[]), [""; 0]);
}

/// Which addresses the node has is known here alone: who names one goes before who has all of them.
#[test]
fn frontends_of_the_host_that_several_ask_for() {
    let port =
        |port, node_port, host_port| ServicePort { port, node_port, host_port, ..ServicePort::default() };
    let service = |name: &str, last: u8, balanced: &[&str], port: ServicePort| {
        let name = ServiceName { namespace: "default".into(), name: name.into() };
        let service = Service {
            name: name.clone(),
            addresses: vec![[10, 96, 0, last].into()],
            load_balancer_ips: balanced.iter().map(|text| text.parse().expect("an address")).collect(),
            ports: vec![port],
            ..Service::default()
        };
        (name, Arc::new(service))
    };
    let model = Model {
        services: BTreeMap::from([
            service("a", 1, &[], port(1, Some(30_080), None)),
            service("b", 2, &["192.0.2.1"], port(30_080, None, None)),
            service("c", 3, &["192.0.2.2", "192.0.2.3"], port(80, None, None)),
            service("d", 4, &[], port(4, None, Some(80))),
        ]),
        ..Model::default()
    };
    let shared = shared(&model, &here());
    let mut found: Vec<String> = shared
        .owners
        .iter()
        .map(|(at, owner)| format!("{}:{} {}", at.address, at.port, owner.name))
        .collect();
    found.sort();
    assert_eq!(found, ["192.0.2.1:30080 b", "192.0.2.2:80 c"]);
    assert_eq!(shared.losers.iter().map(|name| &name.name[..]).collect::<Vec<_>>(), ["a", "d"]);
}
