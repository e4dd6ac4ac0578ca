//! The ports of a service of ours.

use super::{
    super::super::{
        fields::{fields, name, number, port, protocol, text},
        problem::{Bad, Position, Report},
        values::node_port,
        yaml::Node,
    },
    given, items,
};
use crate::model::Protocol;

/// A port of a service, before the backends are known.
pub(super) struct Port {
    pub name: String,
    pub port: u16,
    pub target: u16,
    /// With where it stands, as the next.
    pub node_port: Option<(u16, Position)>,
    pub host_port: Option<(u16, Position)>,
    pub protocol: Protocol,
    at: Position,
}

/// The ports of `service`, no two of one number and protocol.
pub(super) fn service_ports(
    service: &Node<'_>,
    ports: Option<&Node<'_>>,
    report: &mut Report<'_>,
) -> Vec<Port> {
    let nodes = items(ports, "ports", report);
    if nodes.is_empty() {
        report.say(service.at, "the service has no ports; add `ports: [{port: 80}]`");
    }
    let mut read: Vec<Port> = Vec::new();
    for node in nodes {
        let Some(new) = service_port(node, report) else { continue };
        match read.iter().find(|old| (old.port, old.protocol) == (new.port, new.protocol)) {
            Some(old) => {
                let first = report.place(old.at);
                let text = format!(
                    "port {}/{} is given twice in this service, first at {first}; take one out",
                    new.port, new.protocol
                );
                report.say(node.at, text);
            }
            None => read.push(new),
        }
    }
    read
}

fn service_port(node: &Node<'_>, report: &mut Report<'_>) -> Option<Port> {
    let known = ["name", "port", "targetPort", "protocol", "nodePort", "hostPort"];
    let [name_node, number, target_node, transport, node_port_node, host_port_node] =
        fields(node, "a port", known, report)?;
    let name = name_node.map_or(Some(String::new()), |node| report.take(name(node, "a port's name")));
    let target = target_node.map(|node| report.take(target_port(node)));
    let protocol = transport.map_or(Some(Protocol::Tcp), |node| report.take(protocol(node)));
    let placed = |read: fn(&Node<'_>) -> Result<u16, Bad>| {
        move |node: &Node<'_>| read(node).map(|number| Some((number, node.at)))
    };
    let own_node_port = given(node_port_node, placed(node_port), report);
    let host_port = given(host_port_node, placed(port), report);
    let Some(number) = number else {
        report.say(node.at, "the port has no number; add `port: 80`");
        return None;
    };
    let number = report.take(port(number))?;
    let port = Port {
        name: name?,
        port: number,
        target: target.unwrap_or(Some(number))?,
        node_port: own_node_port,
        host_port,
        protocol: protocol?,
        at: node.at,
    };
    sctp_keeps_ports(&port, target_node.unwrap_or(node).at, report).then_some(port)
}

/// A number. Names stand for what each pod calls so, and only EndpointSlices say what that is.
fn target_port(node: &Node<'_>) -> Result<u16, Bad> {
    let text = text(node, "a target port")?;
    if text.starts_with(|first: char| first.is_ascii_alphabetic()) {
        let advice = "write the port's number: names are known only of Kubernetes' EndpointSlices";
        return Err(Bad::new(
            node.at,
            format!("\"{text}\" is a name, which backends have none of here; {advice}"),
        ));
    }
    number(node, "a port", 1..=u16::MAX)
}

/// Whether no port would have to be rewritten that SCTP's checksum covers.
fn sctp_keeps_ports(port: &Port, target: Position, report: &mut Report<'_>) -> bool {
    let others = [Some((port.target, target)), port.node_port, port.host_port];
    let other = others.into_iter().flatten().find(|(number, _)| *number != port.port);
    match other {
        Some((number, at)) if port.protocol == Protocol::Sctp => {
            let text = format!(
                "port {}/SCTP cannot become {number}: SCTP's checksum covers ports, so they stay as they \
                 are; use one number for all",
                port.port
            );
            report.say(at, text);
            false
        }
        _ => true,
    }
}
