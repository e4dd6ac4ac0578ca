//! What translated traffic passes by on this host, said at start so that nobody finds out later.

use std::{fs, process::Command};

use super::world::{Link, World};

/// One sentence for each thing that service traffic does not meet as other traffic does, where the host's stack sees none
/// of it. `bridged`: the first port whose packets the bridge carries.
pub fn bypassed(world: &World, bridges: &[u32], bridged: Option<&Link>) -> Vec<String> {
    let mut said = unseen("service traffic between pods (use --forward stack if they must)");
    if meets_netfilter() {
        said.push(match bridged {
            Some(Link { name, .. }) => format!(
                "bridge-nf-call-iptables is on, and the bridge carries service traffic of {name}: netfilter sees requests                  to the backend and replies from the service's address, which it takes for INVALID, and where a rule                  drops those, services time out; switch it off (`sysctl -w net.bridge.bridge-nf-call-iptables=0                  net.bridge.bridge-nf-call-ip6tables=0`), or use --forward stack"
            ),
            None => "bridge-nf-call-iptables is on: direct pod traffic meets iptables, service traffic does not"
                .to_owned(),
        });
    }
    for bridge in bridges {
        for port in world.ports(*bridge) {
            if !matches!(port.qdisc.as_str(), "noqueue" | "")
                && matches!(port.kind, super::LinkKind::Veth { .. })
            {
                said.push(format!(
                    "the queueing discipline {} of {} does not see redirected packets",
                    port.qdisc, port.name
                ));
            }
        }
    }
    said
}

/// One sentence for each kind of rules for forwarded packets, which do not see this traffic.
pub fn unseen(traffic: &str) -> Vec<String> {
    let mut said = Vec::new();
    for (tool, arguments, counts) in [
        ("iptables-save", &["-t", "filter"][..], is_forward_rule as fn(&str) -> bool),
        ("ip6tables-save", &["-t", "filter"], is_forward_rule),
        ("ebtables-save", &[], is_ebtables_rule),
    ] {
        let rules = lines(tool, arguments).iter().filter(|line| counts(line)).count();
        if rules > 0 {
            said.push(format!("{rules} rules that {tool} shows for forwarded packets do not see {traffic}"));
        }
    }
    let forward_hooks = lines("nft", &["list", "chains"]);
    let forward_hooks = forward_hooks
        .iter()
        .filter(|line| line.contains("hook forward") && !line.contains("policy accept"))
        .count();
    if forward_hooks > 0 {
        said.push(format!(
            "{forward_hooks} nftables forward chains that do not accept by policy do not see {traffic}"
        ));
    }
    said
}

/// Whether what a bridge carries meets netfilter, in this network namespace.
fn meets_netfilter() -> bool {
    ["iptables", "ip6tables"].iter().any(|tables| {
        fs::read_to_string(format!("/proc/sys/net/bridge/bridge-nf-call-{tables}"))
            .is_ok_and(|on| on.trim() == "1")
    })
}

fn is_forward_rule(line: &str) -> bool {
    line.starts_with("-A FORWARD") || line.starts_with("-A DOCKER")
}

fn is_ebtables_rule(line: &str) -> bool {
    line.starts_with("-A ")
}

/// What a tool prints; nothing where it is not installed or not allowed.
fn lines(tool: &str, arguments: &[&str]) -> Vec<String> {
    let output = Command::new(tool).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
