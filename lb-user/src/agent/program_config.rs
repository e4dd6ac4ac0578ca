//! What every program knows of the config and the host, as constants: where one changes, all programs are
//! loaded anew.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use lb_common::abi::Lifetimes;

use super::{node, routes::View};
use crate::{
    model::{Model, PortRange},
    netlink::Link,
};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProgramConfig {
    /// `serviceCIDRs`.
    pub service_cidrs: Vec<IpNet>,
    /// The node's first address of each family.
    pub host: (Option<Ipv4Addr>, Option<Ipv6Addr>),
    /// See [`mtu_floor`].
    pub mtu_floor: u32,
    /// Lifetimes of flows, in seconds.
    pub lifetimes: Lifetimes,
    /// Ports that the node allocates to flows to other nodes.
    pub snat_ports: Option<PortRange>,
}

impl ProgramConfig {
    /// As they are now.
    pub fn of(model: &Model, view: &View) -> ProgramConfig {
        ProgramConfig {
            service_cidrs: model.service_cidrs.clone(),
            host: node::primary(model, view),
            mtu_floor: mtu_floor(view),
            lifetimes: model.lifetimes,
            snat_ports: model.snat_ports,
        }
    }

    /// What differs from `old`, in words.
    pub fn changes(&self, old: &ProgramConfig) -> Vec<&'static str> {
        let changes = [
            (self.service_cidrs != old.service_cidrs, "serviceCIDRs"),
            (self.host != old.host, "the node's addresses"),
            (self.mtu_floor != old.mtu_floor, "the smallest MTU"),
            (self.lifetimes != old.lifetimes, "lifetimes"),
            (self.snat_ports != old.snat_ports, "snatPorts"),
        ];
        changes.into_iter().filter(|(differs, _)| *differs).map(|(_, what)| what).collect()
    }
}

/// The smallest MTU of the devices that packets of services may leave by, or 0 where all have the same.
fn mtu_floor(view: &View) -> u32 {
    let ours = |ifindex: &u32| {
        [view.bridges, view.ports, view.uplinks].iter().any(|devices| devices.contains(ifindex))
    };
    let leads_on = |link: &&Link| {
        ours(&link.ifindex) || link.master.is_some_and(|master| view.bridges.contains(&master))
    };
    let mtus = || view.world.links.values().filter(leads_on).map(|link| link.mtu);
    match (mtus().min(), mtus().max()) {
        (Some(min), Some(max)) if min < max => min,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{agent::options::Forward, netlink::World};

    /// Bridges 1 (ours, with port 2) and 3 (another's, with port 4), uplink 5, and 6 with nothing of ours.
    fn world(mtus: [u32; 6]) -> World {
        let mut world = World::default();
        for (ifindex, mtu) in (1..).zip(mtus) {
            let master = matches!(ifindex, 2 | 4).then(|| ifindex - 1);
            world.links.insert(ifindex, Link { ifindex, mtu, master, ..Link::default() });
        }
        world
    }

    fn view(world: &World) -> View<'_> {
        View { world, bridges: &[1], ports: &[], uplinks: &[5], forward: Forward::Auto, node: (None, None) }
    }

    #[test]
    fn the_smallest_mtu_of_what_packets_leave_by() {
        for (mtus, floor) in [
            ([1500; 6], 0),
            ([1500, 1500, 1280, 1280, 1500, 65_536], 0),
            ([1500, 1500, 1500, 1500, 1450, 1500], 1450),
            ([1500, 1400, 1500, 1500, 1500, 1500], 1400),
            ([9000, 9000, 1500, 1500, 1500, 1500], 1500),
            ([1280, 1500, 1500, 1500, 1500, 1500], 1280),
        ] {
            assert_eq!(mtu_floor(&view(&world(mtus))), floor, "{mtus:?}");
        }
        assert_eq!(mtu_floor(&view(&World::default())), 0, "no device at all");
    }

    #[test]
    fn what_has_changed() {
        let mut world = world([1500; 6]);
        let mut model = Model::default();
        let old = ProgramConfig::of(&model, &view(&world));
        assert_eq!(old.host, (None, None));

        world.links.entry(2).and_modify(|port| port.mtu = 1400);
        model.snat_ports = Some(PortRange::SNAT);
        let node = (Some([192, 168, 1, 11].into()), None);
        let new = ProgramConfig::of(&model, &View { node, ..view(&world) });
        assert_eq!((new.host, new.mtu_floor), ((Some([192, 168, 1, 11].into()), None), 1400));
        assert_eq!(new.changes(&old), ["the node's addresses", "the smallest MTU", "snatPorts"]);
        assert_eq!(new.changes(&new), [""; 0]);
    }
}
