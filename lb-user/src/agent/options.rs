//! What `lb run` is told.

use std::path::PathBuf;

pub use crate::attach::xdp::Mode;

/// Options of the agent.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names of the bridges.
    pub bridges: Vec<String>,
    /// Patterns of the names of ports that are no bridge's.
    pub ports: Vec<String>,
    /// Names of the devices that lead outside.
    pub uplinks: Vec<String>,
    /// File or directory with the config.
    pub config: PathBuf,
    /// How packets travel on.
    pub forward: Forward,
    /// Name of the instance.
    pub instance: String,
    /// Service rows of new maps.
    pub max_services: u32,
    /// Flow rows of new maps; a flow takes two.
    pub max_flows: u32,
    /// Attach by clsact filters also where tcx links exist.
    pub clsact: bool,
    /// Whose sockets are translated.
    pub socket_lb: SocketLb,
    /// Uplinks answer who looks for load balancer and external IPs in their subnets.
    pub announce: bool,
    /// Where XDP runs at the uplinks, if it does.
    pub xdp: Option<Mode>,
}

/// How translated packets travel on (`--forward`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Forward {
    /// `peer` where nothing is passed by that somebody set up, else `bridge`.
    Auto,
    /// Straight into the namespace behind the port; past the bridge.
    Peer,
    /// Over the bridge.
    Bridge,
    /// Through the host's stack and its netfilter.
    Stack,
}

/// Whose sockets are translated when they connect (`--socket-lb`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SocketLb {
    /// Those of the host's own network namespace.
    Host,
    /// Those of pods on the bridges, too.
    All,
    /// None: processes of the host do not reach services.
    Off,
}
