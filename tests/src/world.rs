//! Where everybody is in the cases, as `address:port`; port 0 does not matter. [`crate::state`] has the pods' ports and
//! the bridges.

use lb_common::{
    abi::{NextHopKind, NextHopRow, Settings, ZONE_UPLINK},
    path::Egress::{self, Neighbour},
    wire::Protocol::{Tcp, Udp},
};

use crate::{
    family::{Net, socket},
    state::{BLUE, State, UPLINK, on_uplink, outside},
};

/// A client in the pod [`crate::state::RED`].
pub const CLIENT: &str = "10.244.1.2:40000";
/// The frontend of service 1.
pub const VIP: &str = "10.96.0.10:80";
/// Another service's.
pub const OTHER_VIP: &str = "10.96.0.11:80";
/// The backend in the pod [`crate::state::BLUE`].
pub const BACKEND: &str = "10.244.1.3:8080";
/// One in the pod [`crate::state::GREEN`].
pub const SPARE: &str = "10.244.1.4:8080";
/// This node. Its uplink has the MAC of [`crate::state::BRIDGE`].
pub const NODE: &str = "192.168.1.11:0";
/// Another one.
pub const OTHER_NODE: &str = "192.168.1.12:0";
/// A backend there.
pub const REMOTE: &str = "10.244.9.9:8080";
/// A client in the LAN.
pub const FAR: &str = "192.168.1.100:40000";
/// Another.
pub const FAR2: &str = "192.168.1.101:40000";
/// A client behind routers.
pub const OUTSIDER: &str = "192.0.2.7:5555";
/// One of these.
pub const FAR_ROUTER: &str = "198.51.100.1:0";

/// By the next hop behind the uplink that the kernel finds.
pub const OUT: Egress = Neighbour(UPLINK);

/// First of the node's ports that are allocated.
pub const FIRST: u32 = 10_000;
/// How many are.
pub const PORTS: u32 = 4;
/// What [`FAR`] is to [`REMOTE`] if it is the first that one is allocated to.
pub const SHOWN: &str = "192.168.1.11:10000";

/// Settings of the uplink's programs on a node with an address.
pub fn on_node<F: Net>() -> Settings {
    let mut settings = on_uplink();
    F::set_host(&mut settings, *socket(NODE).ip());
    settings
}

/// So, and it allocates ports.
pub fn allocating<F: Net>() -> Settings {
    Settings { snat_first: FIRST, snat_ports: PORTS, ..on_node::<F>() }
}

/// Service 1 with one backend, reached so.
pub fn web_by<F: Net>(at: &str, zone: u16, next_hop: NextHopRow) -> State<F> {
    State::default().service(1, &[(Tcp, VIP), (Udp, VIP)], &[1]).backend(1, 1, at, zone, next_hop)
}

/// Service 1 with one backend, the pod blue, straight into it.
pub fn web<F: Net>() -> State<F> {
    web_by(BACKEND, BLUE.bridge.zone, BLUE.reached(NextHopKind::Peer))
}

/// Service 1 with the backend on the other node.
pub fn remote<F: Net>() -> State<F> {
    web_by(REMOTE, ZONE_UPLINK, outside())
}
