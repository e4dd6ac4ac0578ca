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
             external-Local affinity:600s 80/TCP node:30080 -> 10.1.0.1:8080@n1/a+a+b+node:n1 \
             10.1.0.2:8080@n2/?",
            "default/web at 10.96.0.10 fd00:96::10 LoadBalancer external:203.0.113.10 balanced:198.51.100.10 \
             balanced:fd00:1b::1 from:198.51.100.0/24 from:192.0.2.0/24 from:::/0 internal-Local \
             external-Local affinity:600s 53/UDP ->",
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
        &[],
        &[
            "k.yaml:3:93: Service default/web is left out: \"192.0.2.0/33\" is not a range of addresses; write \
             one like 198.51.100.0/24",
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
fn a_bad_service_is_left_out_and_the_rest_served() {
    let good = service("good", "{clusterIP: 10.0.0.9, ports: [{port: 80}]}", "");
    let start = "clusterIP: 10.0.0.1, ports: [{port: 80}]";
    let cases = [
        (
            "type: Loadbalancer",
            "Loadbalancer",
            "Service default/web is left out: \"Loadbalancer\" is not a type of services; did you mean \
             \"LoadBalancer\"?",
        ),
        (
            "internalTrafficPolicy: local",
            "local",
            "Service default/web is left out: \"local\" is not a traffic policy; did you mean \"Local\"?",
        ),
        (
            "externalTrafficPolicy: Nearest",
            "Nearest",
            "Service default/web is left out: \"Nearest\" is not a traffic policy; write Cluster or Local",
        ),
        (
            "sessionAffinity: Cookie",
            "Cookie",
            "Service default/web is left out: \"Cookie\" is not a session affinity; write None or ClientIP",
        ),
        (
            "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 90000}}",
            "90000",
            "Service default/web is left out: \"90000\" is not a timeout in seconds; write a whole number \
             from 1 to 86400",
        ),
    ];
    for (field, value, expected) in cases {
        let text = service("web", &format!("{{{start}, {field}}}"), "") + &good;
        let before = text.lines().nth(3).and_then(|line| line.find(&format!(" {value}"))).expect("the value");
        let expected = format!("k.yaml:4:{}: {expected}", before + 2);
        check(&text, &["default/good at 10.0.0.9 80/TCP ->"], &[&expected]);
    }
    let ranges = vec!["10.0.0.0/8"; 10_001].join(", ");
    let spec = format!("{{{start}, type: LoadBalancer, loadBalancerSourceRanges: [{ranges}]}}");
    check(
        &(service("web", &spec, "") + &good),
        &["default/good at 10.0.0.9 80/TCP ->"],
        &[
            "k.yaml:4:96: Service default/web is left out: 10001 source ranges, but a service can have at most \
             10000; join them to larger ones",
        ],
    );
}

#[test]
fn parts_that_cannot_be_served_are_left_out_alone() {
    let spec = "\
{type: LoadBalancer, clusterIP: 10.0.0.1, externalIPs: [127.0.0.1, 'fd00::1', 192.0.2.1],
  loadBalancerSourceRanges: ['fd00::/8'],
  ports: [{port: 80, nodePort: 80}, {port: 90, protocol: SCTP, nodePort: 30090}, {name: x, port: 91, protocol: SCTP}]}";
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
            "k.yaml:6:32: the node port of port 80 of Service default/web is left out: \"80\" is not a node \
             port; write a whole number from 30000 to 32767",
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

#[test]
fn a_node_port_that_the_node_lends_is_left_out_alone() {
    let spec = "{type: NodePort, clusterIP: 10.0.0.1, ports: [{port: 80, nodePort: 30080}, {port: 81, nodePort: 31000}]}";
    check(
        &(service("web", spec, "") + "snatPorts: 30000-30999\n"),
        &[
            "default/web at 10.0.0.1 NodePort 80/TCP ->",
            "default/web at 10.0.0.1 NodePort 81/TCP node:31000 ->",
        ],
        &["k.yaml:3:18: node port 30080/TCP of service default/web is not served: it lies in snatPorts \
           30000-30999 at k.yaml:7:12; give the service another, or snatPorts another range"],
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
        &["default/old at 10.0.0.3 NodePort external:192.0.2.1 81/TCP node:30080 ->"],
        &[
            "k.yaml:3:18: left out: port 30080/TCP of the node of default/young belongs to service default/old \
             at k.yaml:15:18 already; give one of them another port",
            "k.yaml:9:18: left out: 192.0.2.1 port 81/TCP of default/outside belongs to service default/old at \
             k.yaml:15:18 already; give one of them another address or port",
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
metadata: {name: n3}
status: {addresses: [{type: InternalIP, address: somewhere}]}
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
            "k.yaml:15:50: Node n3 is left out: \"somewhere\" is not an IP address; write one like 10.96.0.10 \
             or fd00::10",
            "k.yaml:17:1: Node n2 is left out: there is a Node of that name already; take one out",
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
        show(model.this_node("n1")),
        "Some(\"n1\") Some(\"a\") 192.168.1.99 10.244.1.0/24,fd00:244:1::/64"
    );
    assert_eq!(show(model.this_node("n2")), "Some(\"n2\") None 192.168.1.99 10.244.2.0/24");
    assert_eq!(show(model.this_node("n9")), "Some(\"n9\") None 192.168.1.99 ");
    model.node = crate::model::Node { name: Some("n1".into()), zone: Some("z".into()), ..Default::default() };
    assert_eq!(
        show(model.this_node("n2")),
        "Some(\"n1\") Some(\"z\") 192.168.1.11,fd00:1::11 10.244.1.0/24,fd00:244:1::/64"
    );
}
