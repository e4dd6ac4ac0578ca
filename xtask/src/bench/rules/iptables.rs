//! The rules of iptables mode.

use std::fmt::Write as _;

use super::{MARK, PODS, ServicePort, hash};

/// What `iptables-restore --noflush` takes: the tables filter and nat for these ports of services.
///
/// Zeroing the counters of nat first changes nothing, but it makes iptables-restore 1.8.9 fetch all
/// chains. Otherwise it keeps a sorted list of those it has read of and goes through it for each rule:
/// ten thousand services then take a minute and not four seconds.
pub fn iptables(ports: impl IntoIterator<Item = ServicePort>) -> String {
    let chains = nat(ports);
    let mut text = filter();
    text += "*nat\n-Z\n";
    for (chain, _) in chains.iter().filter(|(chain, _)| chain.starts_with("KUBE")) {
        // Writing to a string does not fail.
        let _ = writeln!(text, ":{chain} - [0:0]");
    }
    for (chain, rules) in &chains {
        for rule in rules {
            let _ = writeln!(text, "-A {chain} {rule}");
        }
    }
    text + "COMMIT\n"
}

/// The chains of the table nat and their rules.
fn nat(ports: impl IntoIterator<Item = ServicePort>) -> Vec<(String, Vec<String>)> {
    let mut chains = Vec::new();
    let (mut entries, mut node_ports) = (Vec::new(), Vec::new());
    for service in ports {
        let (vip, port, protocol) = (service.vip, service.port, service.protocol.name());
        let chain = format!("KUBE-SVC-{}", hash(service.id));
        let name = format!("bench/{vip}:{port}");
        let to = format!(
            "-m comment --comment \"{name} cluster IP\" -m {protocol} -p {protocol} -d {vip} --dport {port}"
        );
        entries.push(format!("{to} -j {chain}"));
        let mut choices = vec![format!("{to} ! -s {PODS} -j KUBE-MARK-MASQ")];
        for (place, (address, target)) in service.endpoints.iter().enumerate() {
            let endpoint = format!("KUBE-SEP-{}", hash((place as u64 + 1) << 40 | service.id));
            let left = service.endpoints.len() - place;
            let choice = match left {
                1 => String::new(),
                _ => format!(" -m statistic --mode random --probability {:.10}", 1.0 / left as f64),
            };
            let comment = format!("-m comment --comment \"{name} -> {address}:{target}\"");
            choices.push(format!("{comment}{choice} -j {endpoint}"));
            let comment = format!("-m comment --comment {name}");
            let dnat = format!("-m {protocol} -p {protocol} -j DNAT --to-destination {address}:{target}");
            let hairpin = format!("{comment} -s {address} -j KUBE-MARK-MASQ");
            chains.push((endpoint, vec![hairpin, format!("{comment} {dnat}")]));
        }
        if let Some(node_port) = service.node_port {
            let external = format!("KUBE-EXT-{}", hash(service.id));
            node_ports.push(format!("-m {protocol} -p {protocol} --dport {node_port} -j {external}"));
            chains.push((external, vec!["-j KUBE-MARK-MASQ".to_owned(), format!("-j {chain}")]));
        }
        chains.push((chain, choices));
    }
    entries.push("-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS".to_owned());
    let postrouting = vec![
        format!("-m mark ! --mark {MARK}/{MARK} -j RETURN"),
        format!("-j MARK --xor-mark {MARK}"),
        "-j MASQUERADE --random-fully".to_owned(),
    ];
    let mut add = |name: &str, rules: Vec<String>| chains.push((name.to_owned(), rules));
    add("KUBE-SERVICES", entries);
    add("KUBE-NODEPORTS", node_ports);
    add("KUBE-POSTROUTING", postrouting);
    add("KUBE-MARK-MASQ", vec![format!("-j MARK --or-mark {MARK}")]);
    for (hook, chain) in [("PREROUTING", "SERVICES"), ("OUTPUT", "SERVICES"), ("POSTROUTING", "POSTROUTING")]
    {
        add(hook, vec![format!("-j KUBE-{chain}")]);
    }
    chains
}

/// The table filter, the same for any services that have endpoints.
fn filter() -> String {
    let mut text = String::from("*filter\n");
    for chain in ["SERVICES", "EXTERNAL-SERVICES", "NODEPORTS", "FORWARD", "PROXY-FIREWALL"] {
        let _ = writeln!(text, ":KUBE-{chain} - [0:0]");
    }
    let new = "-m conntrack --ctstate NEW -j KUBE";
    for (hook, jump) in [
        ("INPUT", format!("{new}-PROXY-FIREWALL")),
        ("INPUT", "-j KUBE-NODEPORTS".to_owned()),
        ("INPUT", format!("{new}-EXTERNAL-SERVICES")),
        ("FORWARD", format!("{new}-PROXY-FIREWALL")),
        ("FORWARD", "-j KUBE-FORWARD".to_owned()),
        ("FORWARD", format!("{new}-SERVICES")),
        ("FORWARD", format!("{new}-EXTERNAL-SERVICES")),
        ("OUTPUT", format!("{new}-PROXY-FIREWALL")),
        ("OUTPUT", format!("{new}-SERVICES")),
        ("KUBE-FORWARD", "-m conntrack --ctstate INVALID -j DROP".to_owned()),
        ("KUBE-FORWARD", format!("-m mark --mark {MARK}/{MARK} -j ACCEPT")),
        ("KUBE-FORWARD", "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT".to_owned()),
    ] {
        let _ = writeln!(text, "-A {hook} {jump}");
    }
    text + "COMMIT\n"
}

#[cfg(test)]
mod tests {
    use super::{
        super::{outside_ports, service_ports},
        iptables,
    };

    #[test]
    fn two_services() {
        let text = iptables(service_ports(2));
        let count = |part: &str| text.lines().filter(|line| line.contains(part)).count();
        // One port of the first, five of the one that is measured.
        assert_eq!(count(":KUBE-SVC-"), 6);
        assert_eq!(count(":KUBE-SEP-"), 3 + 5);
        assert_eq!(count("DNAT --to-destination"), 3 + 5);
        assert_eq!(count("--to-destination 10.128.0.1:8080"), 1);
        assert_eq!(count("--to-destination 10.244.1.3:5201"), 1);
        assert_eq!(count("-s 10.244.1.3 -j KUBE-MARK-MASQ"), 5);
        assert_eq!(count("--probability 0.3333333333 "), 1);
        assert_eq!(count("--probability 0.5000000000 "), 1);
        assert_eq!(count("COMMIT"), 2);
        let entries: Vec<&str> = text.lines().filter(|line| line.starts_with("-A KUBE-SERVICES")).collect();
        assert!(entries[0].contains("-p tcp -d 10.97.0.1 --dport 80 -j KUBE-SVC-"));
        assert!(entries[5].contains("-p udp -d 10.96.0.14 --dport 9090 -j KUBE-SVC-"));
        assert!(entries[6].contains("--dst-type LOCAL"));
        // No chain is used that is not declared, and names fit the kernel's 28 characters.
        for line in text.lines().filter(|line| line.starts_with("-A")) {
            let target = line.rsplit_once("-j KUBE").map(|(_, rest)| format!(":KUBE{rest} - "));
            assert!(target.is_none_or(|target| text.contains(&target)), "{line}");
        }
        assert!(text.lines().filter_map(|line| line.strip_prefix(':')).all(|line| line.len() <= 28 + 8));
    }

    #[test]
    fn a_node_port() {
        let text = iptables(outside_ports());
        let rules = |chain: &str| text.lines().filter(|line| line.starts_with(chain)).collect::<Vec<_>>();
        assert!(rules("-A KUBE-NODEPORTS")[1].contains("-p udp --dport 30779 -j KUBE-EXT-"));
        assert!(rules("-A KUBE-EXT-")[0].ends_with("-j KUBE-MARK-MASQ"));
        assert!(rules("-A KUBE-EXT-")[1].contains("-j KUBE-SVC-"));
    }
}
