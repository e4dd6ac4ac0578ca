//! Why a packet goes to no backend: the rule, and what the packet gets by it.

use std::{net::IpAddr, sync::Arc};

use lb_common::abi::{Counter, Stop};

use super::{
    super::{Asked, At, Decision, Step, Verdict, packet::Headers, served::Served},
    listed, show, step,
};
use crate::model::{Protocol, Service};

/// The rule that stopped the packet, then what becomes of it.
pub fn steps(served: &Served, asked: &Asked, decision: &Decision) -> Vec<Step> {
    let mut steps: Vec<Step> = rule(served, asked, decision.counter).into_iter().collect();
    steps.push(end(asked, decision));
    steps
}

/// What the core's outcome means. Nothing where steps before have said it all.
fn rule(served: &Served, asked: &Asked, counter: Counter) -> Option<Step> {
    let to = asked.to.address;
    let text = match counter.stop()? {
        Stop::SourceRange => return None,
        Stop::NoBackend => "no usable backend anywhere".to_owned(),
        Stop::NoLocalBackend => {
            "usable backends exist, but none on this node, and the policy allows no others".to_owned()
        }
        Stop::NoPort => return Some(no_port(served, asked)),
        Stop::UnassignedVip => {
            let range = served.model.service_cidrs.iter().find(|range| range.contains(&to));
            let range = range.map(|range| format!(" {range}")).unwrap_or_default();
            format!("no service has {to}, an address of serviceCIDRs{range}")
        }
        Stop::NotOurs | Stop::NoFrontend | Stop::Direct => return Some(not_ours(served, asked)),
        other => other.meaning().to_owned(),
    };
    Some(step("rule", text))
}

/// The address is a service's, the port is not.
fn no_port(served: &Served, asked: &Asked) -> Step {
    let mut ports: Vec<String> = Vec::new();
    for (name, wanted) in served.owners.values() {
        for frontend in wanted.frontends.iter().filter(|known| known.at.address == asked.to.address) {
            ports.push(format!("{}/{} of {name}", frontend.at.port, frontend.at.protocol));
        }
    }
    ports.sort();
    let text = format!(
        "{} is an address of services, but no port {}/{} is there; there are",
        asked.to.address, asked.to.port, asked.to.protocol
    );
    Step { topic: "rule", text, items: listed("", &ports).collect() }
}

/// Nothing of ours; and what the caller may have meant.
fn not_ours(served: &Served, asked: &Asked) -> Step {
    let hint = node_port(served, asked).or_else(|| direct(served, asked));
    let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
    step("rule", format!("no service is at {}{hint}", show(&asked.to)))
}

/// What is called is a backend, or this node.
fn direct(served: &Served, asked: &Asked) -> Option<String> {
    let (address, port) = (asked.to.address, asked.to.port);
    let has = |service: &&Arc<Service>| {
        let of_protocol = service.ports.iter().filter(|known| known.protocol == asked.to.protocol);
        let mut endpoints = of_protocol.flat_map(|known| &known.endpoints);
        endpoints.any(|endpoint| (endpoint.address, endpoint.port) == (address, port))
    };
    match served.model.services.values().find(has) {
        Some(service) => Some(format!("that is a backend of {}, called directly", service.name)),
        None => served.node.own.contains(&address).then(|| format!("{address} is this node's own address")),
    }
}

/// The port is a node port, but not at this address.
fn node_port(served: &Served, asked: &Asked) -> Option<String> {
    let port = asked.to.port;
    let has = |service: &&Arc<Service>| {
        let mut ports = service.ports.iter();
        ports.any(|known| known.protocol == asked.to.protocol && known.node_port == Some(port))
    };
    let service = served.model.services.values().find(has)?;
    let of_family = |address: &&IpAddr| address.is_ipv4() == asked.to.address.is_ipv4();
    let addresses: Vec<String> =
        served.node.node_ports.iter().filter(of_family).map(ToString::to_string).collect();
    let name = &service.name;
    Some(if addresses.is_empty() {
        format!(
            "{port} is a node port of {name}, but the config does not say at which addresses: add node.addresses"
        )
    } else {
        format!("{port} is a node port of {name}, but at {} only", addresses.join(", "))
    })
}

/// What the packet gets.
fn end(asked: &Asked, decision: &Decision) -> Step {
    let at_host = asked.at == At::Host;
    let text = match decision.verdict {
        Verdict::Reject if at_host => "the call fails at once: connection refused".to_owned(),
        Verdict::Reject => match &decision.answer {
            Some(answer) => refusal(answer),
            None => "dropped, since it could not be answered".to_owned(),
        },
        Verdict::Drop if at_host => "the call fails at once: no route to host".to_owned(),
        Verdict::Drop => "dropped without an answer: the client waits until it gives up".to_owned(),
        Verdict::Pass => "untouched, left to the bridge and the host's routing".to_owned(),
        Verdict::Forward => "on its way".to_owned(),
    };
    let counted = match decision.verdict {
        Verdict::Pass => String::new(),
        _ => format!("; lb status counts {}", decision.counter.label()),
    };
    step("end", format!("{text}{counted}"))
}

/// The refusal that the client sees.
fn refusal(answer: &Headers) -> String {
    let what = if answer.protocol == Protocol::Tcp.number() { "a RST" } else { "port unreachable" };
    format!("answered at once with {what} from {}", answer.source.ip())
}
