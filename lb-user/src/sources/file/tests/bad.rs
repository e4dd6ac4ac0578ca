use super::*;

/// A document with this service, which is right but for what is put in.
pub(super) fn service(fields: &str) -> String {
    format!("services:\n- name: web\n  {}\n", fields.replace('\n', "\n  "))
}

#[track_caller]
pub(super) fn refuse(text: &str, expected: &[&str]) {
    match parse_texts(&[("c.yaml", text)]) {
        Ok(loaded) => panic!("{text}\nwas taken as\n{:?}", show(&loaded.model)),
        Err(error) => assert_eq!(error.to_string(), expected.join("\n"), "{text}"),
    }
}

const PORTS: &str = "ports: [{port: 80}]";

#[test]
fn fields_and_shapes() {
    let cases: &[(&str, &[&str])] = &[
        ("", &["c.yaml: the file is empty; write `services: []` to serve nothing, or remove it"]),
        (
            "services: [\n",
            &["c.yaml:1:11: this is not YAML: unclosed bracket '['; look at indentation and quotes here"],
        ),
        (
            "web",
            &[
                "c.yaml:1:1: the config is a mapping; write it with the fields node, nodes, serviceCIDRs, nodePortAddresses, hashSeed, lifetimes, snatPorts, nodePortRange, services",
            ],
        ),
        ("service: []", &["c.yaml:1:1: unknown field \"service\" in the config; did you mean \"services\"?"]),
        (
            "proxy: []",
            &[
                "c.yaml:1:1: unknown field \"proxy\" in the config; the fields are node, nodes, serviceCIDRs, nodePortAddresses, hashSeed, lifetimes, snatPorts, nodePortRange, services",
            ],
        ),
        (
            "services: {name: web}",
            &["c.yaml:1:11: services is a list; write `services: [...]` or lines that begin with `-`"],
        ),
        (
            "services: [web]",
            &[
                "c.yaml:1:12: a service is a mapping; write it with the fields name, namespace, address, addresses, ports, backends, type, externalIPs, loadBalancerIPs, loadBalancerSourceRanges, externalTrafficPolicy, internalTrafficPolicy, sessionAffinity, algorithm, trafficDistribution, onRemoval, forwarding, healthCheckNodePort",
            ],
        ),
        (
            "services: []\nservices: []",
            &["c.yaml:2:1: field \"services\" is given twice, first at c.yaml:1:1; keep one"],
        ),
        (
            "services: [{ports: [{port: 80}], address: 10.0.0.1}]",
            &["c.yaml:1:12: the service has no name; add `name: NAME`"],
        ),
        (
            "services: [{name: a/b, namespace: 'x y', ports: [{port: 80}], address: 10.0.0.1}]",
            &[
                "c.yaml:1:35: \"x y\" cannot be a namespace's name; use up to 253 letters, digits, '-', '_' and '.'",
                "c.yaml:1:19: \"a/b\" cannot be a service's name; use up to 253 letters, digits, '-', '_' and '.'",
            ],
        ),
        (
            "services: [{name: [web], ports: [{port: 80}], address: 10.0.0.1}]",
            &["c.yaml:1:19: a service's name is a single value, not a list; write one value"],
        ),
        // All that is wrong is said at once.
        (
            "services:\n- name: web\n  adress: 10.96.0.10\n  ports: [{port: 80, targetport: 8080}]\n  backends: [{ip: 10.244.1.2}]\n",
            &[
                "c.yaml:3:3: unknown field \"adress\" in a service; did you mean \"address\"?",
                "c.yaml:4:22: unknown field \"targetport\" in a port; did you mean \"targetPort\"?",
                "c.yaml:5:15: unknown field \"ip\" in a backend; the fields are address, port, weight, node, zone, ready, serving, terminating",
                "c.yaml:5:14: the backend has no address; add `address: 10.244.1.2`",
                "c.yaml:2:9: service default/web has no address and there is no range to give it one from; \
                 add an address, or `serviceCIDRs: [10.96.0.0/12]`",
            ],
        ),
        (
            "serviceCIDRs: [10.96.0.0]",
            &["c.yaml:1:16: \"10.96.0.0\" is not a range of addresses; write one like 10.96.0.0/12"],
        ),
        (
            "serviceCIDRs: [10.96.0.1/12]",
            &["c.yaml:1:16: 10.96.0.1/12 has bits set behind its prefix; write 10.96.0.0/12"],
        ),
        (
            "serviceCIDRs: [126.0.0.0/7]",
            &[
                "c.yaml:1:16: 126.0.0.0/7 cannot be used: 127.255.255.255 is a loopback address, the host's own \
             (CVE-2020-8558); use a range of private addresses that nothing else has",
            ],
        ),
        (
            "hashSeed: seed",
            &["c.yaml:1:11: \"seed\" is not a hashSeed; write 1 to 16 hexadecimal digits, like 5eed0001"],
        ),
        (
            "lifetimes: {tcpEstablished: 5, tcpClosed: 1s, udpAnswered: 0s, udpUnanswered: 1500ms, sctp: 366d}",
            &[
                "c.yaml:1:32: unknown field \"tcpClosed\" in lifetimes; did you mean \"tcpClosing\"?",
                "c.yaml:1:29: \"5\" is not a lifetime; write whole seconds or more, up to 365d, with the unit, like 90s, 3min or 5d",
                "c.yaml:1:60: \"0s\" is not a lifetime; write whole seconds or more, up to 365d, with the unit, like 90s, 3min or 5d",
                "c.yaml:1:79: \"1500ms\" is not a lifetime; write whole seconds or more, up to 365d, with the unit, like 90s, 3min or 5d",
                "c.yaml:1:93: \"366d\" is not a lifetime; write whole seconds or more, up to 365d, with the unit, like 90s, 3min or 5d",
            ],
        ),
        (
            "lifetimes: 5d",
            &[
                "c.yaml:1:12: lifetimes is a mapping; write it with the fields tcpEstablished, tcpClosing, tcpUnanswered, udpAnswered, udpUnanswered, sctp",
            ],
        ),
        (
            "lifetimes: {sctp: 5min}\n---\nlifetimes: {sctp: 6min}",
            &["c.yaml:3:12: lifetimes differs from the one at c.yaml:1:12; keep one"],
        ),
        (
            "snatPorts: 10000\n---\nsnatPorts: [1-2]\n---\nsnatPorts: 2000-70000",
            &[
                "c.yaml:1:12: \"10000\" is not a range of ports; write one like 10000-29999, or none to let clients keep their source",
                "c.yaml:3:12: snatPorts is a single value, not a list; write one value",
                "c.yaml:5:12: \"2000-70000\" is not a range of ports; write one like 10000-29999, or none to let clients keep their source",
            ],
        ),
        (
            "snatPorts: 29999-10000\n---\nsnatPorts: 1023-9999\n---\nsnatPorts: 10000-10062",
            &[
                "c.yaml:1:12: 29999-10000 has no port; write the smaller number first",
                "c.yaml:3:12: 1023-9999 has ports below 1024, which servers are at; begin at 1024 or above",
                "c.yaml:5:12: 10000-10062 has only 63 ports, and each flow to a backend needs one; write at least 64",
            ],
        ),
        (
            "snatPorts: none\n---\nsnatPorts: 10000-29999",
            &["c.yaml:3:12: snatPorts differs from the one at c.yaml:1:12; keep one"],
        ),
        (
            "hashSeed: 1\n---\nhashSeed: 2",
            &["c.yaml:3:11: hashSeed differs from the one at c.yaml:1:11; keep one"],
        ),
    ];
    for (text, expected) in cases {
        refuse(text, expected);
    }
}

#[test]
fn addresses() {
    let own = "use an address of your own network";
    let cases = [
        (
            "10.96.0.300",
            "\"10.96.0.300\" is not an IP address; write one like 10.96.0.10 or fd00::10".to_owned(),
        ),
        (
            "10.0.0.1:80",
            "\"10.0.0.1:80\" is not an IP address; write address: 10.0.0.1 and port: 80".to_owned(),
        ),
        ("web.local", "\"web.local\" is not an IP address; write one like 10.96.0.10 or fd00::10".to_owned()),
        (
            "127.0.0.1",
            format!(
                "127.0.0.1 cannot be WHAT: it is a loopback address, the host's own (CVE-2020-8558); {own}"
            ),
        ),
        (
            "\"::1\"",
            format!("::1 cannot be WHAT: it is a loopback address, the host's own (CVE-2020-8558); {own}"),
        ),
        (
            "169.254.169.254",
            format!(
                "169.254.169.254 cannot be WHAT: it is a link-local address, such as of metadata services \
                 (CVE-2020-8554); {own}"
            ),
        ),
        (
            "224.0.0.1",
            format!("224.0.0.1 cannot be WHAT: it is a multicast address and names no single host; {own}"),
        ),
        ("0.0.0.0", format!("0.0.0.0 cannot be WHAT: it is an unspecified address and names no host; {own}")),
        (
            "255.255.255.255",
            format!(
                "255.255.255.255 cannot be WHAT: it is the broadcast address and names no single host; {own}"
            ),
        ),
        (
            "\"::ffff:10.0.0.1\"",
            "::ffff:10.0.0.1 cannot be WHAT: it is the IPv4 address 10.0.0.1 written as IPv6; write 10.0.0.1"
                .to_owned(),
        ),
    ];
    for (address, expected) in cases {
        let frontend = service(&format!("ports: [{{port: 80}}]\naddresses: [10.0.0.9, {address}]"));
        refuse(&frontend, &[&format!("c.yaml:4:25: {}", expected.replace("WHAT", "a service's address"))]);
        let backend = service(&format!("address: 10.0.0.9\n{PORTS}\nbackends: [{{address: {address}}}]"));
        refuse(&backend, &[&format!("c.yaml:5:24: {}", expected.replace("WHAT", "a backend"))]);
    }
    refuse(
        &service(&format!("addresses: [10.0.0.1, 'fd00::1', 10.0.0.2]\n{PORTS}")),
        &[
            "c.yaml:3:36: 10.0.0.2 and 10.0.0.1 are of one family; a service has one address of each: take one out",
        ],
    );
    refuse(
        &service(&format!("address: 10.0.0.1\naddresses: ['fd00::1']\n{PORTS}")),
        &["c.yaml:4:14: address and addresses are both given; put all into addresses"],
    );
}

#[test]
fn ports_and_protocols() {
    let cases = [
        ("ports: []", "c.yaml:2:3: the service has no ports; add `ports: [{port: 80}]`"),
        ("ports: [{}]", "c.yaml:4:11: the port has no number; add `port: 80`"),
        ("ports: [{port: 0}]", "c.yaml:4:18: \"0\" is not a port; write a whole number from 1 to 65535"),
        (
            "ports: [{port: 65536}]",
            "c.yaml:4:18: \"65536\" is not a port; write a whole number from 1 to 65535",
        ),
        ("ports: [{port: -1}]", "c.yaml:4:18: \"-1\" is not a port; write a whole number from 1 to 65535"),
        (
            "ports: [{port: http}]",
            "c.yaml:4:18: \"http\" is not a port; write a whole number from 1 to 65535",
        ),
        (
            "ports: [{port: 80, targetPort: 99999}]",
            "c.yaml:4:34: \"99999\" is not a port; write a whole number from 1 to 65535",
        ),
        (
            "ports: [{port: 80, protocol: HTTP}]",
            "c.yaml:4:32: \"HTTP\" is not a protocol; write TCP, UDP or SCTP",
        ),
        (
            "ports: [{port: 80}, {port: 80, protocol: UDP}, {port: 80, targetPort: 8080}]",
            "c.yaml:4:50: port 80/TCP is given twice in this service, first at c.yaml:4:11; take one out",
        ),
    ];
    for (ports, expected) in cases {
        refuse(&service(&format!("address: 10.0.0.1\n{ports}")), &[expected]);
    }
}

#[test]
fn backends() {
    let cases = [
        (
            "[{address: 10.1.0.1, port: 0}]",
            "c.yaml:5:40: \"0\" is not a port; write a whole number from 1 to 65535",
        ),
        (
            "[{address: 10.1.0.1, weight: 70000}]",
            "c.yaml:5:42: \"70000\" is not a weight; write a whole number from 0 to 65535",
        ),
        (
            "[{address: 10.1.0.1, weight: 0}, {address: 10.1.0.2, weight: 0}]",
            "c.yaml:5:13: every backend has weight 0, so none would get a connection; give one a weight of 1 or more",
        ),
        (
            "[{address: 10.1.0.1, port: 80}, {address: 10.1.0.2}, {address: 10.1.0.1}]",
            "c.yaml:5:76: backend 10.1.0.1 port 80 is given twice, first at c.yaml:5:24; use weight instead",
        ),
        (
            "[{address: 10.1.0.1}, {address: 'fd00::1'}]",
            "c.yaml:5:45: backend fd00::1 is IPv6, but service default/web has only the IPv4 address 10.0.0.1; \
             add an IPv6 address, or take the backend out",
        ),
    ];
    for (backends, expected) in cases {
        refuse(&service(&format!("address: 10.0.0.1\n{PORTS}\nbackends: {backends}")), &[expected]);
    }
    let many: Vec<String> =
        (0..70_000).map(|n| format!("{{address: 10.1.{}.{}}}", n >> 8 & 255, n & 255)).collect();
    refuse(
        &service(&format!("address: 10.0.0.1\n{PORTS}\nbackends: [{}]", many.join(", "))),
        &["c.yaml:5:13: 70000 backends in one service, but at most 65535 are possible; split it"],
    );
    refuse(
        &format!(
            "serviceCIDRs: [fd00::/112]\n{}",
            service(&format!("{PORTS}\nbackends: [{{address: 10.1.0.1}}]"))
        ),
        &[
            "c.yaml:5:24: backend 10.1.0.1 is IPv4, but serviceCIDRs has no IPv4 range for service default/web; \
           add a range, or take the backend out",
        ],
    );
}

#[test]
fn services_against_each_other_over_files() {
    let texts = [
        (
            "a.yaml",
            "services:\n- {name: a, address: 10.0.0.1, ports: [{port: 80}, {port: 53, protocol: UDP}]}\n",
        ),
        (
            "b.yaml",
            "services:\n\
             - {name: b, address: 10.0.0.1, ports: [{port: 53}]}\n\
             - {name: c, address: 10.0.0.1, ports: [{port: 81}, {port: 80}]}\n\
             - {name: a, address: 10.0.0.2, ports: [{port: 80}]}\n\
             - {name: a, namespace: other, address: 10.0.0.3, ports: [{port: 80}]}\n\
             ---\nservices: [\n",
        ),
    ];
    let error = parse_texts(&texts[..1]).map(|_| ()).and_then(|()| parse_texts(&texts)).expect_err("clashes");
    assert_eq!(error.problems.len(), 1, "a file that is not YAML has no services: {error}");
    let second = texts[1].1.split("---").next().expect("a first document");
    let error = parse_texts(&[texts[0], ("b.yaml", second)]).expect_err("clashes");
    assert_eq!(
        error.to_string(),
        "b.yaml:4:10: there is a service default/a at a.yaml:2:10 already; rename one\n\
         b.yaml:3:10: 10.0.0.1 port 80/TCP of default/c belongs to service default/a at a.yaml:2:10 already; \
         give one of them another address or port"
    );
}

#[test]
fn bad_objects_of_kubernetes_are_left_out() {
    let loaded = parse_texts(&[("k.yaml", &testdata("kubernetes/bad.yaml"))]).expect("the good ones");
    assert_eq!(
        show(&loaded.model),
        [
            "default/good at 10.96.0.1 80/TCP(web) -> 10.244.1.2:8080",
            "default/outside at 10.96.0.4 LoadBalancer balanced:198.51.100.1 from:192.0.2.0/24 affinity:10800s 80/TCP \
             node:30080 ->",
            "default/younger at 10.96.0.1 443/TCP ->",
            "default/younger at 10.96.0.1 80/TCP lost:10.96.0.1 ->",
        ]
    );
    let problems: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
    let expected = "\
k.yaml:9:39: port 5060 of Service default/good is left out: \"ICMP\" is not a protocol; write TCP, UDP or SCTP
k.yaml:18:16: an endpoint of EndpointSlice default/good-1 is left out: 127.0.0.1 cannot be a backend: it is a loopback address, the host's own (CVE-2020-8558); use an address of your own network
k.yaml:19:3: an endpoint of EndpointSlice default/good-1 is left out: it has no address; add one to addresses
k.yaml:20:16: an endpoint of EndpointSlice default/good-1 is left out: fd00::2 is not IPv4, which the slice's addressType says; correct one of them
k.yaml:21:49: an endpoint of EndpointSlice default/good-1 is left out: ready is \"perhaps\"; write true or false
k.yaml:36:19: Service default/local is left out: 127.0.0.1 cannot be a service's address: it is a loopback address, the host's own (CVE-2020-8558); use an address of your own network
k.yaml:40:18: Service default/no-ports is left out: it has no ports; add spec.ports
k.yaml:50:11: this Service is left out: it has no name; add metadata.name
k.yaml:55:11: EndpointSlice default/stray is left out: it belongs to no service; add the label kubernetes.io/service-name: SERVICE
k.yaml:61:14: EndpointSlice default/names is left out: \"FQDN\" is not a family of addresses; write IPv4 or IPv6
k.yaml:63:1: left out: Deployment of apps/v1 is not read here; what is read is v1 Service, discovery.k8s.io/v1 EndpointSlice, v1 Node and v1 List
k.yaml:67:1: left out: this Service has no apiVersion; what is read is v1 Service, discovery.k8s.io/v1 EndpointSlice, v1 Node and v1 List
k.yaml:73:34: a podCIDR of Node node1 is left out: \"10.244.2.1/33\" is not a range of addresses; write one like 198.51.100.0/24
k.yaml:82:17: an external IP of Service default/outside is left out: 127.0.0.1 cannot be an external IP: it is a loopback address, the host's own (CVE-2020-8558); use an address of your own network
k.yaml:84:54: timeoutSeconds of Service default/outside is left out: \"0\" is not a timeout in seconds; write a whole number from 1 to 86400
k.yaml:30:18: left out: there is a service default/good at k.yaml:4:18 already; rename one
k.yaml:45:18: left out: service default/no-address has no address and there is no range to give it one from; add an address, or `serviceCIDRs: [10.96.0.0/12]`
k.yaml:25:18: 10.96.0.1 port 80/TCP of default/younger is not served for it: it is the cluster IP of service default/good at k.yaml:4:18; give one of them another address or port";
    assert_eq!(problems.join("\n"), expected);
}

#[test]
fn a_service_of_kubernetes_with_too_many_backends_is_left_out() {
    let mut text = "\
kind: Service
apiVersion: v1
metadata: {name: big}
spec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}
"
    .to_owned();
    for slice in 0..700 {
        let endpoint =
            |n: u32| format!("{{addresses: [{}]}}", std::net::Ipv4Addr::from(0x0a01_0000 + slice * 100 + n));
        let endpoints: Vec<String> = (0..100).map(endpoint).collect();
        text += &format!(
            "---\nkind: EndpointSlice\napiVersion: discovery.k8s.io/v1\n\
             metadata: {{name: big-{slice}, labels: {{kubernetes.io/service-name: big}}}}\n\
             addressType: IPv4\nports: [{{port: 80}}]\nendpoints: [{}]\n",
            endpoints.join(", ")
        );
    }
    let loaded = parse_texts(&[("k.yaml", &text)]).expect("nothing of ours");
    assert!(loaded.model.services.is_empty());
    let problems: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
    let expected = "k.yaml:3:18: left out: port 80 of service default/big has 70000 backends, but at most 65535 are \
                    possible; split it";
    assert_eq!(problems, [expected]);
}

#[test]
fn ours_go_before_those_of_kubernetes() {
    let kubernetes = "\
apiVersion: v1
kind: Service
metadata: {name: web, creationTimestamp: \"2020-01-01T00:00:00Z\"}
spec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}
";
    let ours = "services: [{name: mine, address: 10.0.0.1, ports: [{port: 80}]}]";
    let loaded = parse_texts(&[("a.yaml", kubernetes), ("b.yaml", ours)]).expect("ours");
    assert_eq!(
        show(&loaded.model),
        ["default/mine at 10.0.0.1 80/TCP ->", "default/web at 10.0.0.1 80/TCP lost:10.0.0.1 ->"]
    );
    assert_eq!(
        loaded.problems[0].to_string(),
        "a.yaml:3:18: 10.0.0.1 port 80/TCP of default/web is not served for it: it is the cluster IP of service \
         default/mine at b.yaml:1:19; give one of them another address or port"
    );
}

#[test]
fn files_that_cannot_be_read() {
    let directory = Directory::new("bad-files");
    let missing = directory.0.join("none.yaml");
    let error = load(&missing).expect_err("no file");
    let advice = "no such file or directory; correct --config, or write the file";
    assert_eq!(error.to_string(), format!("{}: {advice}", missing.display()));

    let error = load(&directory.0).expect_err("nothing to read");
    let advice = "the directory has no *.yaml, *.yml or *.json file; put the config there, or name a file";
    assert_eq!(error.to_string(), format!("{}: {advice}", directory.0.display()));

    let file = directory.0.join("latin.yaml");
    fs::write(&file, b"services: []\n# caf\xe9\n").expect("a write");
    let error = load(&directory.0).expect_err("not text");
    assert_eq!(
        error.to_string(),
        format!("{}: line 2 is not UTF-8 text; save the file as UTF-8", file.display())
    );
}
