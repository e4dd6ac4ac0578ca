//! What stands in the way of showing clients outside to backends on other nodes as this node (SNAT). Nothing
//! is refused for it: it is said in the log and in `lb status`.

use std::net::IpAddr;

use super::{ephemeral::Ephemeral, program_config::ProgramConfig, routes::View};
use crate::model::{Family, ServiceName};

/// A sentence for each thing. `ephemeral`: the host's own ports; `remote`: a backend behind an uplink and whose
/// it is, of a family.
pub fn warnings(
    facts: &ProgramConfig,
    view: &View,
    ephemeral: Option<&Ephemeral>,
    remote: impl Fn(Family) -> Option<(ServiceName, IpAddr)>,
) -> Vec<String> {
    let Some(ports) = facts.snat_ports.filter(|_| !view.uplinks.is_empty()) else { return Vec::new() };
    let mut said = Vec::new();
    if let Some(ephemeral) = ephemeral
        && let Some(both) = ephemeral.overlap(ports)
    {
        said.push(format!(
            "snatPorts {ports} and the ports of the host's own connections, {}, have {both} in common: replies \
             to such a connection may be sent to a client; give snatPorts another range, move \
             net.ipv4.ip_local_port_range, or add {both} to net.ipv4.ip_local_reserved_ports",
            ephemeral.range
        ));
    }
    for (family, is_there) in [(Family::V4, facts.host.0.is_some()), (Family::V6, facts.host.1.is_some())] {
        if is_there {
            continue;
        }
        if let Some((service, backend)) = remote(family) {
            said.push(format!(
                "service {service} has the backend {backend} on another node, but this node has no {family} \
                 address that it could be shown: clients outside keep their source there, and are answered only \
                 if the reply comes back through this node; give an uplink an {family} address, or name it in \
                 `node: {{addresses: [...]}}`"
            ));
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::{node, options::Forward},
        model::{Model, PortRange},
        netlink::{Address, World},
    };

    const REMOTE: &str = "10.244.2.2";

    /// What is said with these uplinks, `snatPorts`, address of the uplink, and ports of the host's own.
    fn said(uplinks: &[u32], snat_ports: Option<PortRange>, address: &str, first: u16) -> Vec<String> {
        let net = address.parse().expect("a subnet");
        let world =
            World { addresses: vec![Address { ifindex: 5, net, preferred: true }], ..World::default() };
        let node = node::addresses(&world, &[1], uplinks, (None, None));
        let view = View { world: &world, bridges: &[1], ports: &[], uplinks, forward: Forward::Auto, node };
        let facts = ProgramConfig::of(&Model { snat_ports, ..Model::default() }, &view);
        let ephemeral = Ephemeral { range: PortRange { first, last: 60_999 }, reserved: Vec::new() };
        let service = ServiceName { namespace: "default".into(), name: "web".into() };
        let remote =
            |family| (family == Family::V4).then(|| (service.clone(), REMOTE.parse().expect("IPv4")));
        warnings(&facts, &view, Some(&ephemeral), remote)
    }

    #[test]
    fn what_is_said_and_when() {
        let (ports, ipv4, ipv6) = (Some(PortRange::SNAT), "192.168.1.11/24", "fd00:1::11/64");
        assert_eq!(said(&[5], ports, ipv4, 32_768), [""; 0]);
        let shared = said(&[5], ports, ipv4, 29_000);
        assert!(
            shared.len() == 1
                && shared[0].starts_with("snatPorts 10000-29999 and ")
                && shared[0].ends_with("or add 29000-29999 to net.ipv4.ip_local_reserved_ports"),
            "{shared:?}"
        );
        let without = said(&[5], ports, ipv6, 32_768);
        assert!(
            without.len() == 1
                && without[0]
                    .starts_with("service default/web has the backend 10.244.2.2 on another node, but")
                && without[0].contains("no IPv4 address"),
            "{without:?}"
        );
        assert_eq!(said(&[5], ports, ipv6, 1024).len(), 2);
        // Nothing is allocated: nothing is to be said.
        assert_eq!(said(&[5], None, ipv6, 1024), [""; 0]);
        assert_eq!(said(&[], ports, ipv6, 1024), [""; 0]);
    }
}
