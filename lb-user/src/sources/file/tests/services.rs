//! What a service of ours can say besides addresses, ports and backends, and what is wrong about it.

use super::{
    bad::{refuse, service},
    *,
};
use crate::model::NodePortAddress;

/// Everything that the documentation shows, in one document.
pub(super) const ALL: &str = "\
node: {name: node1, addresses: [192.168.1.11, 'fd00:1::11'], podCIDRs: [10.244.1.0/24], zone: a}
serviceCIDRs: [10.96.0.0/12]
nodePortAddresses: [primary, 192.168.1.12, 10.0.0.0/8, 'fd00:1::/64']
hashSeed: 7f3a
services:
  - name: web
    type: LoadBalancer
    addresses: [10.96.0.10, 'fd00:96::10']
    externalIPs: [203.0.113.10, 'fd00:e::10', 203.0.113.11]
    loadBalancerIPs: [198.51.100.10]
    loadBalancerSourceRanges: [198.51.100.0/24, 0.0.0.0/0, 'fd00::/8']
    externalTrafficPolicy: Local
    internalTrafficPolicy: Cluster
    sessionAffinity: {clientIP: {timeoutSeconds: 60}}
    algorithm: random
    trafficDistribution: PreferSameNode
    ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30080, protocol: TCP}]
    backends:
      - {address: 10.244.1.2, node: node1, zone: a, weight: 1, ready: true, serving: true, terminating: false}
      - {address: 10.244.2.2, node: node2}
      - {address: 'fd00:244::2', zone: b}
";

#[test]
fn everything_at_once() {
    let model = parse_texts(&[("c.yaml", ALL)]).unwrap_or_else(|error| panic!("{error}")).model;
    assert_eq!(
        show(&model),
        ["default/web at 10.96.0.10 fd00:96::10 LoadBalancer external:203.0.113.10 external:fd00:e::10 \
             external:203.0.113.11 balanced:198.51.100.10 from:198.51.100.0/24 from:0.0.0.0/0 from:fd00::/8 \
             external-Local affinity:60s random SameNode 80/TCP(http) node:30080 -> \
             10.244.1.2:8080@node1/a 10.244.2.2:8080@node2/? [fd00:244::2]:8080@?/b"]
    );
    let node = &model.node;
    assert_eq!((node.name.as_deref(), node.zone.as_deref()), (Some("node1"), Some("a")));
    let text = |list: &[std::net::IpAddr]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(text(&node.addresses), ["192.168.1.11", "fd00:1::11"]);
    assert_eq!(node.pod_cidrs, ["10.244.1.0/24".parse().expect("a range")]);
    let range = |text: &str| NodePortAddress::Range(text.parse().expect("a range"));
    let expected = [range("192.168.1.12/32"), range("10.0.0.0/8"), range("fd00:1::/64")];
    assert_eq!(model.node_port_addresses[0], NodePortAddress::Primary);
    assert_eq!(model.node_port_addresses[1..], expected);
}

#[test]
fn what_is_left_out_is_the_default() {
    let model = parse_texts(&[("c.yaml", "services: []")]).expect("a config").model;
    assert_eq!(model.node, crate::model::Node::default());
    assert_eq!(model.node_port_addresses, [NodePortAddress::Primary]);
    let text = "nodePortAddresses: [10.0.0.0/8]";
    let model = parse_texts(&[("c.yaml", text)]).expect("a config").model;
    assert_eq!(model.node_port_addresses, [NodePortAddress::Range("10.0.0.0/8".parse().expect("a range"))]);
}

#[test]
fn single_fields() {
    let cases = [
        ("sessionAffinity: ClientIP", "affinity:10800s 80/TCP ->"),
        ("sessionAffinity: {clientIP: {}}", "affinity:10800s 80/TCP ->"),
        ("sessionAffinity: {clientIP: {timeoutSeconds: 86400}}", "affinity:86400s 80/TCP ->"),
        ("sessionAffinity: None", "80/TCP ->"),
        ("algorithm: maglev", "80/TCP ->"),
        ("internalTrafficPolicy: Local", "internal-Local 80/TCP ->"),
        ("trafficDistribution: PreferSameZone", "SameZone 80/TCP ->"),
        ("trafficDistribution: PreferClose", "SameZone 80/TCP ->"),
        ("onRemoval: reset", "resets 80/TCP ->"),
        ("onRemoval: keep", "80/TCP ->"),
        ("forwarding: dsr", "dsr 80/TCP ->"),
        ("forwarding: snat", "80/TCP ->"),
        ("type: ClusterIP", "80/TCP ->"),
        ("type: LoadBalancer", "LoadBalancer 80/TCP ->"),
        ("externalIPs: [192.0.2.1]", "external:192.0.2.1 80/TCP ->"),
        // A left-out condition follows from the others.
        ("backends: [{address: 10.1.0.1, terminating: true}]", "80/TCP -> 10.1.0.1:80,!ready,terminating"),
        ("backends: [{address: 10.1.0.1, ready: false}]", "80/TCP -> 10.1.0.1:80,!ready,!serving"),
        ("backends: [{address: 10.1.0.1, ready: false, serving: true}]", "80/TCP -> 10.1.0.1:80,!ready"),
        (
            "backends: [{address: 10.1.0.1, terminating: true, serving: false}]",
            "80/TCP -> 10.1.0.1:80,!ready,!serving,terminating",
        ),
    ];
    for (field, expected) in cases {
        let text = service(&format!("address: 10.0.0.1\nports: [{{port: 80}}]\n{field}"));
        let loaded = parse_texts(&[("c.yaml", &text)]).unwrap_or_else(|error| panic!("{text}\n{error}"));
        assert_eq!(show(&loaded.model), [format!("default/web at 10.0.0.1 {expected}")], "{text}");
    }
}

#[test]
fn ports_of_the_node() {
    let cases = [
        ("type: NodePort\nports: [{port: 80, nodePort: 30000}]", "NodePort 80/TCP node:30000 ->"),
        (
            "type: NodePort\nports: [{port: 53, nodePort: 32767, protocol: UDP}]",
            "NodePort 53/UDP node:32767 ->",
        ),
        (
            "ports: [{port: 80, targetPort: 8080, hostPort: 8000}]\nbackends: [{address: 10.1.0.1}]",
            "80/TCP host:8000 -> 10.1.0.1:8080",
        ),
        (
            "ports: [{port: 5060, protocol: SCTP, hostPort: 5060}]\nbackends: [{address: 10.1.0.1}]",
            "5060/SCTP host:5060 -> 10.1.0.1:5060",
        ),
    ];
    for (fields, expected) in cases {
        let text = service(&format!("address: 10.0.0.1\n{fields}"));
        let loaded = parse_texts(&[("c.yaml", &text)]).unwrap_or_else(|error| panic!("{text}\n{error}"));
        assert_eq!(show(&loaded.model), [format!("default/web at 10.0.0.1 {expected}")], "{text}");
    }
    // One number for two protocols.
    let both = "\
services:
- {name: a, address: 10.0.0.1, type: NodePort, ports: [{port: 53, nodePort: 30053}]}
- {name: b, address: 10.0.0.1, type: NodePort, ports: [{port: 53, nodePort: 30053, protocol: UDP}]}
";
    assert_eq!(parse_texts(&[("c.yaml", both)]).expect("a config").model.services.len(), 2);
}

#[test]
fn endpoints_of_one_place_share_it() {
    let text = "\
services:
- name: a
  address: 10.0.0.1
  ports: [{port: 80}, {port: 81}]
  backends: [{address: 10.1.0.1, node: n, zone: a}, {address: 10.1.0.2, node: n, zone: a}]
- {name: b, address: 10.0.0.2, ports: [{port: 80}], backends: [{address: 10.1.0.1, node: n, zone: a}]}
- {name: c, address: 10.0.0.3, ports: [{port: 80}], backends: [{address: 10.1.0.1}]}
";
    let model = parse_texts(&[("c.yaml", text)]).expect("a config").model;
    let ports = model.services.values().flat_map(|service| &service.ports);
    let places: Vec<_> =
        ports.flat_map(|port| &port.endpoints).map(|endpoint| endpoint.place.clone()).collect();
    assert_eq!(places.len(), 6);
    assert!(places[..5].iter().all(|place| {
        place.as_ref().is_some_and(|place| places[0].as_ref().is_some_and(|first| Arc::ptr_eq(place, first)))
    }));
    assert_eq!(places[5], None);
}

#[test]
fn words_that_do_not_exist() {
    let cases = [
        (
            "type: Loadbalancer",
            "Loadbalancer",
            "\"Loadbalancer\" is not a type of services; did you mean \"LoadBalancer\"?",
        ),
        (
            "type: [NodePort]",
            "[NodePort]",
            "a type of services is a single value, not a list; write one value",
        ),
        (
            "type: ExternalName",
            "ExternalName",
            "\"ExternalName\" is not a type of services; write ClusterIP, NodePort or LoadBalancer",
        ),
        (
            "externalTrafficPolicy: Locale",
            "Locale",
            "\"Locale\" is not a traffic policy; did you mean \"Local\"?",
        ),
        ("internalTrafficPolicy: Node", "Node", "\"Node\" is not a traffic policy; write Cluster or Local"),
        ("algorithm: Maglev", "Maglev", "\"Maglev\" is not an algorithm; did you mean \"maglev\"?"),
        ("algorithm: leastconn", "leastconn", "\"leastconn\" is not an algorithm; write maglev or random"),
        ("onRemoval: rst", "rst", "\"rst\" is not an onRemoval; did you mean \"reset\"?"),
        ("forwarding: ipip", "ipip", "\"ipip\" is not a forwarding; write snat or dsr"),
        (
            "trafficDistribution: PreferZone",
            "PreferZone",
            "\"PreferZone\" is not a trafficDistribution; did you mean \"PreferClose\"?",
        ),
        (
            "sessionAffinity: clientIp",
            "clientIp",
            "\"clientIp\" is not a session affinity; did you mean \"ClientIP\"?",
        ),
        (
            "sessionAffinity: {}",
            "{}",
            "sessionAffinity says nothing; write `sessionAffinity: {clientIP: {timeoutSeconds: 10800}}`",
        ),
        (
            "sessionAffinity: {clientIP: {timeoutSeconds: 0}}",
            "0",
            "\"0\" is not a timeout in seconds; write a whole number from 1 to 86400",
        ),
        (
            "sessionAffinity: {clientIP: {timeoutSeconds: 86401}}",
            "86401",
            "\"86401\" is not a timeout in seconds; write a whole number from 1 to 86400",
        ),
        ("backends: [{address: 10.1.0.1, ready: 1}]", "1}", "ready is \"1\"; write true or false"),
        (
            "backends: [{address: 10.1.0.1, node: 'a b'}]",
            "'a b'",
            "\"a b\" cannot be a node's name; use up to 253 letters, digits, '-', '_' and '.'",
        ),
    ];
    for (field, value, expected) in cases {
        let text = service(&format!("address: 10.0.0.1\nports: [{{port: 80}}]\n{field}"));
        let column = field.find(&format!(" {value}")).expect("the value") + 4;
        refuse(&text, &[&format!("c.yaml:5:{column}: {expected}")]);
    }
    refuse(
        &service("address: 10.0.0.1\nports: [{port: 80}]\nsessionAffinity: {clientIp: {}}"),
        &[
            "c.yaml:5:21: unknown field \"clientIp\" in sessionAffinity; did you mean \"clientIP\"?",
            "c.yaml:5:20: sessionAffinity says nothing; write `sessionAffinity: {clientIP: {timeoutSeconds: \
             10800}}`",
        ],
    );
}

#[test]
fn addresses_outside() {
    let own = "use an address of your own network";
    let cases = [
        (
            "externalIPs: [127.0.0.1]",
            format!(
                "c.yaml:5:17: 127.0.0.1 cannot be an external IP: it is a loopback address, the host's own \
                 (CVE-2020-8558); {own}"
            ),
        ),
        (
            "externalIPs: [169.254.169.254]",
            format!(
                "c.yaml:5:17: 169.254.169.254 cannot be an external IP: it is a link-local address, such as of \
                 metadata services (CVE-2020-8554); {own}"
            ),
        ),
        (
            "type: LoadBalancer\nloadBalancerIPs: ['ff02::1']",
            format!(
                "c.yaml:6:21: ff02::1 cannot be a load balancer IP: it is a multicast address and names no \
                 single host; {own}"
            ),
        ),
        (
            "externalIPs: [192.0.2.1, 192.0.2.1]",
            "c.yaml:5:28: 192.0.2.1 is given twice in externalIPs; take one out".to_owned(),
        ),
        (
            "externalIPs: ['fd00::1']",
            "c.yaml:2:9: external IP fd00::1 of service default/web is not served: the service has no IPv6 \
             address of its own; add one, or take this one out"
                .to_owned(),
        ),
        (
            "loadBalancerIPs: [192.0.2.1]",
            "c.yaml:5:20: loadBalancerIPs need type LoadBalancer; add `type: LoadBalancer` to the service"
                .to_owned(),
        ),
    ];
    for (fields, expected) in cases {
        refuse(&service(&format!("address: 10.0.0.1\nports: [{{port: 80}}]\n{fields}")), &[&expected]);
    }
}

#[test]
fn source_ranges() {
    let base = "address: 10.0.0.1\nports: [{port: 80}]\ntype: LoadBalancer";
    let cases = [
        (
            "loadBalancerIPs: [192.0.2.1]\nloadBalancerSourceRanges: [192.0.2.1/24]",
            "c.yaml:7:30: 192.0.2.1/24 has bits set behind its prefix; write 192.0.2.0/24",
        ),
        (
            "loadBalancerIPs: [192.0.2.1]\nloadBalancerSourceRanges: [192.0.2.0]",
            "c.yaml:7:30: \"192.0.2.0\" is not a range of addresses; write one like 10.96.0.0/12",
        ),
        (
            "loadBalancerSourceRanges: [192.0.2.0/24]",
            "c.yaml:6:29: loadBalancerSourceRanges hold for loadBalancerIPs, and there are none; add some, or \
             take the ranges out",
        ),
        (
            "loadBalancerIPs: [192.0.2.1]\nloadBalancerSourceRanges: [192.0.2.0/24, 'fd00::/8']",
            "c.yaml:2:9: source range fd00::/8 of service default/web holds for nothing: the service has no \
             IPv6 address; add one, or take the IPv6 ranges out",
        ),
    ];
    for (fields, expected) in cases {
        refuse(&service(&format!("{base}\n{fields}")), &[expected]);
    }
    refuse(
        &service(
            "addresses: [10.0.0.1, 'fd00::1']\nports: [{port: 80}]\ntype: LoadBalancer\n\
             loadBalancerIPs: [192.0.2.1, 'fd00:2::1']\nloadBalancerSourceRanges: [192.0.2.0/24]",
        ),
        &["c.yaml:2:9: load balancer IP fd00:2::1 of service default/web is open to everybody: its source \
             ranges have none of IPv6; add one, if only that of all addresses"],
    );
    let ranges = |count: u32| {
        let ranges: Vec<String> =
            (0..count).map(|n| format!("{}/32", std::net::Ipv4Addr::from(0x0a00_0000 + n))).collect();
        let list = ranges.join(", ");
        service(&format!("{base}\nloadBalancerIPs: [192.0.2.1]\nloadBalancerSourceRanges: [{list}]"))
    };
    let most = parse_texts(&[("c.yaml", &ranges(10_000))]).expect("as many as there may be");
    assert!(most.model.services.values().all(|service| service.source_ranges.len() == 10_000));
    refuse(
        &ranges(10_001),
        &["c.yaml:7:29: 10001 source ranges, but a service can have at most 10000; join them to larger ones"],
    );
}

#[test]
fn bad_ports_of_the_node() {
    let one = "backends: [{address: 10.1.0.1}]";
    let cases = [
        (
            "type: NodePort\nports: [{port: 80, nodePort: 8080}]".to_owned(),
            "c.yaml:5:32: \"8080\" is not a node port; write a whole number from 30000 to 32767, or set \
             nodePortRange",
        ),
        (
            "type: NodePort\nports: [{port: 80, nodePort: 32768}]".to_owned(),
            "c.yaml:5:32: \"32768\" is not a node port; write a whole number from 30000 to 32767, or set \
             nodePortRange",
        ),
        (
            "ports: [{port: 80, nodePort: 30080}]".to_owned(),
            "c.yaml:4:32: a nodePort needs type NodePort or LoadBalancer; add `type: NodePort` to the service",
        ),
        (
            "type: NodePort\nports: [{port: 80}]".to_owned(),
            "c.yaml:4:9: type is NodePort, but no port has a nodePort; add one, like `nodePort: 30080`",
        ),
        (
            "type: NodePort\nports: [{port: 80, nodePort: 30080}, {port: 81, nodePort: 30080}]".to_owned(),
            "c.yaml:2:9: two ports of service default/web have port 30080/TCP of the node; give one of them \
             another",
        ),
        (
            format!("type: NodePort\nports: [{{port: 80, nodePort: 30080, hostPort: 30080}}]\n{one}"),
            "c.yaml:2:9: two ports of service default/web have port 30080/TCP of the node; give one of them \
             another",
        ),
        (
            "ports: [{port: 80, hostPort: 0}]".to_owned(),
            "c.yaml:4:32: \"0\" is not a port; write a whole number from 1 to 65535",
        ),
        (
            "ports: [{port: 80, hostPort: 8080}]".to_owned(),
            "c.yaml:4:32: hostPort 8080 leads to one container, but there is no backend; add it",
        ),
        (
            "ports: [{port: 80, hostPort: 8080}]\nbackends: [{address: 10.1.0.1}, {address: 10.1.0.2}]"
                .to_owned(),
            "c.yaml:4:32: hostPort 8080 leads to one container of each family, but there are 2 IPv4 backends; \
             use a nodePort, or take the others out",
        ),
        (
            "ports: [{port: 80, targetPort: http}]".to_owned(),
            "c.yaml:4:34: \"http\" is a name, which backends have none of here; write the port's number: names \
             are known only of Kubernetes' EndpointSlices",
        ),
        (
            "ports: [{port: 80, targetPort: 8080, protocol: SCTP}]".to_owned(),
            "c.yaml:4:34: port 80/SCTP cannot become 8080: SCTP's checksum covers ports, so they stay as they \
             are; use one number for all",
        ),
        (
            "type: NodePort\nports: [{port: 80, nodePort: 30080, protocol: SCTP}]".to_owned(),
            "c.yaml:5:32: port 80/SCTP cannot become 30080: SCTP's checksum covers ports, so they stay as they \
             are; use one number for all",
        ),
        (
            "ports: [{port: 80, protocol: SCTP}]\nbackends: [{address: 10.1.0.1, port: 81}]".to_owned(),
            "c.yaml:2:9: port 80/SCTP of service default/web is not served: its backend 10.1.0.1 listens on \
             port 81, and SCTP's checksum covers ports, so they stay as they are; let it listen on 80",
        ),
    ];
    for (fields, expected) in cases {
        refuse(&service(&format!("address: 10.0.0.1\n{fields}")), &[expected]);
    }
}

#[test]
fn frontends_that_others_have() {
    let text = "\
services:
- {name: a, address: 10.0.0.1, externalIPs: [192.0.2.1], type: NodePort, ports: [{port: 80, nodePort: 30080}]}
- {name: b, address: 10.0.0.2, externalIPs: [192.0.2.1], ports: [{port: 80}]}
- {name: c, address: 192.0.2.1, ports: [{port: 80}]}
- {name: d, address: 10.0.0.4, type: LoadBalancer, loadBalancerIPs: [10.0.0.1], ports: [{port: 80}]}
- {name: e, address: 10.0.0.5, type: NodePort, ports: [{port: 81, nodePort: 30080}]}
- {name: f, address: 10.0.0.6, ports: [{port: 82, hostPort: 30080}], backends: [{address: 10.1.0.1}]}
- {name: g, address: 10.0.0.7, externalIPs: [192.0.2.1], ports: [{port: 81}]}
";
    let clash = |line, address: &str, service: &str| {
        format!(
            "c.yaml:{line}:10: {address} port 80/TCP of default/{service} belongs to service default/a at \
             c.yaml:2:10 already; give one of them another address or port"
        )
    };
    let node = |line, service: &str| {
        format!(
            "c.yaml:{line}:10: port 30080/TCP of the node of default/{service} belongs to service default/a at \
             c.yaml:2:10 already; give one of them another port"
        )
    };
    let cluster_ip = |service: &str| {
        format!(
            "c.yaml:{}:10: 192.0.2.1 port 80/TCP of default/{service} belongs to service default/c at c.yaml:4:10 \
             already; give one of them another address or port",
            if service == "a" { 2 } else { 3 }
        )
    };
    let expected = [cluster_ip("a"), cluster_ip("b"), clash(5, "10.0.0.1", "d"), node(6, "e"), node(7, "f")];
    refuse(text, &expected.each_ref().map(String::as_str));
}

#[test]
fn a_range_of_node_ports() {
    let services =
        "services: [{name: a, address: 10.0.0.1, type: NodePort, ports: [{port: 80, nodePort: 8080}]}]\n";
    // Also where it stands in another document.
    let text = format!("{services}---\nnodePortRange: 8000-9000\n");
    let loaded = parse_texts(&[("c.yaml", &text)]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(show(&loaded.model), ["default/a at 10.0.0.1 NodePort 80/TCP node:8080 ->"]);
    for (range, expected) in [
        (
            "9000-9100",
            "c.yaml:1:86: \"8080\" is not a node port; write a whole number from 9000 to 9100, or set nodePortRange",
        ),
        ("0-9000", "c.yaml:3:16: 0-9000 has port 0, which is none; begin at 1 or above"),
        ("9000-8000", "c.yaml:3:16: 9000-8000 has no port; write the smaller number first"),
        ("8080", "c.yaml:3:16: \"8080\" is not a range of ports; write one like 30000-32767"),
    ] {
        let loaded = parse_texts(&[("c.yaml", &format!("{services}---\nnodePortRange: {range}\n"))]);
        let error = loaded.expect_err("a bad range").to_string();
        assert_eq!(error.lines().next(), Some(expected), "{range}");
    }
}

#[test]
fn health_checks() {
    let base = "address: 10.0.0.1\nports: [{port: 80}]\nhealthCheckNodePort: 31000";
    let text = service(&format!("{base}\ntype: LoadBalancer\nexternalTrafficPolicy: Local"));
    let loaded = parse_texts(&[("c.yaml", &text)]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        show(&loaded.model),
        ["default/web at 10.0.0.1 LoadBalancer external-Local health:31000 80/TCP ->"]
    );
    refuse(
        &service(&format!("{base}\ntype: LoadBalancer")),
        &["c.yaml:5:24: healthCheckNodePort tells which nodes have backends; add `type: LoadBalancer` and \
           `externalTrafficPolicy: Local` to the service"],
    );
}

#[test]
fn ports_that_the_node_lends() {
    let services = "\
services:
- {name: a, address: 10.0.0.1, type: NodePort, ports: [{port: 80, nodePort: 30080}, {port: 81, nodePort: 30180}]}
- {name: b, address: 10.0.0.2, ports: [{port: 53, protocol: UDP, hostPort: 10053}], backends: [{address: 10.1.0.1}]}
";
    let said = |line, what: &str, range: &str| {
        format!(
            "c.yaml:{line}:10: {what} is not served: it lies in {range}; give the service another, or \
             snatPorts another range"
        )
    };
    let default = "snatPorts, which are 10000-29999 where nothing is said";
    refuse(services, &[&said(3, "host port 10053/UDP of service default/b", default)]);
    let stated = "snatPorts 10053-30080 at c.yaml:5:12";
    refuse(
        &format!("{services}---\nsnatPorts: 10053-30080\n"),
        &[
            &said(2, "node port 30080/TCP of service default/a", stated),
            &said(3, "host port 10053/UDP of service default/b", stated),
        ],
    );
    for range in ["10054-30079", "30181-32767", "none"] {
        let text = format!("{services}---\nsnatPorts: {range}\n");
        let loaded = parse_texts(&[("c.yaml", &text)]).unwrap_or_else(|error| panic!("{text}\n{error}"));
        assert_eq!(loaded.model.services.len(), 2, "{range}");
    }
}

/// Where a backend of a service with DSR is has to be known.
#[test]
fn nodes_of_dsr() {
    let config = |nodes: &str, place: &str| {
        format!(
            "{nodes}services: [{{name: web, address: 10.96.0.10, ports: [{{port: 80}}], forwarding: dsr, backends: \
             [{{address: 10.244.2.2{place}}}]}}]\n"
        )
    };
    let known = "nodes: [{name: node2, addresses: ['fd00:1::12', 192.168.1.12]}]\n";
    for (nodes, place) in
        [(known, ", node: node2"), (known, ""), ("", ""), ("node: {name: node2}\n", ", node: node2")]
    {
        let text = config(nodes, place);
        assert!(parse_texts(&[("c.yaml", &text)]).is_ok(), "{text}");
    }
    let unknown = |line: u32, node: &str| {
        format!(
            "c.yaml:{line}:19: service default/web asks for forwarding: dsr, but nobody knows an IPv4 address of node \
             {node}, where its backend 10.244.2.2 is; add it, like `nodes: [{{name: {node}, addresses: \
             [192.168.1.12]}}]`"
        )
    };
    refuse(&config("", ", node: node2"), &[&unknown(1, "node2")]);
    refuse(&config(known, ", node: node3"), &[&unknown(2, "node3")]);
    refuse(
        &config("nodes: [{name: node2, addresses: ['fd00:1::12']}]\n", ", node: node2"),
        &[&unknown(2, "node2")],
    );
}

#[test]
fn bad_nodes() {
    let cases: [(&str, &[&str]); 7] = [
        (
            "nodes: [{addresses: [192.168.1.12]}]",
            &["c.yaml:1:9: the node has no name; add `name: NAME`, as backends' `node` has it"],
        ),
        (
            "nodes: [{name: a, addresses: [10.0.0.1]}, {name: a, zone: b}]",
            &["c.yaml:1:43: node a is given twice, and differently; keep one"],
        ),
        ("node: {nam: a}", &["c.yaml:1:8: unknown field \"nam\" in node; did you mean \"name\"?"]),
        (
            "node: {name: 'a b', addresses: [10.0.0.300], podCIDRs: [10.0.0.1/8], zone: [a]}",
            &[
                "c.yaml:1:14: \"a b\" cannot be a node's name; use up to 253 letters, digits, '-', '_' and '.'",
                "c.yaml:1:33: \"10.0.0.300\" is not an IP address; write one like 10.96.0.10 or fd00::10",
                "c.yaml:1:57: 10.0.0.1/8 has bits set behind its prefix; write 10.0.0.0/8",
                "c.yaml:1:76: a zone is a single value, not a list; write one value",
            ],
        ),
        (
            "nodePortAddresses: [primry, 127.0.0.1, 10.0.0.1/8]",
            &[
                "c.yaml:1:21: \"primry\" is not an IP address; write one like 10.96.0.10 or fd00::10",
                "c.yaml:1:29: 127.0.0.1 cannot be an address for node ports: it is a loopback address, the \
                 host's own (CVE-2020-8558); use an address of your own network",
                "c.yaml:1:40: 10.0.0.1/8 has bits set behind its prefix; write 10.0.0.0/8",
            ],
        ),
        (
            "node: {name: a}\n---\nnode: {name: b}",
            &["c.yaml:3:7: node differs from the one at c.yaml:1:7; keep one"],
        ),
        (
            "node: []",
            &["c.yaml:1:7: node is a mapping; write it with the fields name, addresses, podCIDRs, zone"],
        ),
    ];
    for (text, expected) in cases {
        refuse(text, expected);
    }
    assert!(parse_texts(&[("a.yaml", "node: {name: a}"), ("b.yaml", "node: {name: a}")]).is_ok());
}
