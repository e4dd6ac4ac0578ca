//! The rules of nftables mode.

use std::fmt::Write as _;

use super::{MARK, PODS, ServicePort, hash};

/// Services of one transaction: in a single one of 10,000 services nft 1.0.6 takes ten times as long.
const TRANSACTION: usize = 1000;

/// What `nft -f -` takes: the table kube-proxy for these ports of services, in transactions to be carried out
/// one after the other.
pub fn nftables(ports: impl IntoIterator<Item = ServicePort>) -> Vec<String> {
    let ports: Vec<ServicePort> = ports.into_iter().collect();
    let mut transactions: Vec<String> = ports.chunks(TRANSACTION).map(transaction).collect();
    if let Some(first) = transactions.first_mut() {
        first.insert_str(0, &table());
    }
    transactions
}

/// The hooks and what the services share.
fn table() -> String {
    format!(
        "table ip kube-proxy {{
  map no-endpoint-services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map service-nodeports {{ type inet_proto . inet_service : verdict; }}
  map firewall-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  chain mark-for-masquerade {{ meta mark set meta mark or {MARK}; }}
  chain masquerading {{
    meta mark and {MARK} == 0 return
    meta mark set meta mark xor {MARK}
    masquerade fully-random
  }}
  chain services {{
    ip daddr . meta l4proto . th dport vmap @service-ips
    ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @service-nodeports
  }}
  chain service-endpoints-check {{ ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }}
  chain firewall-check {{ ip daddr . meta l4proto . th dport vmap @firewall-ips; }}
  chain filter-prerouting {{
    type filter hook prerouting priority -110
    ct state new jump firewall-check
  }}
  chain filter-forward {{
    type filter hook forward priority -110
    ct state new jump service-endpoints-check
  }}
  chain filter-output {{
    type filter hook output priority -110
    ct state new jump service-endpoints-check
    ct state new jump firewall-check
  }}
  chain nat-prerouting {{
    type nat hook prerouting priority -100
    jump services
  }}
  chain nat-output {{
    type nat hook output priority -100
    jump services
  }}
  chain nat-postrouting {{
    type nat hook postrouting priority 100
    jump masquerading
  }}
}}
"
    )
}

fn transaction(services: &[ServicePort]) -> String {
    let (mut chains, mut rules, mut elements) = (String::new(), String::new(), Vec::new());
    for service in services {
        let (vip, port, protocol) = (service.vip, service.port, service.protocol.name());
        let name = format!("{}-bench/{vip}/{protocol}/{port}", &hash(service.id)[..8]);
        // Writing to a string does not fail.
        let _ = writeln!(chains, "add chain ip kube-proxy service-{name}");
        let mut verdicts = Vec::new();
        for (place, (address, target)) in service.endpoints.iter().enumerate() {
            let endpoint = format!("endpoint-{name}__{address}/{target}");
            let rule = format!("add rule ip kube-proxy {endpoint}");
            let _ = writeln!(chains, "add chain ip kube-proxy {endpoint}");
            let _ = writeln!(rules, "{rule} ip saddr {address} jump mark-for-masquerade");
            let _ = writeln!(rules, "{rule} meta l4proto {protocol} dnat to {address}:{target}");
            verdicts.push(format!("{place} : goto {endpoint}"));
        }
        let rule = format!("add rule ip kube-proxy service-{name}");
        let to = format!("ip daddr {vip} {protocol} dport {port}");
        let _ = writeln!(rules, "{rule} {to} ip saddr != {PODS} jump mark-for-masquerade");
        let (count, verdicts) = (verdicts.len(), verdicts.join(", "));
        let _ = writeln!(rules, "{rule} numgen random mod {count} vmap {{ {verdicts} }}");
        elements.push(format!("{vip} . {protocol} . {port} : goto service-{name}"));
        if let Some(node_port) = service.node_port {
            let _ = writeln!(chains, "add chain ip kube-proxy external-{name}");
            let _ = writeln!(rules, "add rule ip kube-proxy external-{name} jump mark-for-masquerade");
            let _ = writeln!(rules, "add rule ip kube-proxy external-{name} goto service-{name}");
            let to = format!("{protocol} . {node_port} : goto external-{name}");
            let _ = writeln!(rules, "add element ip kube-proxy service-nodeports {{ {to} }}");
        }
    }
    let elements = elements.join(", ");
    format!("{chains}{rules}add element ip kube-proxy service-ips {{ {elements} }}\n")
}

#[cfg(test)]
mod tests {
    use super::{
        super::{outside_ports, service_ports},
        nftables,
    };

    #[test]
    fn two_services() {
        let transactions = nftables(service_ports(2));
        let [text] = &transactions[..] else { panic!("{} transactions", transactions.len()) };
        let count = |part: &str| text.lines().filter(|line| line.contains(part)).count();
        assert_eq!(count("add chain ip kube-proxy service-"), 6);
        assert_eq!(count("add chain ip kube-proxy endpoint-"), 3 + 5);
        assert_eq!(count("meta l4proto tcp dnat to 10.128.0.1:8080"), 1);
        assert_eq!(count("meta l4proto udp dnat to 10.244.1.3:9090"), 1);
        assert_eq!(count("numgen random mod 3 vmap { 0 : goto endpoint-"), 1);
        assert_eq!(count("numgen random mod 1 vmap { 0 : goto endpoint-"), 5);
        assert_eq!(count("ip saddr 10.244.1.3 jump mark-for-masquerade"), 5);
        let elements = text.lines().last().unwrap();
        assert!(elements.contains("{ 10.97.0.1 . tcp . 80 : goto service-"));
        assert!(elements.contains(", 10.96.0.14 . udp . 9090 : goto service-"));
    }

    #[test]
    fn a_node_port() {
        let text = nftables(outside_ports()).concat();
        assert!(text.contains("service-nodeports { udp . 30779 : goto external-"));
        assert_eq!(text.matches("jump mark-for-masquerade\n").count(), 2 + 2 + 2);
    }

    #[test]
    fn many_services_are_many_transactions() {
        let transactions = nftables(service_ports(10_000));
        assert_eq!(transactions.len(), 11);
        assert_eq!(transactions.iter().filter(|text| text.contains("table ip kube-proxy {")).count(), 1);
    }
}
