use lb_common::abi::Lifetimes;

use super::*;
use crate::model::PortRange;

#[test]
fn our_documents() {
    let cases: &[(&str, &[&str])] = &[
        (
            "serviceCIDRs: [10.96.0.0/12]\n\
             services:\n\
             \x20 - name: web\n\
             \x20   address: 10.96.0.10\n\
             \x20   ports: [{port: 80, targetPort: 8080, protocol: TCP}]\n\
             \x20   backends: [{address: 10.244.1.3, weight: 2}, {address: 10.244.1.2}]\n",
            &["default/web at 10.96.0.10 80/TCP -> 10.244.1.2:8080 10.244.1.3:8080*2"],
        ),
        // Defaults, a backend's own port, both protocols, both families, no backends.
        (
            "services:\n\
             - name: dns\n\
             \x20 namespace: kube-system\n\
             \x20 addresses: [fd00::a, 10.96.0.10]\n\
             \x20 ports: [{name: dns, port: 53, protocol: UDP}, {port: 53, protocol: tcp, targetPort: 5353}]\n\
             \x20 backends: [{address: 'fd00:244::2', port: 54}, {address: 10.244.1.2}]\n\
             - {name: idle, address: 10.96.0.11, ports: [{port: 1}]}\n",
            &[
                "default/idle at 10.96.0.11 1/TCP ->",
                "kube-system/dns at fd00::a 10.96.0.10 53/UDP(dns) -> 10.244.1.2:53 [fd00:244::2]:54",
                "kube-system/dns at fd00::a 10.96.0.10 53/TCP -> 10.244.1.2:5353 [fd00:244::2]:54",
            ],
        ),
        // Addresses from the ranges: the backends' families, else IPv4 if there is a range of it.
        (
            "serviceCIDRs: [fd00::/112, 10.96.0.0/12]\n\
             services:\n\
             - {name: four, ports: [{port: 1}], backends: [{address: 10.0.0.1}]}\n\
             - {name: six, ports: [{port: 1}], backends: [{address: 'fd01::1'}]}\n\
             - {name: both, ports: [{port: 1}], backends: [{address: 'fd01::1'}, {address: 10.0.0.1}]}\n\
             - {name: none, ports: [{port: 1}]}\n",
            &[
                "default/both at any-IPv4 any-IPv6 1/TCP -> 10.0.0.1:1 [fd01::1]:1",
                "default/four at any-IPv4 1/TCP -> 10.0.0.1:1",
                "default/none at any-IPv4 1/TCP ->",
                "default/six at any-IPv6 1/TCP -> [fd01::1]:1",
            ],
        ),
        (
            "serviceCIDRs: [fd00::/112]\nservices: [{name: none, ports: [{port: 1}]}]",
            &["default/none at any-IPv6 1/TCP ->"],
        ),
        // One address, two ports and two protocols; drained; JSON; an anchor.
        (
            "{\"services\": [\n\t{\"name\": \"a\", \"address\": \"10.0.0.1\", \"ports\": [{\"port\": 80}],\n\
             \t \"backends\": [{\"address\": \"10.1.0.1\", \"weight\": 0}, {\"address\": \"10.1.0.2\"}]},\n\
             \t{\"name\": \"b\", \"address\": \"10.0.0.1\", \"ports\": [{\"port\": 80, \"protocol\": \"UDP\"}]}\n]}",
            &["default/a at 10.0.0.1 80/TCP -> 10.1.0.1:80*0 10.1.0.2:80", "default/b at 10.0.0.1 80/UDP ->"],
        ),
        (
            "services:\n\
             - {name: a, address: 10.0.0.1, ports: [{port: 80}], backends: &pods [{address: 10.1.0.1}]}\n\
             - {name: b, address: 10.0.0.2, ports: [{port: 80}], backends: *pods}\n",
            &["default/a at 10.0.0.1 80/TCP -> 10.1.0.1:80", "default/b at 10.0.0.2 80/TCP -> 10.1.0.1:80"],
        ),
        ("services: []", &[]),
        ("services:\n", &[]),
    ];
    for (text, expected) in cases {
        let loaded = parse_texts(&[("c.yaml", text)]).unwrap_or_else(|error| panic!("{text}\n{error}"));
        assert_eq!(show(&loaded.model), *expected, "{text}");
        assert_eq!(loaded.problems, [], "{text}");
    }
}

#[test]
fn ranges_and_seed_of_several_documents() {
    let texts = [
        ("a.yaml", "serviceCIDRs: [10.96.0.0/12]\nhashSeed: 0x5eed\n---\n---\nserviceCIDRs: [fd00::/112]\n"),
        ("b.yaml", "serviceCIDRs: [10.96.0.0/12]\nhashSeed: 5eed\n"),
    ];
    let model = parse_texts(&texts).expect("a config").model;
    let ranges: Vec<String> = model.service_cidrs.iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["10.96.0.0/12", "fd00::/112"]);
    assert_eq!(model.hash_seed, Some(0x5eed));
    // All digits: still hexadecimal.
    assert_eq!(parse_texts(&[("c.yaml", "hashSeed: 10")]).expect("a config").model.hash_seed, Some(16));
}

#[test]
fn lifetimes_of_flows() {
    let lifetimes = |text: &str| parse_texts(&[("c.yaml", text)]).expect("a config").model.lifetimes;
    assert_eq!(lifetimes("services: []"), Lifetimes::SECONDS);
    let text = "lifetimes: {tcpEstablished: 1h 30min, tcpClosing: 1s, sctp: 365d}\n---\nservices: []\n";
    let expected =
        Lifetimes { tcp_established: 5400, tcp_closing: 1, sctp: 365 * 24 * 3600, ..Lifetimes::SECONDS };
    assert_eq!(lifetimes(text), expected);
    let text = "lifetimes: {tcpUnanswered: 2s, udpAnswered: 3s, udpUnanswered: 4s}";
    let expected = Lifetimes { tcp_unanswered: 2, udp_answered: 3, udp_unanswered: 4, ..Lifetimes::SECONDS };
    assert_eq!(lifetimes(text), expected);
}

#[test]
fn ports_that_the_node_lends() {
    let range = |text: &str| parse_texts(&[("c.yaml", text)]).expect("a config").model.snat_ports;
    assert_eq!(range("services: []"), Some(PortRange { first: 10_000, last: 29_999 }));
    assert_eq!(range("snatPorts: 1024-1087"), Some(PortRange { first: 1024, last: 1087 }));
    let last = "snatPorts: 40000 - 65535\n---\nsnatPorts: 40000-65535";
    assert_eq!(range(last), Some(PortRange { first: 40_000, last: u16::MAX }));
    assert_eq!(range("snatPorts: none"), None);
}

#[test]
fn objects_of_kubernetes() {
    let loaded = parse_texts(&[("list.yaml", &testdata("kubernetes/list.yaml"))]).expect("a config");
    assert_eq!(
        show(&loaded.model),
        [
            "shop/web at 10.96.12.7 fd00:10:96::c07 80/TCP(http) -> 10.244.1.7:8080@worker-1/a \
             10.244.2.9:8080,!ready,terminating@worker-2/? 10.244.2.9:8081 10.244.3.3:8081,!ready,!serving \
             [fd00:244:1::7]:8080",
            "shop/web at 10.96.12.7 fd00:10:96::c07 9100/TCP(metrics) -> 10.244.1.7:9100@worker-1/a \
             10.244.2.9:9100,!ready,terminating@worker-2/?",
        ]
    );
    assert_eq!(loaded.problems, []);
}

#[test]
fn a_family_the_service_lacks_and_slices_that_overlap() {
    let text = "\
kind: Service
apiVersion: v1
metadata: {name: web}
spec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}
---
kind: EndpointSlice
apiVersion: discovery.k8s.io/v1
metadata: {name: one, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080, name: ''}]
endpoints: [{addresses: [10.1.0.1], conditions: {ready: false}}, {addresses: [10.1.0.2, 10.1.0.3]}]
---
kind: EndpointSlice
apiVersion: discovery.k8s.io/v1
metadata: {name: two, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.1.0.1]}]
---
kind: EndpointSlice
apiVersion: discovery.k8s.io/v1
metadata: {name: six, labels: {kubernetes.io/service-name: web}}
addressType: IPv6
ports: [{port: 8080}]
endpoints: [{addresses: ['fd00::1']}]
---
kind: EndpointSlice
apiVersion: discovery.k8s.io/v1
metadata: {name: three, namespace: elsewhere, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.1.0.9]}]
";
    let loaded = parse_texts(&[("c.yaml", text)]).expect("a config");
    assert_eq!(show(&loaded.model), ["default/web at 10.0.0.1 80/TCP -> 10.1.0.1:8080 10.1.0.2:8080"]);
    assert_eq!(
        problems(&loaded),
        ["c.yaml:29:11: EndpointSlices of service elsewhere/web are left out: there is no such Service; \
             add it, or remove them"]
    );
}

#[test]
fn a_manifest_without_a_cluster_ip_beside_ours() {
    let manifest = "\
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: six}
spec: {ipFamilies: [IPv6], clusterIP: '', ports: [{port: 80}]}
";
    let ours = "serviceCIDRs: [10.96.0.0/12, 'fd00::/112']\nservices: [{name: api, ports: [{port: 6443}]}]\n";
    let loaded = parse_texts(&[("a.yaml", manifest), ("b.yaml", ours)]).expect("a config");
    assert_eq!(
        show(&loaded.model),
        [
            "default/api at any-IPv4 6443/TCP ->",
            "default/six at any-IPv6 80/TCP ->",
            "default/web at any-IPv4 80/TCP ->"
        ]
    );
}

#[test]
fn a_directory_is_read_in_the_order_of_its_names() {
    let directory = Directory::new("load");
    directory.write("b.yml", "services: [{name: b, address: 10.0.0.2, ports: [{port: 1}]}]");
    directory
        .write("a.json", r#"{"services": [{"name": "a", "address": "10.0.0.1", "ports": [{"port": 1}]}]}"#);
    directory.write("c.yaml", "serviceCIDRs: [10.96.0.0/12]");
    directory.write(".hidden.yaml", "not: ours");
    directory.write("notes.txt", "not ours");
    fs::create_dir(directory.0.join("d.yaml")).expect("a directory");
    let names: Vec<_> = config_files(&directory.0).expect("the directory");
    assert_eq!(names, ["a.json", "b.yml", "c.yaml"].map(|name| directory.0.join(name)));
    let loaded = load(&directory.0).expect("a config");
    assert_eq!(show(&loaded.model), ["default/a at 10.0.0.1 1/TCP ->", "default/b at 10.0.0.2 1/TCP ->"]);
}
