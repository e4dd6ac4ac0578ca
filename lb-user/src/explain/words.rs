//! The words: from what the core did, and the model it did it for, to steps that people can follow.

mod backends;
mod stops;

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use lb_common::{
    abi::{Counter, FrontendKind, NextHopKind, Scope, SetRow},
    path,
};

use self::backends::Candidates;
use super::{
    Asked, At, Decision, Explanation, Step, Verdict,
    packet::{HOPS, Headers},
    served::{Pod, Served},
};
use crate::{
    compile::{Frontend, Wanted},
    model::{Algorithm, Endpoint, Service, ServiceName, ServicePort, TrafficPolicy},
    observe::kind_name,
};

/// The frontend that was called and what is behind it.
struct Called<'a> {
    kind: FrontendKind,
    name: &'a ServiceName,
    service: &'a Service,
    port: &'a ServicePort,
    wanted: &'a Wanted,
    set: SetRow,
    /// Whether this client is held to this node's backends.
    scope: Scope,
}

/// Everything that is told.
pub fn explanation(served: &Served, asked: &Asked, decision: &Decision) -> Explanation {
    let called = called(served, asked);
    let allowed = called.as_ref().filter(|_| decision.counter != Counter::SourceRange);
    let candidates = allowed.map(|called| Candidates::of(served, called));
    let verdict = decision.verdict;
    let forwarded = verdict == Verdict::Forward;
    let mut steps = vec![client(served, asked)];
    if let Some(called) = &called {
        steps.push(frontend(asked, called));
        steps.extend(assumed(served, called));
        steps.push(policy(asked, called));
        steps.extend(source_ranges(served, asked, called, decision.counter));
    }
    steps.extend(candidates.as_ref().map(Candidates::step));
    let candidates = candidates.unwrap_or_default();
    if forwarded {
        let choice = |called| choice(served, asked, called, candidates.sockets.len(), &decision.after);
        steps.extend(called.as_ref().map(choice));
        steps.push(match decision.tunnel {
            Some((_, to)) => passed_on(asked, &decision.after, to),
            None => rewrite(asked, &decision.after),
        });
        steps.push(match decision.tunnel {
            Some((from, to)) => inside(from, to),
            None => way_out(served, asked, &decision.after),
        });
    } else {
        steps.extend(stops::steps(served, asked, decision));
    }
    let snat = (forwarded && decision.after.source != asked.from).then(|| decision.after.source.to_string());
    let (frontend, kind) = called
        .as_ref()
        .map(|called| (format!("{}:{}", called.name, called.port.port), kind_name(called.kind)))
        .unzip();
    Explanation {
        verdict,
        from: asked.from,
        to: show(&asked.to),
        at: asked.at,
        frontend,
        kind,
        backends: candidates.sockets.iter().map(SocketAddr::to_string).collect(),
        backend: forwarded.then(|| decision.after.destination.to_string()),
        snat,
        node: decision.tunnel.map(|(_, to)| to),
        reason: (!forwarded).then(|| decision.counter.label()),
        others: candidates.others,
        steps,
    }
}

/// `address:port/protocol`.
fn show(frontend: &Frontend) -> String {
    format!("{}/{}", SocketAddr::new(frontend.address, frontend.port), frontend.protocol)
}

/// The service port behind what was called, if there is one.
fn called<'a>(served: &'a Served, asked: &Asked) -> Option<Called<'a>> {
    let (id, name, wanted) = served.owner(&asked.to)?;
    let kind = wanted.frontends.iter().find(|frontend| frontend.at == asked.to)?.kind;
    let service = served.model.services.get(name)?;
    let leads_here = |port: &&ServicePort| {
        let number = match kind {
            FrontendKind::NodePort => port.node_port,
            FrontendKind::HostPort => port.host_port,
            FrontendKind::ClusterIp
            | FrontendKind::LoadBalancer
            | FrontendKind::ExternalIp
            | FrontendKind::Address
            | FrontendKind::Node => Some(port.port),
        };
        port.protocol == asked.to.protocol && number == Some(asked.to.port)
    };
    let port = service.ports.iter().find(leads_here)?;
    let set = *served.maps.shared.set_of(id)?;
    let scope = path::scope(kind, &set, served.settings(asked.at, asked.from.ip()).outside != 0);
    Some(Called { kind, name, service, port, wanted, set, scope })
}

fn step(topic: &'static str, text: impl Into<String>) -> Step {
    Step { topic, text: text.into(), items: Vec::new() }
}

/// The first lines of a list, and how many more there are.
fn listed(sign: &str, lines: &[String]) -> impl Iterator<Item = String> {
    const LISTED: usize = 16;
    let more = lines.len().saturating_sub(LISTED);
    let rest = (more > 0).then(|| format!("{sign}and {more} more"));
    lines.iter().take(LISTED).map(move |line| format!("{sign}{line}")).chain(rest)
}

/// Who the client is and where its packet comes in.
fn client(served: &Served, asked: &Asked) -> Step {
    let address = asked.from.ip();
    let who = match served.first_seen(address) {
        At::Host => "this node's own address".to_owned(),
        At::Uplink => "neither a pod's address nor this node's".to_owned(),
        At::Port => match served.pod(address) {
            Some(Pod::BackendOf(name)) => format!("a pod of this node (a backend of {name})"),
            Some(Pod::Range(range)) => format!("a pod of this node (podCIDRs {range})"),
            None => "a pod of this node".to_owned(),
        },
    };
    let place = match asked.at {
        At::Host => "a process of the host, whose socket gets a backend at connect()",
        At::Uplink => "from outside, in at the uplink",
        At::Port => "in at its port of the bridge",
    };
    let because = if asked.at_told { ", as --at says" } else { "" };
    step("client", format!("{address}, {who}; {place}{because}"))
}

fn frontend(asked: &Asked, called: &Called<'_>) -> Step {
    let kind = match called.kind {
        FrontendKind::ClusterIp => "a cluster IP",
        FrontendKind::NodePort => "a node port",
        FrontendKind::LoadBalancer => "a load balancer's address",
        FrontendKind::ExternalIp => "an external IP",
        FrontendKind::HostPort => "a host port",
        FrontendKind::Address | FrontendKind::Node => "an address",
    };
    let name = if called.port.name.is_empty() { String::new() } else { format!(" ({})", called.port.name) };
    let given = if called.kind == FrontendKind::ClusterIp && !called.service.wants.is_empty() {
        "; the address is given from serviceCIDRs: an agent that runs may have given another (lb get services)"
    } else {
        ""
    };
    let Called { name: service, port, .. } = called;
    step(
        "frontend",
        format!("{} is {kind} of service {service}, its port {}{name}{given}", show(&asked.to), port.port),
    )
}

/// What the config leaves open and had to be taken for something.
fn assumed(served: &Served, called: &Called<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    let ipv6 = called.wanted.frontends[0].at.address.is_ipv6();
    let endpoints = called.port.endpoints.iter().filter(|endpoint| endpoint.address.is_ipv6() == ipv6);
    let (placed, unplaced): (Vec<&Endpoint>, Vec<&Endpoint>) =
        endpoints.partition(|endpoint| endpoint.place.as_ref().is_some_and(|place| place.node.is_some()));
    if served.model.node.name.is_none() && !placed.is_empty() {
        let nodes: Vec<&str> = served.model.nodes.keys().map(String::as_str).collect();
        let known = if nodes.is_empty() { String::new() } else { format!(" to one of {}", nodes.join(", ")) };
        let name = &served.node.name;
        steps.push(step("assumed", format!("this node is {name}, this host; else set node.name{known}")));
    }
    if !served.pods_known && unplaced.iter().any(|endpoint| !served.node.own.contains(&endpoint.address)) {
        steps.push(step("assumed", "backends that name no node are on this one; else set node.podCIDRs"));
    }
    steps
}

/// Which policy holds for this client at this kind of frontend.
fn policy(asked: &Asked, called: &Called<'_>) -> Step {
    let choice = &called.wanted.choice;
    let (name, policy) = match called.kind {
        FrontendKind::ClusterIp => ("internalTrafficPolicy", choice.internal),
        _ => ("externalTrafficPolicy", choice.external),
    };
    let text = match (policy, called.scope) {
        (TrafficPolicy::Cluster, _) => format!("{name} Cluster: all usable backends, on whichever node"),
        (TrafficPolicy::Local, Scope::Local) => {
            format!("{name} Local: the backends on this node and no others")
        }
        (TrafficPolicy::Local, Scope::Cluster) => {
            let who = if asked.at == At::Host { "the host itself" } else { "a pod" };
            format!("{name} Local holds for clients from outside; {who} may get every usable backend")
        }
    };
    step("policy", text)
}

/// What the source ranges say to this client, if the service has any.
fn source_ranges(served: &Served, asked: &Asked, called: &Called<'_>, counter: Counter) -> Option<Step> {
    let ranges = called.service.source_ranges.iter();
    let ranges: Vec<&IpNet> =
        ranges.filter(|range| range.addr().is_ipv4() == asked.to.address.is_ipv4()).collect();
    if called.wanted.choice.source_ranges.is_empty() || called.kind == FrontendKind::ClusterIp {
        return None;
    }
    const SHOWN: usize = 8;
    let more =
        if ranges.len() > SHOWN { format!(" and {} more", ranges.len() - SHOWN) } else { String::new() };
    let list: Vec<String> = ranges.iter().take(SHOWN).map(ToString::to_string).collect();
    let list = list.join(", ");
    let client = match asked.at {
        At::Host => served.host_address(asked.from.ip()),
        At::Port | At::Uplink => asked.from.ip(),
    };
    let text = if called.kind != FrontendKind::LoadBalancer {
        "loadBalancerSourceRanges are for the load balancer's addresses, not for this one".to_owned()
    } else if counter == Counter::SourceRange {
        format!("loadBalancerSourceRanges {list}{more}: {client} is in none of them")
    } else if ranges.iter().any(|range| range.contains(&client)) {
        format!("loadBalancerSourceRanges {list}{more}: {client} is in one of them")
    } else {
        "a load balancer's address of the host's own: loadBalancerSourceRanges do not keep the host from it"
            .to_owned()
    };
    Some(step("sources", text))
}

/// How the backend was chosen, and what the choice depends on.
fn choice(served: &Served, asked: &Asked, called: &Called<'_>, candidates: usize, after: &Headers) -> Step {
    let backend = after.destination;
    let options = &called.wanted.choice;
    if candidates == 1 {
        return step("choice", format!("{backend}, the only one"));
    }
    let seed = || "the config has no hashSeed: the agent makes one up and may choose another".to_owned();
    let seed = served.model.hash_seed.is_none().then(seed);
    let port = || format!("client port {} is made up: another may get another backend", asked.from.port());
    let port = (!asked.from_told).then(port);
    let example = |why: &str| step("choice", format!("{why}: {backend} is an example"));
    match (options.affinity, options.algorithm) {
        (Some(seconds), _) => {
            let kept = format!(
                "sessionAffinity: who has had another in the last {seconds} s gets that one again, and the \
                 time begins anew with each connection"
            );
            Step {
                topic: "choice",
                text: format!("{backend}, by a hash of the client's address alone"),
                items: [kept].into_iter().chain(seed).collect(),
            }
        }
        (None, Algorithm::Random) => example("at random for each connection"),
        (None, Algorithm::Maglev) if asked.at == At::Host => {
            example("another for each connection, since the socket has no port yet")
        }
        (None, Algorithm::Maglev) => Step {
            topic: "choice",
            text: format!("{backend}, by Maglev's hash of addresses, ports and protocol"),
            items: port.into_iter().chain(seed).collect(),
        },
    }
}

/// What changed in the packet.
fn rewrite(asked: &Asked, after: &Headers) -> Step {
    let to = SocketAddr::new(asked.to.address, asked.to.port);
    let text = match after.destination == to {
        true => format!("destination {to} stays"),
        false => format!("destination {to} -> {}", after.destination),
    };
    let (from, source) = (asked.from, after.source);
    let mut items = Vec::new();
    if asked.at == At::Host {
        items.push("in the socket: no packet is rewritten".to_owned());
    } else if source == from {
        items.push(format!("source {from} stays"));
    } else if source.ip() == asked.to.address {
        items.push(format!("source {from} -> {source}, since the client is its own backend (hairpin)"));
    } else {
        items.push(format!("source {from} -> {source}"));
    }
    if asked.at != At::Host && after.hops != HOPS {
        items.push("one hop less".to_owned());
    }
    Step { topic: "rewrite", text, items }
}

/// What changes in a packet that goes to its backend's node as it is.
fn passed_on(asked: &Asked, after: &Headers, to: IpAddr) -> Step {
    let (source, called) = (asked.from, SocketAddr::new(asked.to.address, asked.to.port));
    let text = format!("destination {called} stays, its node {to} makes it {}", after.destination);
    let answer = format!("the backend sees {source}, and its answers go there directly");
    Step {
        topic: "rewrite",
        text,
        items: vec![format!("source {source} stays"), "one hop less".to_owned(), answer],
    }
}

/// How it leaves then.
fn inside(from: IpAddr, to: IpAddr) -> Step {
    let name = if to.is_ipv4() { "IPIP" } else { "IP6IP6" };
    step(
        "way out",
        format!("inside another packet ({name}) from {from} to the backend's node {to} (forwarding: dsr)"),
    )
}

/// How the packet leaves.
fn way_out(served: &Served, asked: &Asked, after: &Headers) -> Step {
    let backend = after.destination.ip();
    if asked.at == At::Host {
        return step("way out", format!("by the host's own routing, like any connection to {backend}"));
    }
    let text = match served.way_to(backend) {
        NextHopKind::Peer if backend == asked.from.ip() => "back into the pod it came from".to_owned(),
        NextHopKind::Peer => format!("straight into the pod {backend} behind its port of the bridge"),
        NextHopKind::Host => format!("up this node's own stack: {backend} is its address"),
        NextHopKind::Uplink => {
            format!("through the uplink to its next hop: {backend} is not on this node")
        }
        NextHopKind::None
        | NextHopKind::Bridge
        | NextHopKind::Neighbour
        | NextHopKind::Gone
        | NextHopKind::Stack => {
            format!("over the bridge to {backend}")
        }
    };
    step("way out", text)
}
