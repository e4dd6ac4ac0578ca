use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::{
    model::{
        Algorithm, Conditions, Distribution, Endpoint, Node, NodePortAddress, Place, Protocol, Service,
        ServiceName, ServicePort, ServiceType, TrafficPolicy,
    },
    sources::file,
};

/// Two nodes, every kind of frontend.
const CONFIG: &str = include_str!("tests/config.yaml");

fn model(config: &str) -> Model {
    file::parse(&[(PathBuf::from("config.yaml"), config.to_owned())]).expect("a valid config").model
}

fn question(from: &str, to: &str, at: Option<At>) -> Question {
    let (to, protocol) = to.split_once('/').expect("a protocol");
    let to: SocketAddr = to.parse().expect("a socket");
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => Protocol::Sctp,
    };
    let from = from.parse().expect("an address");
    let to = Frontend { address: to.ip(), port: to.port(), protocol };
    Question { from, from_port: None, to, at }
}

fn ask(config: &str, from: &str, to: &str, at: Option<At>) -> Explanation {
    explain(model(config), &question(from, to, at)).expect("an answer")
}

fn words(explanation: &Explanation) -> String {
    let lines = explanation.steps.iter().map(|step| {
        let items: String = step.items.iter().map(|item| format!("\n  {item}")).collect();
        format!("{}: {}{items}\n", step.topic, step.text)
    });
    lines.collect()
}

const POD: &str = "10.244.1.2";
const POD6: &str = "fd00:244:1::2";
const HOST: &str = "192.168.1.11";
const OUTSIDE: &str = "203.0.113.77";
const ALLOWED: &str = "198.51.100.7";

#[test]
fn inside_another_packet() {
    let config = "node: {name: node1, addresses: [192.168.1.11], podCIDRs: [10.244.1.0/24]}\n\
        nodes: [{name: node2, addresses: [192.168.1.12], podCIDRs: [10.244.2.0/24]}]\n\
        services: [{name: web, type: NodePort, address: 10.96.0.10, forwarding: dsr, \
        ports: [{port: 80, targetPort: 8080, nodePort: 30080}], backends: [{address: 10.244.2.2}]}]\n";
    let outside = ask(config, OUTSIDE, "192.168.1.11:30080/tcp", None);
    assert_eq!(outside.verdict, Verdict::Forward);
    assert_eq!((outside.backend.as_deref(), outside.snat.as_deref()), (Some("10.244.2.2:8080"), None));
    assert_eq!(outside.node, Some([192, 168, 1, 12].into()));
    let said = words(&outside);
    for text in [
        "rewrite: destination 192.168.1.11:30080 stays, its node 192.168.1.12 makes it 10.244.2.2:8080",
        "the backend sees 203.0.113.77:40000, and its answers go there directly",
        "way out: inside another packet (IPIP) from 192.168.1.11 to the backend's node 192.168.1.12",
    ] {
        assert!(said.contains(text), "{said}");
    }
    // Pods call as ever.
    let pod = ask(config, POD, "10.96.0.10:80/tcp", None);
    assert_eq!((pod.verdict, pod.node), (Verdict::Forward, None));
}

#[test]
fn a_load_balancers_address_of_the_host() {
    let config = "node: {name: node1, addresses: [192.168.1.11, 192.168.1.12], podCIDRs: [10.244.1.0/24]}\n\
        services: [{name: web, type: LoadBalancer, address: 10.96.0.10, loadBalancerIPs: [192.168.1.12, 203.0.113.9], \
        loadBalancerSourceRanges: [198.51.100.0/24], ports: [{port: 80, targetPort: 8080}], backends: [{address: \
        10.244.1.2}]}, {name: other, type: LoadBalancer, address: 10.96.0.11, loadBalancerIPs: [203.0.113.10], \
        loadBalancerSourceRanges: [198.51.100.0/24], ports: [{port: 80}]}]\n";
    let verdict = |from: &str, to: &str| ask(config, from, to, None).verdict;
    assert_eq!(verdict("192.168.1.12", "192.168.1.12:80/tcp"), Verdict::Forward);
    assert_eq!(verdict("192.168.1.11", "192.168.1.12:80/tcp"), Verdict::Forward);
    assert_eq!(verdict("192.168.1.11", "203.0.113.10:80/tcp"), Verdict::Drop);
    for to in ["192.168.1.12:80/tcp", "203.0.113.9:80/tcp"] {
        assert_eq!(verdict(OUTSIDE, to), Verdict::Drop);
        assert_eq!(verdict(POD, to), Verdict::Drop);
        assert_eq!(verdict(ALLOWED, to), Verdict::Forward);
    }
}

#[test]
fn host_ports_at_every_local_address() {
    let config = "node: {name: node1, addresses: [192.168.1.11, 10.0.0.1], podCIDRs: [10.244.1.0/24]}\n\
        services: [{name: web, address: 10.96.0.10, ports: [{port: 80, hostPort: 8080}], backends: [{address: \
        10.244.1.2}]}]\n";
    for (from, to) in [
        (OUTSIDE, "192.168.1.11:8080/tcp"),
        (OUTSIDE, "10.0.0.1:8080/tcp"),
        (POD, "10.0.0.1:8080/tcp"),
        ("127.0.0.1", "127.0.0.1:8080/tcp"),
    ] {
        let answer = ask(config, from, to, None);
        assert_eq!((answer.verdict, answer.kind), (Verdict::Forward, Some("HostPort")), "{from} {to}");
    }
    assert_eq!(ask(config, "127.0.0.1", "127.0.0.1:8081/tcp", None).verdict, Verdict::Pass);
}

/// What is wrong with one object of a cluster, or with what one asks for, is nobody else's loss.
#[test]
fn objects_that_are_partly_wrong() {
    let config = "node: {name: node1, addresses: [192.168.1.11], podCIDRs: [10.244.1.0/24]}\n---\n\
        apiVersion: v1\nkind: Service\nmetadata: {name: old, creationTimestamp: '2020-01-01T00:00:00Z'}\n\
        spec: {type: NodePort, clusterIP: 010.96.0.10, externalIPs: [10.96.0.11], ports: [{port: 80, nodePort: 3000}, \
        {name: b, port: 81}]}\n---\n\
        apiVersion: v1\nkind: Service\nmetadata: {name: young, creationTimestamp: '2024-01-01T00:00:00Z'}\n\
        spec: {clusterIP: 10.96.0.11, ports: [{port: 80}, {port: 99999}]}\n---\n\
        apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: young-1, labels: \
        {kubernetes.io/service-name: young}}\naddressType: IPv4\nports: [{port: 8080}]\n\
        endpoints: [{addresses: [10.244.1.3]}]\n---\n\
        apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: old-1, labels: \
        {kubernetes.io/service-name: old}}\naddressType: IPv4\nports: [{port: 8080}, {name: b, port: 8080}]\n\
        endpoints: [{addresses: [10.244.1.300]}, {addresses: [10.244.1.2]}]\n";
    for (to, expected) in [
        ("10.96.0.11:80/tcp", "10.244.1.3:8080"),
        ("10.96.0.11:81/tcp", "10.244.1.2:8080"),
        ("10.96.0.10:80/tcp", "10.244.1.2:8080"),
        ("192.168.1.11:3000/tcp", "10.244.1.2:8080"),
    ] {
        assert_eq!(ask(config, OUTSIDE, to, None).backend.as_deref(), Some(expected), "{to}");
    }
}

const LOCAL: &[&str] = &["10.244.1.2:8080", "10.244.1.3:8080"];
const ALL: &[&str] = &["10.244.1.2:8080", "10.244.1.3:8080", "10.244.2.2:8080"];
const FAR: &[&str] = &["10.244.2.2:8080"];

/// From, to; verdict, kind, backends, reason.
type Case = (
    &'static str,
    &'static str,
    Verdict,
    Option<&'static str>,
    &'static [&'static str],
    Option<&'static str>,
);

#[test]
fn every_kind_of_frontend_from_everywhere() {
    use Verdict::{Drop, Forward, Pass, Reject};
    let (cluster, node_port) = (Some("ClusterIP"), Some("NodePort"));
    let (balancer, external) = (Some("LoadBalancer"), Some("ExternalIP"));
    let host = Some("192.168.1.11:8080");
    let cases: &[Case] = &[
        (POD, "10.96.0.10:80/tcp", Forward, cluster, ALL, None),
        (OUTSIDE, "10.96.0.10:80/tcp", Forward, cluster, ALL, None),
        (HOST, "10.96.0.10:80/tcp", Forward, cluster, ALL, None),
        (POD6, "[fd00:96::10]:80/tcp", Forward, cluster, &["[fd00:244:1::2]:8080"], None),
        // The external policy is Local, for clients from outside.
        (OUTSIDE, "192.168.1.11:30080/tcp", Forward, node_port, LOCAL, None),
        (POD, "192.168.1.11:30080/tcp", Forward, node_port, ALL, None),
        (HOST, "192.168.1.11:30080/tcp", Forward, node_port, ALL, None),
        ("2001:db8::1", "[fd00:1::11]:30080/tcp", Forward, node_port, &["[fd00:244:1::2]:8080"], None),
        (OUTSIDE, "192.0.2.10:80/tcp", Forward, external, LOCAL, None),
        // Source ranges hold at the load balancer's address, there for pods, too.
        (ALLOWED, "198.51.100.10:80/tcp", Forward, balancer, LOCAL, None),
        (OUTSIDE, "198.51.100.10:80/tcp", Drop, balancer, &[], Some("source-not-allowed")),
        (POD, "198.51.100.10:80/tcp", Drop, balancer, &[], Some("source-not-allowed")),
        (HOST, "198.51.100.10:80/tcp", Drop, balancer, &[], Some("source-not-allowed")),
        // Usable backends, but on the other node.
        (OUTSIDE, "192.168.1.11:30081/tcp", Drop, node_port, &[], Some("no-local-backend")),
        (POD, "192.168.1.11:30081/tcp", Forward, node_port, FAR, None),
        (POD, "10.96.0.11:80/tcp", Drop, cluster, &[], Some("no-local-backend")),
        // No backends, no such port, no such service, nothing of ours.
        (POD, "10.96.0.12:80/tcp", Reject, cluster, &[], Some("no-backend")),
        (OUTSIDE, "10.96.0.12:53/udp", Reject, cluster, &[], Some("no-backend")),
        (HOST, "10.96.0.12:80/tcp", Reject, cluster, &[], Some("no-backend")),
        (HOST, "10.96.0.10:81/tcp", Reject, None, &[], Some("no-port")),
        (HOST, "10.96.77.77:80/tcp", Drop, None, &[], Some("unassigned-vip")),
        (HOST, "10.1.1.1:80/tcp", Pass, None, &[], Some("not-ours")),
        (POD, "10.96.0.10:81/tcp", Reject, None, &[], Some("no-port")),
        (POD, "10.96.0.10:80/udp", Reject, None, &[], Some("no-port")),
        (POD, "10.96.77.77:80/tcp", Drop, None, &[], Some("unassigned-vip")),
        (POD6, "[fd00:96::77]:80/tcp", Drop, None, &[], Some("unassigned-vip")),
        (POD, "192.168.1.11:22/tcp", Pass, None, &[], Some("no-frontend")),
        (POD, "10.244.1.3:8080/tcp", Pass, None, &[], Some("direct-call")),
        // The others are not ready, terminate, have weight 0.
        (POD, "10.96.0.13:80/tcp", Forward, cluster, LOCAL, None),
        (POD, "10.96.0.14:80/tcp", Forward, cluster, &["10.244.1.2:8080", "192.168.1.11:8080"], None),
        (POD, "10.96.0.14:2905/sctp", Forward, cluster, &["10.244.1.2:2905", "192.168.1.11:2905"], None),
        (POD, "10.96.0.15:80/tcp", Forward, cluster, &["10.244.1.2:8080"], None),
        (POD, "10.96.0.16:80/tcp", Forward, cluster, &["10.244.1.2:8080"], None),
        (POD, "10.96.0.17:80/tcp", Reject, cluster, &[], Some("no-backend")),
    ];
    for (from, to, verdict, kind, backends, reason) in cases {
        let found = ask(CONFIG, from, to, None);
        let case = format!("{from} to {to}:\n{}", words(&found));
        assert_eq!((found.verdict, found.kind, found.reason), (*verdict, *kind, *reason), "{case}");
        assert_eq!(found.backends, *backends, "{case}");
        match found.backend {
            Some(backend) => assert!(found.backends.contains(&backend), "{case}"),
            None => assert_ne!(found.verdict, Forward, "{case}"),
        }
    }
    assert_eq!(ask(CONFIG, HOST, "10.96.0.18:443/tcp", None).backend.as_deref(), host);
}

#[test]
fn what_is_left_out_of_at_follows_from_the_source() {
    for (from, at) in [
        (POD, At::Port),
        ("10.244.1.200", At::Port),
        ("10.244.2.2", At::Uplink),
        (OUTSIDE, At::Uplink),
        (HOST, At::Host),
        ("127.0.0.1", At::Host),
    ] {
        assert_eq!(ask(CONFIG, from, "10.96.0.10:80/tcp", None).at, at, "{from}");
        assert_eq!(ask(CONFIG, from, "10.96.0.10:80/tcp", Some(At::Uplink)).at, At::Uplink, "{from}");
    }
    // Without podCIDRs a backend's address is a pod's, and no other is.
    let config = "services: [{name: web, address: 10.96.0.10, ports: [{port: 80}], \
                  backends: [{address: 10.244.1.2}]}]";
    let found = |from| {
        let found = ask(config, from, "10.96.0.10:80/tcp", None);
        (found.at, found.snat)
    };
    assert_eq!(found(POD), (At::Port, Some("10.96.0.10:40000".to_owned())));
    assert_eq!(found("10.244.1.3"), (At::Uplink, None));
}

#[test]
fn the_frontend_is_the_port_of_the_service() {
    for to in ["10.96.0.10:80/tcp", "192.168.1.11:30080/tcp", "192.0.2.10:80/tcp"] {
        assert_eq!(ask(CONFIG, OUTSIDE, to, None).frontend.as_deref(), Some("default/web:80"), "{to}");
    }
    assert_eq!(ask(CONFIG, POD, "10.96.0.10:81/tcp", None).frontend, None);
}

#[test]
fn the_client_port_decides_and_is_made_up_where_it_is_not_told() {
    let choice = |from_port| {
        let question = Question { from_port, ..question(POD, "10.96.0.10:80/tcp", None) };
        let found = explain(model(CONFIG), &question).expect("an answer");
        assert_eq!(found.backends, ALL);
        let made_up = words(&found).contains("made up");
        (found.backend.expect("a backend"), made_up)
    };
    let (backend, made_up) = choice(None);
    assert!(made_up);
    assert_eq!(choice(Some(CLIENT_PORT)), (backend, false));
    let chosen: std::collections::BTreeSet<String> = (1..100).map(|port| choice(Some(port)).0).collect();
    assert_eq!(chosen.into_iter().collect::<Vec<_>>(), ALL);
}

#[test]
fn a_seed_that_is_left_out_is_said() {
    let said = |config: &str| words(&ask(config, POD, "10.96.0.10:80/tcp", None)).contains("no hashSeed");
    assert!(!said(CONFIG));
    assert!(said(&CONFIG.replace("hashSeed: 7f3a", "")));
}

#[test]
fn every_backend_that_cannot_be_had_has_its_reason() {
    let others = |from, to| -> BTreeMap<String, String> {
        ask(CONFIG, from, to, None).others.into_iter().map(|other| (other.backend, other.why)).collect()
    };
    let web = others(OUTSIDE, "192.168.1.11:30080/tcp");
    for (backend, why) in [
        ("10.244.1.4:8080", "terminating: keeps"),
        ("10.244.1.5:8080", "not ready"),
        ("10.244.1.6:8080", "weight 0"),
        ("10.244.2.2:8080", "on node node2, zone b: externalTrafficPolicy Local"),
    ] {
        assert!(web[backend].starts_with(why), "{backend} {}", web[backend]);
    }
    assert_eq!(web.len(), 4);
    let near = others(POD, "10.96.0.16:80/tcp");
    assert!(near["10.244.2.2:8080"].contains("prefers this node"), "{near:?}");
    let ending = others(POD, "10.96.0.15:80/tcp");
    assert_eq!(ending["10.244.1.3:8080"], "terminating and no longer serving");
}

#[test]
fn hints_of_slices_are_told() {
    let found = ask(include_str!("tests/kubernetes.yaml"), POD, "10.96.0.10:80/tcp", None);
    assert_eq!(found.backends, ["10.244.1.3:8080"], "{}", words(&found));
    assert_eq!(found.frontend.as_deref(), Some("shop/web:80"));
    assert_eq!(found.others[0].why, "its hints are for zones b, this node is in a");
}

#[test]
fn packets_that_go_nowhere_are_told_by_what_was_meant() {
    for (from, to, words_of) in [
        (POD, "192.168.1.12:30080/tcp", "30080 is a node port of default/web, but at 192.168.1.11 only"),
        (POD, "10.244.1.3:8080/tcp", "that is a backend of default/ending, called directly"),
        (POD, "192.168.1.11:22/tcp", "192.168.1.11 is this node's own address"),
        (POD, "10.96.0.10:81/tcp", "80/TCP of default/web"),
        (POD, "10.96.0.10:81/tcp", "answered at once with a RST from 10.96.0.10"),
        (POD, "10.96.0.10:81/udp", "answered at once with port unreachable from 10.96.0.10"),
        (HOST, "10.96.0.10:81/tcp", "connection refused"),
        ("127.0.0.1", "198.51.100.10:80/tcp", "198.51.100.0/24: 192.168.1.11 is in none of them"),
        (POD, "10.96.77.77:80/tcp", "an address of serviceCIDRs 10.96.0.0/12"),
        (OUTSIDE, "198.51.100.10:80/tcp", "198.51.100.0/24: 203.0.113.77 is in none of them"),
    ] {
        let said = words(&ask(CONFIG, from, to, None));
        assert!(said.contains(words_of), "{from} to {to}:\n{said}");
    }
    let nowhere = CONFIG.replace("addresses: [192.168.1.11, \"fd00:1::11\"]\n", "\n");
    assert_ne!(nowhere, CONFIG);
    let said = words(&ask(&nowhere, POD, "192.168.1.11:30080/tcp", None));
    assert!(said.contains("add node.addresses"), "{said}");
}

#[test]
fn a_given_address_is_the_one_of_a_first_start() {
    let config = "serviceCIDRs: [10.96.0.0/12]\nservices: [{name: web, ports: [{port: 80}], \
                  backends: [{address: 10.244.1.2}]}]";
    let mut given = model(config);
    crate::model::addresses::Allocations::default().assign(&mut given).expect("room");
    let address = given.services.values().next().expect("a service").addresses[0];
    let found = ask(config, OUTSIDE, &format!("{address}:80/tcp"), None);
    assert_eq!(found.backend.as_deref(), Some("10.244.1.2:80"));
    assert!(words(&found).contains("given from serviceCIDRs"));
}

#[test]
fn addresses_of_two_families_are_no_packet() {
    let error = explain(model(CONFIG), &question(POD6, "10.96.0.10:80/tcp", None)).expect_err("no packet");
    assert!(error.to_string().contains("not of one address family"), "{error}");
    explain(model(CONFIG), &question("::1", "10.96.0.10:80/tcp", None)).expect_err("no socket either");
}

#[test]
fn json() {
    let found = ask(CONFIG, OUTSIDE, "192.168.1.11:30080/tcp", None);
    let json = serde_json::to_string_pretty(&found).expect("JSON") + "\n";
    assert_eq!(json, include_str!("tests/node-port.json"), "\n{json}");
}

fn policy() -> impl Strategy<Value = TrafficPolicy> {
    prop_oneof![Just(TrafficPolicy::Cluster), Just(TrafficPolicy::Local)]
}

/// Conditions, weight, node, zone (one at most), zones of the hints.
type Drawn = ([bool; 3], u16, Option<String>, Vec<String>, Vec<String>);

fn endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
    let node = || prop_oneof![Just(None), Just(Some("node1".to_owned())), Just(Some("node2".to_owned()))];
    let zones = || prop::collection::vec(prop_oneof![Just("a".to_owned()), Just("b".to_owned())], 0..2);
    let one = (any::<[bool; 3]>(), 0u16..3, node(), zones(), zones());
    let endpoint = |host: u8, one: Drawn| {
        let ([ready, serving, terminating], weight, node, zone, for_zones) = one;
        Endpoint {
            // The last one is a process of the node itself.
            address: if host == 5 { [192, 168, 1, 11].into() } else { [10, 244, host % 2 + 1, host].into() },
            port: 8080,
            weight,
            conditions: Conditions { ready, serving, terminating },
            place: Some(Arc::new(Place { node, zone: zone.first().cloned(), for_zones, for_nodes: vec![] })),
        }
    };
    prop::collection::vec(one, 0..6).prop_map(move |all| {
        let mut endpoints: Vec<Endpoint> = (0..).zip(all).map(|(host, one)| endpoint(host, one)).collect();
        endpoints.sort_by_key(|endpoint| (endpoint.address, endpoint.port));
        endpoints
    })
}

prop_compose! {
    fn service()(
        endpoints in endpoints(),
        internal_policy in policy(),
        external_policy in policy(),
        affinity in prop::option::of(1u32..100),
        random: bool,
        restricted: bool,
        distribution in prop_oneof![
            Just(Distribution::Even), Just(Distribution::SameZone), Just(Distribution::SameNode)
        ],
    ) -> Service {
        let port = ServicePort { port: 80, node_port: Some(30_080), endpoints, ..ServicePort::default() };
        Service {
            name: ServiceName { namespace: "default".to_owned(), name: "web".to_owned() },
            kind: ServiceType::LoadBalancer,
            addresses: vec![[10, 96, 0, 10].into()],
            external_ips: vec![[192, 0, 2, 10].into()],
            load_balancer_ips: vec![[198, 51, 100, 10].into()],
            source_ranges: if restricted { vec!["198.51.100.0/24".parse().expect("a range")] } else { vec![] },
            internal_policy,
            external_policy,
            affinity,
            algorithm: if random { Algorithm::Random } else { Algorithm::Maglev },
            distribution,
            ports: vec![port],
            ..Service::default()
        }
    }
}

fn questions() -> impl Strategy<Value = Question> {
    let from = prop::sample::select(vec![POD, HOST, OUTSIDE, ALLOWED, "10.244.1.0", "10.244.2.1"]);
    let to = prop::sample::select(vec![
        "10.96.0.10:80/tcp",
        "10.96.0.10:81/tcp",
        "192.0.2.10:80/tcp",
        "198.51.100.10:80/tcp",
        "192.168.1.11:30080/tcp",
        "10.96.3.3:80/udp",
        "1.1.1.1:53/udp",
    ]);
    let at = prop::option::of(prop::sample::select(vec![At::Port, At::Uplink, At::Host]));
    (from, to, at, prop::option::of(1u16..))
        .prop_map(|(from, to, at, from_port)| Question { from_port, ..question(from, to, at) })
}

proptest! {
    #[test]
    fn whatever_is_asked_has_an_answer_that_fits(
        service in service(), question in questions(), pods_told: bool, seed in prop::option::of(any::<u64>()),
    ) {
        let endpoints = service.ports[0].endpoints.len();
        let pods = ["10.244.1.0/24".parse().expect("a range")];
        let model = Model {
            services: [(service.name.clone(), Arc::new(service))].into(),
            service_cidrs: vec!["10.96.0.0/12".parse().expect("a range")],
            hash_seed: seed,
            node: Node {
                name: Some("node1".to_owned()),
                addresses: vec![[192, 168, 1, 11].into()],
                pod_cidrs: if pods_told { pods.to_vec() } else { vec![] },
                zone: Some("a".to_owned()),
            },
            node_port_addresses: vec![NodePortAddress::Primary],
            ..Model::default()
        };
        let found = explain(model, &question).expect("an answer");
        let said = words(&found);
        prop_assert_eq!(found.verdict == Verdict::Forward, found.backend.is_some(), "{}", said);
        prop_assert_eq!(found.verdict == Verdict::Forward, found.reason.is_none(), "{}", said);
        if let Some(backend) = &found.backend {
            prop_assert!(found.backends.contains(backend), "{}", said);
        } else {
            prop_assert!(found.backends.is_empty() && found.snat.is_none(), "{}", said);
        }
        if found.frontend.is_some() && found.reason != Some("source-not-allowed") {
            prop_assert_eq!(found.backends.len() + found.others.len(), endpoints, "{}", said);
        }
        prop_assert!(found.others.iter().all(|other| !other.why.is_empty()), "{}", said);
    }
}
