//! What people and programs see of a running instance. Reads the pinned maps and the agent's view;
//! works with no agent running.

pub mod attached;
pub mod backends;
pub mod clock;
pub mod flows;
pub mod life;
pub mod pressure;
pub mod services;
pub mod snat;
pub mod status;
pub mod view;

use lb_common::{
    abi::{BackendState, FrontendKind},
    wire::Protocol,
};
use view::BackendView;

/// How many of a service's backends are ready.
pub fn ready(backends: &[BackendView]) -> String {
    let ready = backends.iter().filter(|backend| backend.state == READY).count();
    format!("{ready}/{}", backends.len())
}

const READY: &str = "ready";

/// The word for a backend whose next hop does not answer.
pub const SILENT: &str = "silent";

/// The word for a backend's state.
pub fn state_name(state: BackendState) -> &'static str {
    match state {
        BackendState::Active(_) => READY,
        BackendState::Draining => "draining",
        BackendState::Silent => SILENT,
        BackendState::Removed | BackendState::Reset | BackendState::Free => "removed",
    }
}

/// The word for a frontend's kind.
pub fn kind_name(kind: FrontendKind) -> &'static str {
    match kind {
        FrontendKind::ClusterIp => "ClusterIP",
        FrontendKind::NodePort => "NodePort",
        FrontendKind::LoadBalancer => "LoadBalancer",
        FrontendKind::ExternalIp => "ExternalIP",
        FrontendKind::HostPort => "HostPort",
        FrontendKind::Address | FrontendKind::Node => "Address",
    }
}

/// The name of a protocol.
pub fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}

/// A number of bytes as people read it.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    if unit == 0 { format!("{count}B") } else { format!("{value:.1}{}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_for_people() {
        assert_eq!([0, 1023, 1024, 1 << 40].map(bytes), ["0B", "1023B", "1.0KiB", "1.0TiB"]);
    }
}
