//! What is really attached, against what the agent says is: links are asked where they are, filters looked for.

use super::view::View;
use crate::{
    attach::{Finder, Found},
    maps::Pins,
};

/// Programs that should be attached and are not, a sentence each; `agent` is the process that attached them, if it
/// still runs.
pub fn missing(pins: &Pins, view: &View, agent: Option<u32>) -> Vec<String> {
    let links = pins.links();
    let finder = Finder::new(&links, agent);
    let mut problems = Vec::new();
    for port in view.ports.iter().filter(|port| !finder.is_gone(port.ifindex)) {
        let place = format!("at {}", port.name);
        for hook in &port.hooks {
            problems.extend(problem(hook, &place, finder.program(port.ifindex, hook)));
        }
        if let Some(mode) = &port.xdp {
            problems.extend(problem(&format!("{mode} XDP"), &place, finder.xdp(port.ifindex, mode)));
        }
    }
    if !view.socket_lb.is_empty() && !view.socket_lb.starts_with("off") {
        let sockets = finder.sockets();
        problems.extend(sockets.filter_map(|(name, found)| problem(&name, "at the host's sockets", found)));
    }
    problems
}

fn problem(program: &str, place: &str, found: Found) -> Option<String> {
    let why = match found {
        Found::Attached => return None,
        Found::NoPin => "its pin is gone".to_owned(),
        Found::Detached => "it has been detached".to_owned(),
        Found::Unknown(error) => format!("the kernel does not say where it is ({error})"),
    };
    Some(format!("{program} is not attached {place}: {why}; start the agent again, which attaches it"))
}
