//! What Kubernetes' objects can say, and what is wrong about them.

use super::*;

/// A Service of this spec, which is right but for what is put in; `more` are further fields of the object.
fn service(name: &str, spec: &str, more: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {spec}\n{more}\n---\n")
}

/// An EndpointSlice of the service with port 8080 and these endpoints.
fn slice(service: &str, endpoints: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {service}-1, labels: {{kubernetes.io/service-name: {service}}}}}\n\
         addressType: IPv4\nports: [{{port: 8080}}]\nendpoints: [{endpoints}]\n---\n"
    )
}

/// Objects, the model they come to, and the problems.
#[track_caller]
fn check(text: &str, model: &[&str], expected: &[&str]) {
    let loaded = parse_texts(&[("k.yaml", text)]).unwrap_or_else(|error| panic!("{text}\n{error}"));
    assert_eq!(show(&loaded.model), model, "{text}");
    assert_eq!(problems(&loaded), expected, "{text}");
}

#[test]
fn everything_a_service_says() {
    let spec = "
  type: LoadBalancer
  clusterIPs: [10.96.0.10, 'fd00:96::10']
  externalIPs: [203.0.113.10]
  loadBalancerIP: 198.51.100.99
  loadBalancerSourceRanges: [198.51.100.7/24, ' 192.0.2.0/24', '::/0']
  externalTrafficPolicy: Local
  internalTrafficPolicy: Local
  healthCheckNodePort: 31000
  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 600}}
  trafficDistribution: PreferClose
  ports: [{port: 80, nodePort: 30080, targetPort: http}, {port: 53, nodePort: 0, protocol: UDP}]";
    let status = "status: {loadBalancer: {ingress: [{ip: 198.51.100.10, ipMode: VIP}, {ip: 198.51.100.11, \
                  ipMode: Proxy}, {hostname: lb.example.org}, {ip: 'fd00:1b::1'}]}}";
    let endpoints = "\
        {addresses: [10.1.0.1], nodeName: n1, zone: a, hints: {forZones: [{name: a}, {name: b}], forNodes: \
        [{name: n1}]}}, {addresses: [10.1.0.2], nodeName: n2, hints: {forZones: []}}";
    check(
        &(service("web", spec, status) + &slice("web", endpoints)),
        &[
            "default/web at 10.96.0.10 fd00:96::10 LoadBalancer external:203.0.113.10 balanced:198.51.100.10 \
             balanced:fd00:1b::1 from:198.51.100.0/24 from:192.0.2.0/24 from:::/0 internal-Local \
             external-Local affinity:600s health:31000 80/TCP node:30080 -> 10.1.0.1:8080@n1/a+a+b+node:n1 \
             10.1.0.2:8080@n2/?",
            "default/web at 10.96.0.10 fd00:96::10 LoadBalancer external:203.0.113.10 balanced:198.51.100.10 \
             balanced:fd00:1b::1 from:198.51.100.0/24 from:192.0.2.0/24 from:::/0 internal-Local \
             external-Local affinity:600s health:31000 53/UDP ->",
        ],
        &[],
    );
}

#[test]
fn what_a_type_does_not_have_is_not_looked_at() {
    let status = "status: {loadBalancer: {ingress: [{ip: 198.51.100.10}]}}";
    let spec =
        "{clusterIP: 10.0.0.1, loadBalancerSourceRanges: ['fd00::/8'], ports: [{port: 80, nodePort: 1}]}";
    check(&service("web", spec, status), &["default/web at 10.0.0.1 80/TCP ->"], &[]);
}

#[test]
fn source_ranges_of_the_annotation() {
    let spec = |ranges: &str| {
        let annotation =
            "service.beta.kubernetes.io/load-balancer-source-ranges: '192.0.2.0/24, 10.0.0.0/8,'";
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web, annotations: {{{annotation}}}}}\n\
             spec: {{type: LoadBalancer, clusterIP: 10.0.0.1, ports: [{{port: 80}}], \
             loadBalancerSourceRanges: [{ranges}]}}\n"
        )
    };
    let head = "default/web at 10.0.0.1 LoadBalancer";
    check(&spec(""), &[&format!("{head} from:192.0.2.0/24 from:10.0.0.0/8 80/TCP ->")], &[]);
    check(&spec("0.0.0.0/0"), &[&format!("{head} from:0.0.0.0/0 80/TCP ->")], &[]);
    check(
        &spec("").replace("192.0.2.0/24", "192.0.2.0/33"),
        &[&format!("{head} from:10.0.0.0/8 80/TCP ->")],
        &[
            "k.yaml:3:93: a source range of Service default/web is left out: \"192.0.2.0/33\" is not a range of \
             addresses; write one like 198.51.100.0/24",
        ],
    );
}

#[test]
fn what_is_somebody_elses_is_left_alone() {
    let labelled =
        |object: &str, label: &str| object.replace("{name:", &format!("{{labels: {{{label}}}, name:"));
    let web = service("web", "{clusterIP: 10.0.0.1, ports: [{port: 80}]}", "");
    let pods = slice("web", "{addresses: [10.1.0.1]}");
    for label in ["service.kubernetes.io/service-proxy-name: other", "service.kubernetes.io/headless: ''"] {
        check(&(labelled(&web, label) + &pods), &[], &[]);
        let others = pods.replace("labels: {", &format!("labels: {{{label}, "));
        check(&(web.clone() + &others), &["default/web at 10.0.0.1 80/TCP ->"], &[]);
    }
    // Neither headless services nor other names, with or without slices.
    check(&(service("web", "{clusterIP: None, ports: [{port: 80}]}", "") + &pods), &[], &[]);
    check(&service("web", "{clusterIP: None}", ""), &[], &[]);
    check(&service("web", "{type: ExternalName, externalName: example.org}", ""), &[], &[]);
}

#[test]
fn services_and_slices_without_each_other() {
    let text = service("web", "{clusterIP: 10.0.0.1, ports: [{port: 80}]}", "")
        + &slice("gone", "{addresses: [10.1.0.1]}")
        + &slice("gone", "{addresses: [10.1.0.2]}");
    check(
        &text,
        &["default/web at 10.0.0.1 80/TCP ->"],
        &["k.yaml:9:11: EndpointSlices of service default/gone are left out: there is no such Service; add \
             it, or remove them"],
    );
    // A Service that is left out is reported itself.
    let text = service("bad", "{clusterIP: 127.0.0.1, ports: [{port: 80}]}", "");
    let problem = "k.yaml:4:19: Service default/bad is left out: 127.0.0.1 cannot be a service's address: it \
                   is a loopback address, the host's own (CVE-2020-8558); use an address of your own network";
    check(&(text + &slice("bad", "{addresses: [10.1.0.1]}")), &[], &[problem]);
}

#[test]
fn a_bad_field_takes_nothing_but_itself() {
    let good = "clusterIP: 10.0.0.1, ports: [{port: 80}]";
    let plain = "default/web at 10.0.0.1 80/TCP ->";
    let cases = [
        (
            "type: Loadbalancer",
            "Loadbalancer",
            plain,
            "the type of Service default/web is left out: \"Loadbalancer\" is not a type of services; did you mean \
             \"LoadBalancer\"?",
        ),
        (
            "internalTrafficPolicy: local",
            "local",
            plain,
            "internalTrafficPolicy of Service default/web is left out: \"local\" is not a traffic policy; did you mean \
             \"Local\"?",
        ),
        (
            "externalTrafficPolicy: Nearest",
            "Nearest",
            plain,
            "externalTrafficPolicy of Service default/web is left out: \"Nearest\" is not a traffic policy; write \
             Cluster or Local",
        ),
        (
            "sessionAffinity: Cookie",
            "Cookie",
            plain,
            "sessionAffinity of Service default/web is left out: \"Cookie\" is not a session affinity; write None or \
             ClientIP",
        ),
        (
            "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 90000}}",
            "90000",
            "default/web at 10.0.0.1 affinity:10800s 80/TCP ->",
            "timeoutSeconds of Service default/web is left out: \"90000\" is not a timeout in seconds; write a whole \
             number from 1 to 86400",
        ),
        (
            "ipFamilies: [IPv4, IPv5]",
            "IPv5",
            plain,
            "a family of Service default/web is left out: \"IPv5\" is not a family of addresses; write IPv4 or IPv6",
        ),
        (
            "externalIPs: here",
            "here",
            plain,
            "externalIPs of Service default/web is left out: externalIPs is a list; write `externalIPs: [...]` or lines \
             that begin with `-`",
        ),
        (
            "clusterIPs: [10.0.0.1, 10.0.0.2, 'fd00::z', 'fd00::1']",
            "10.0.0.2",
            "default/web at 10.0.0.1 fd00::1 80/TCP ->",
            "a cluster IP of Service default/web is left out: 10.0.0.2 and 10.0.0.1 are of one family; a service has one \
             address of each",
        ),
    ];
    for (field, value, model, expected) in cases {
        let text = service("web", &format!("{{{good}, {field}}}"), "");
        let column = text.lines().nth(3).and_then(|line| line.find(value)).expect("the value") + 1;
        let loaded = parse_texts(&[("k.yaml", &text)]).unwrap_or_else(|error| panic!("{text}\n{error}"));
        assert_eq!(show(&loaded.model), [model], "{text}");
        assert_eq!(problems(&loaded)[0], format!("k.yaml:4:{column}: {expected}"), "{text}");
    }
}

#[test]
fn a_bad_port_takes_no_other_one() {
    let spec = "{clusterIP: 10.0.0.1, ports: [{port: 0}, {port: 80}, {port: 80, protocol: TCP}, {name: x}, \
                {port: 81, name: [a]}, {port: 82, protocol: DCCP}, {port: 80, protocol: UDP}]}";
    let slices = slice("web", "{addresses: [10.1.0.1]}")
        .replace("[{port: 8080}]", "[{port: 8080}, {port: 70000}, {port: 8080, protocol: UDP}]");
    let left_out = |column: u32, what: &str| format!("k.yaml:4:{column}: {what}");
    check(
        &(service("web", spec, "") + &slices),
        &[
            "default/web at 10.0.0.1 80/TCP -> 10.1.0.1:8080",
            "default/web at 10.0.0.1 80/UDP -> 10.1.0.1:8080",
        ],
        &[
            &left_out(
                44,
                "a port of Service default/web is left out: \"0\" is not a port; write a whole number from 1 to 65535",
            ),
            &left_out(60, "port 80 of Service default/web is left out: 80/TCP is given twice; take one out"),
            &left_out(87, "a port of Service default/web is left out: it has no number; add port"),
            &left_out(
                115,
                "port 81 of Service default/web is left out: a port's name is a single value, not a list; write one \
                 value",
            ),
            &left_out(
                142,
                "port 82 of Service default/web is left out: \"DCCP\" is not a protocol; write TCP, UDP or SCTP",
            ),
            "k.yaml:11:30: a port of EndpointSlice default/web-1 is left out: \"70000\" is not a port; write a whole \
             number from 1 to 65535",
        ],
    );
}

#[test]
fn a_bad_endpoint_takes_no_other_one() {
    let endpoints = "{addresses: [10.1.0.300]}, {addresses: []}, {addresses: [10.1.0.1], conditions: {ready: maybe}}, \
                     {addresses: [10.1.0.2], zone: [a], nodeName: n1}, {addresses: [10.1.0.3], hints: {forZones: [{name: \
                     a}, {name: {}}], forNodes: n1}}";
    let loaded = parse_texts(&[(
        "k.yaml",
        &(service("web", "{clusterIP: 10.0.0.1, ports: [{port: 80}]}", "") + &slice("web", endpoints)),
    )])
    .expect("a config");
    assert_eq!(
        show(&loaded.model),
        ["default/web at 10.0.0.1 80/TCP -> 10.1.0.2:8080@n1/? 10.1.0.3:8080@?/?+a"]
    );
    let said: Vec<String> = problems(&loaded)
        .iter()
        .map(|line| {
            line.split_once(": ").and_then(|(_, text)| text.split_once(": ")).expect("what").0.to_owned()
        })
        .collect();
    assert_eq!(
        said,
        [
            "an endpoint of EndpointSlice default/web-1 is left out",
            "an endpoint of EndpointSlice default/web-1 is left out",
            "an endpoint of EndpointSlice default/web-1 is left out",
            "the zone of an endpoint of EndpointSlice default/web-1 is left out",
            "a hint of EndpointSlice default/web-1 is left out",
            "forNodes of EndpointSlice default/web-1 is left out",
        ]
    );
}

/// Leaving a range out lets nobody in.
#[test]
fn bad_source_ranges() {
    let status = "status: {loadBalancer: {ingress: [{ip: 198.51.100.1}, {ip: 'fd00:2::1'}]}}";
    let text = |ranges: &str| {
        let spec = format!(
            "{{type: LoadBalancer, clusterIPs: [10.0.0.1, 'fd00::1'], ports: [{{port: 80}}], \
             loadBalancerSourceRanges: {ranges}}}"
        );
        service("web", &spec, status)
    };
    let cases: &[(&str, &str, usize)] = &[
        ("[10.0.0.0/8, 'fd00::/8', 10.0.0.0/33]", "10.0.0.0/8 fd00::/8", 1),
        // The one that is wrong may have been the only one of its family.
        ("[10.0.0.0/8, fd00]", "10.0.0.0/8 ::/128", 2),
        ("['fd00::/8', 10.0.0.0]", "fd00::/8 0.0.0.0/32", 2),
        ("[10.0.0.0/33, []]", "0.0.0.0/32 ::/128", 4),
        ("10.0.0.0/8", "0.0.0.0/32 ::/128", 3),
        // As ever.
        ("[10.0.0.0/8]", "10.0.0.0/8", 1),
        ("[]", "", 0),
    ];
    for &(ranges, expected, count) in cases {
        let text = text(ranges);
        let loaded = parse_texts(&[("k.yaml", &text)]).unwrap_or_else(|error| panic!("{text}\n{error}"));
        let service = loaded.model.services.values().next().expect("the service");
        let found: Vec<String> = service.source_ranges.iter().map(ToString::to_string).collect();
        assert_eq!(found.join(" "), expected, "{ranges}");
        assert_eq!(loaded.problems.len(), count, "{ranges}: {:?}", problems(&loaded));
    }
    let loaded = parse_texts(&[("k.yaml", &text("[10.0.0.0/33]"))]).expect("a config");
    assert_eq!(
        problems(&loaded)[1],
        "k.yaml:3:18: load balancer IP 198.51.100.1 of service default/web is open to nobody: of its source ranges some \
         are left out, and none is left for IPv4; correct them"
    );
    let many = vec!["10.0.0.0/8"; 10_001].join(", ");
    let loaded = parse_texts(&[("k.yaml", &text(&format!("[{many}]")))]).expect("a config");
    assert_eq!(
        loaded.model.services.values().map(|service| service.source_ranges.len()).sum::<usize>(),
        10_001
    );
    assert!(problems(&loaded)[0].contains("10001 source ranges, but a service can have at most 10000"));
}

#[test]
fn parts_that_cannot_be_served_are_left_out_alone() {
    let spec = "\
{type: LoadBalancer, clusterIP: 10.0.0.1, externalIPs: [127.0.0.1, 'fd00::1', 192.0.2.1],
  loadBalancerSourceRanges: ['fd00::/8'],
  ports: [{port: 80, nodePort: 70000}, {port: 90, protocol: SCTP, nodePort: 30090}, {name: x, port: 91, protocol: SCTP}]}";
    let status = "status: {loadBalancer: {ingress: [{ip: 169.254.0.1}, {ip: 198.51.100.1}]}}";
    let slices = slice("web", "{addresses: [10.1.0.1]}").replace(
        "[{port: 8080}]",
        "[{port: 8080}, {port: 90, protocol: SCTP}, {name: x, port: 92, protocol: SCTP}]",
    );
    check(
        &(service("web", spec, status) + &slices),
        &[
            "default/web at 10.0.0.1 LoadBalancer external:192.0.2.1 balanced:198.51.100.1 80/TCP -> \
             10.1.0.1:8080",
            "default/web at 10.0.0.1 LoadBalancer external:192.0.2.1 balanced:198.51.100.1 90/SCTP -> \
             10.1.0.1:90",
        ],
        &[
            "k.yaml:4:63: an external IP of Service default/web is left out: 127.0.0.1 cannot be an external IP: \
             it is a loopback address, the host's own (CVE-2020-8558); use an address of your own network",
            "k.yaml:6:32: the node port of port 80 of Service default/web is left out: \"70000\" is not a \
             node port; write a whole number from 1 to 65535",
            "k.yaml:7:40: a load balancer IP of Service default/web is left out: 169.254.0.1 cannot be a load \
             balancer IP: it is a link-local address, such as of metadata services (CVE-2020-8554); use an \
             address of your own network",
            "k.yaml:3:18: external IP fd00::1 of service default/web is not served: the service has no IPv6 \
             address of its own; add one, or take this one out",
            "k.yaml:3:18: load balancer IP 198.51.100.1 of service default/web is open to everybody: its \
             source ranges have none of IPv4; add one, if only that of all addresses",
            "k.yaml:3:18: source range fd00::/8 of service default/web holds for nothing: the service has no \
             IPv6 address; add one, or take the IPv6 ranges out",
            "k.yaml:3:18: node port 30090 of port 90/SCTP of service default/web is not served: SCTP's \
             checksum covers ports, so they stay as they are; take it out, or use port 30090 everywhere",
            "k.yaml:3:18: port 91/SCTP of service default/web is not served: its backend 10.1.0.1 listens on \
             port 92, and SCTP's checksum covers ports, so they stay as they are; let it listen on 91",
        ],
    );
}

/// The API server's range is its own; ports that are allocated to flows keep clear of it.
#[test]
fn node_ports_as_the_api_gave_them() {
    let snat = |ports: &[u16], ours: &str| {
        let ports: Vec<String> = (1..)
            .zip(ports)
            .map(|(n, port)| format!("{{port: {n}, name: p{n}, nodePort: {port}}}"))
            .collect();
        let spec = format!("{{type: NodePort, clusterIP: 10.0.0.1, ports: [{}]}}", ports.join(", "));
        let loaded = parse_texts(&[("k.yaml", &(service("web", &spec, "") + ours))]).expect("a config");
        let served = loaded.model.services.values().flat_map(|service| &service.ports);
        let served = served.filter_map(|port| port.node_port).count();
        let range = loaded.model.snat_ports.map(|range| range.to_string()).unwrap_or_default();
        format!("{served} {range} {}", loaded.problems.len())
    };
    assert_eq!(snat(&[1, 3000, 65_535], ""), "3 10000-29999 0");
    assert_eq!(snat(&[20_000, 22_767], ""), "2 10000-19999 0");
    assert_eq!(snat(&[10_000, 29_999], ""), "2 10001-29998 0");
    assert_eq!(snat(&[12_000, 29_000], "snatPorts: 10000-29999\n"), "2 12001-28999 1");
    assert_eq!(snat(&[12_000], "snatPorts: none\n"), "1  0");
    assert_eq!(snat(&[30_080], "nodePortRange: 15000-40000\n"), "1 10000-14999 0");
    assert_eq!(snat(&[30_080], "nodePortRange: 1-19999\n"), "1 20000-29999 0");
    // No part is large enough: then the ports of flows stay, and these are not served.
    assert_eq!(snat(&[2050, 2080], "snatPorts: 2000-2100\n"), "0 2000-2100 2");
    check(
        &(service(
            "web",
            "{type: NodePort, clusterIP: 10.0.0.1, ports: [{port: 80, nodePort: 30080}, {port: 81, nodePort: 31000}]}",
            "",
        ) + "snatPorts: 30000-30999\n"),
        &[
            "default/web at 10.0.0.1 NodePort 80/TCP node:30080 ->",
            "default/web at 10.0.0.1 NodePort 81/TCP node:31000 ->",
        ],
        &[
            "k.yaml:7:12: snatPorts 30000-30999 has node port 30080 of service default/web in it, so 30081-30999 is used; \
           write a range without node ports",
        ],
    );
}

/// Who owns a cluster IP has it, whoever was there before; only that frontend changes hands.
#[test]
fn a_cluster_ip_goes_before_other_frontends() {
    let dated = |name: &str, year: u32, spec: &str, more: &str| {
        let created = format!("name: {name}, creationTimestamp: '{year}-01-01T00:00:00Z'");
        service(name, spec, more).replace(&format!("name: {name}"), &created)
    };
    let status = "status: {loadBalancer: {ingress: [{ip: 10.0.0.9}]}}";
    let older = "{type: LoadBalancer, clusterIP: 10.0.0.1, externalIPs: [10.0.0.8], ports: [{name: a, port: 80, \
                 nodePort: 30080}, {name: b, port: 443, nodePort: 30443}]}";
    let text = dated("older", 2020, older, status)
        + &dated("eight", 2024, "{clusterIP: 10.0.0.8, ports: [{port: 80}]}", "")
        + &dated(
            "nine",
            2023,
            "{clusterIP: 10.0.0.9, ports: [{port: 443}, {name: u, port: 80, protocol: UDP}]}",
            "",
        );
    let head = "default/older at 10.0.0.1 LoadBalancer external:10.0.0.8 balanced:10.0.0.9";
    check(
        &text,
        &[
            "default/eight at 10.0.0.8 80/TCP ->",
            "default/nine at 10.0.0.9 443/TCP ->",
            "default/nine at 10.0.0.9 80/UDP(u) ->",
            &format!("{head} 80/TCP(a) node:30080 lost:10.0.0.8 ->"),
            &format!("{head} 443/TCP(b) node:30443 lost:10.0.0.9 ->"),
        ],
        &[
            "k.yaml:3:18: 10.0.0.8 port 80/TCP of default/older is not served for it: it is the cluster IP of service \
             default/eight at k.yaml:9:18; give one of them another address or port",
            "k.yaml:3:18: 10.0.0.9 port 443/TCP of default/older is not served for it: it is the cluster IP of service \
             default/nine at k.yaml:15:18; give one of them another address or port",
        ],
    );
    // One of ours is no error of ours for what a cluster holds, and keeps what is no cluster IP.
    let ours = "services: [{name: ours, address: 10.0.0.5, type: NodePort, externalIPs: [10.0.0.8, 10.0.0.7], ports: \
                [{port: 80, nodePort: 30080}]}]\n";
    let text = ours.to_owned()
        + "---\n"
        + &dated(
            "eight",
            2020,
            "{type: NodePort, clusterIP: 10.0.0.8, externalIPs: [10.0.0.7], ports: [{port: 80, \
                                nodePort: 30080}]}",
            "",
        );
    check(
        &text,
        &[
            "default/eight at 10.0.0.8 NodePort external:10.0.0.7 80/TCP lost:10.0.0.7 ->",
            "default/ours at 10.0.0.5 NodePort external:10.0.0.8 external:10.0.0.7 80/TCP node:30080 lost:10.0.0.8 ->",
        ],
        &[
            "k.yaml:1:19: 10.0.0.8 port 80/TCP of default/ours is not served for it: it is the cluster IP of service \
             default/eight at k.yaml:5:18; give one of them another address or port",
            "k.yaml:5:18: 10.0.0.7 port 80/TCP of default/eight is not served for it: it belongs to service default/ours \
             at k.yaml:1:19; give one of them another address or port",
            "k.yaml:5:18: port 30080/TCP of the node of default/eight is not served for it: it belongs to service \
             default/ours at k.yaml:1:19; give one of them another port",
        ],
    );
}

#[test]
fn ports_of_the_node_that_another_has() {
    let spec = |address: &str, health: u16, port: u16| {
        format!(
            "{{type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: {health}, clusterIP: {address}, \
             ports: [{{port: 80, nodePort: {port}}}]}}"
        )
    };
    let text = service("a", &spec("10.0.0.1", 31_000, 30_080), "")
        + &service("b", &spec("10.0.0.2", 31_000, 30_081), "")
        + &service("c", &spec("10.0.0.3", 31_002, 31_000), "");
    let taken = |line: u32, service: &str| {
        format!(
            "k.yaml:{line}:18: port 31000/TCP of the node of default/{service} is not served for it: it belongs to \
             service default/a at k.yaml:3:18; give one of them another port"
        )
    };
    check(
        &text,
        &[
            "default/a at 10.0.0.1 LoadBalancer external-Local health:31000 80/TCP node:30080 ->",
            "default/b at 10.0.0.2 LoadBalancer external-Local 80/TCP node:30081 ->",
            "default/c at 10.0.0.3 LoadBalancer external-Local health:31002 80/TCP ->",
        ],
        &[&taken(9, "b"), &taken(15, "c")],
    );
}

#[test]
fn addresses_as_the_api_server_takes_them() {
    let spec = "{type: LoadBalancer, clusterIP: 010.010.129.217, externalIPs: ['::ffff:192.0.2.1'], \
                loadBalancerSourceRanges: [010.0.0.0/08, '::ffff:192.168.0.0/112'], ports: [{port: 80}]}";
    let status = "status: {loadBalancer: {ingress: [{ip: 198.051.100.001}]}}";
    check(
        &(service("web", spec, status)
            + &slice("web", "{addresses: [010.1.00.1]}, {addresses: ['::ffff:10.1.0.2']}")),
        &[
            "default/web at 10.10.129.217 LoadBalancer external:192.0.2.1 balanced:198.51.100.1 from:10.0.0.0/8 \
           from:192.168.0.0/16 80/TCP -> 10.1.0.1:8080 10.1.0.2:8080",
        ],
        &[],
    );
    // Written otherwise, it is as much the host's own.
    check(
        &service("web", "{clusterIP: '::ffff:127.0.0.1', ports: [{port: 80}]}", ""),
        &[],
        &[
            "k.yaml:4:19: Service default/web is left out: 127.0.0.1 cannot be a service's address: it is a loopback \
           address, the host's own (CVE-2020-8558); use an address of your own network",
        ],
    );
}

#[test]
fn the_older_keeps_a_frontend() {
    let old = |name: &str, spec: &str| {
        let created = format!("name: {name}, creationTimestamp: '2024-01-01T00:00:00Z'");
        service(name, spec, "").replace(&format!("name: {name}"), &created)
    };
    let spec = |address: &str, more: &str| format!("{{type: NodePort, clusterIP: {address}, {more}}}");
    let text = service("young", &spec("10.0.0.1", "ports: [{port: 80, nodePort: 30080}]"), "")
        + &service("outside", &spec("10.0.0.2", "ports: [{port: 81}], externalIPs: [192.0.2.1]"), "")
        + &old("old", &spec("10.0.0.3", "ports: [{port: 81, nodePort: 30080}], externalIPs: [192.0.2.1]"));
    check(
        &text,
        &[
            "default/old at 10.0.0.3 NodePort external:192.0.2.1 81/TCP node:30080 ->",
            "default/outside at 10.0.0.2 NodePort external:192.0.2.1 81/TCP lost:192.0.2.1 ->",
            "default/young at 10.0.0.1 NodePort 80/TCP ->",
        ],
        &[
            "k.yaml:3:18: port 30080/TCP of the node of default/young is not served for it: it belongs to service \
             default/old at k.yaml:15:18; give one of them another port",
            "k.yaml:9:18: 192.0.2.1 port 81/TCP of default/outside is not served for it: it belongs to service \
             default/old at k.yaml:15:18; give one of them another address or port",
        ],
    );
}

#[test]
fn nodes() {
    let text = "\
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/zone: a}}
spec: {podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.0/24, 'fd00:244:1::/64']}
status: {addresses: [{type: Hostname, address: n1}, {type: InternalIP, address: 192.168.1.11}, {type: ExternalIP, address: 192.0.2.1}, {type: InternalIP, address: 'fd00:1::11'}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2}
spec: {podCIDR: 10.244.2.0/24}
---
apiVersion: v1
kind: Node
metadata: {name: n3, labels: {topology.kubernetes.io/zone: ''}}
spec: {podCIDRs: [10.244.3.1/24, 10.244.4.0/33]}
status: {addresses: [{type: InternalIP, address: somewhere}, {type: [], address: 10.0.0.1}, {type: InternalIP, address: 192.168.01.13}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2}
---
node: {addresses: [192.168.1.99]}
";
    let loaded = parse_texts(&[("k.yaml", text)]).expect("a config");
    assert_eq!(
        problems(&loaded),
        [
            "k.yaml:14:60: the zone of Node n3 is left out: \"\" cannot be a zone; use up to 253 letters, digits, '-', \
             '_' and '.'",
            "k.yaml:15:34: a podCIDR of Node n3 is left out: \"10.244.4.0/33\" is not a range of addresses; write one \
             like 198.51.100.0/24",
            "k.yaml:16:50: an address of Node n3 is left out: \"somewhere\" is not an IP address; write one like \
             10.96.0.10 or fd00::10",
            "k.yaml:16:69: an address of Node n3 is left out: type is a single value, not a list; write one value",
            "k.yaml:18:1: Node n2 is left out: there is a Node of that name already; take one out",
        ]
    );
    let show = |node: crate::model::Node| {
        let addresses: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
        let pods: Vec<String> = node.pod_cidrs.iter().map(ToString::to_string).collect();
        format!("{:?} {:?} {} {}", node.name, node.zone, addresses.join(","), pods.join(","))
    };
    let mut model = loaded.model;
    // What the config says itself goes first.
    assert_eq!(
        show(model.this_node("n1", &[])),
        "Some(\"n1\") Some(\"a\") 192.168.1.99 10.244.1.0/24,fd00:244:1::/64"
    );
    assert_eq!(show(model.this_node("n2", &[])), "Some(\"n2\") None 192.168.1.99 10.244.2.0/24");
    assert_eq!(show(model.this_node("n9", &[])), "Some(\"n9\") None 192.168.1.99 ");
    // Without a Node of the host's name it is the one that has an address of the host's, if that is one alone.
    let own = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect::<Vec<_>>();
    let name = |host: &str, texts: &[&str]| model.this_node(host, &own(texts)).name.unwrap_or_default();
    assert_eq!(name("host", &["127.0.0.1", "192.168.1.13"]), "n3");
    assert_eq!(name("n1", &["192.168.1.13"]), "n1");
    assert_eq!(name("host", &["192.168.1.13", "192.168.1.11"]), "host");
    assert_eq!(name("host", &["192.168.1.99"]), "host");
    model.node.addresses.clear();
    assert_eq!(
        show(model.this_node("host", &own(&["192.168.1.13"]))),
        "Some(\"n3\") None 192.168.1.13 10.244.3.0/24"
    );
    model.node = crate::model::Node { name: Some("n1".into()), zone: Some("z".into()), ..Default::default() };
    assert_eq!(
        show(model.this_node("n2", &[])),
        "Some(\"n1\") Some(\"z\") 192.168.1.11,fd00:1::11 10.244.1.0/24,fd00:244:1::/64"
    );
}
