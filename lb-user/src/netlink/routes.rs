//! The main routing table: where packets to an address leave the host, and whose MAC they get.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;

/// Routes of the table `main`, found by the longest prefix as the kernel does. Rules of policy routing and
/// their tables are not read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routes {
    routes: HashMap<IpNet, Route>,
    /// Lengths of the prefixes that there are, of IPv4 and of IPv6.
    lengths: [BTreeSet<u8>; 2],
}

/// What holds for a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The smallest of a prefix holds.
    pub metric: u32,
    /// Where packets go, of several ways the first; `None`: nowhere.
    pub hop: Option<Hop>,
}

/// A way out of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The device that packets leave by.
    pub ifindex: u32,
    /// Who gets them there.
    pub via: Via,
}

/// Who gets a packet from a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The destination itself.
    Link,
    /// A router, of either family.
    Router(IpAddr),
    /// Nobody that an address stands for: the route wraps packets into others.
    Tunnel,
}

impl Routes {
    /// Adds a route; the first of those with one prefix and metric stays.
    pub fn add(&mut self, prefix: IpNet, route: Route) {
        self.lengths[usize::from(prefix.addr().is_ipv6())].insert(prefix.prefix_len());
        let known = self.routes.entry(prefix.trunc()).or_insert(route);
        if route.metric < known.metric {
            *known = route;
        }
    }

    /// The way to an address; `None` where there is no route, or one that leads nowhere.
    pub fn find(&self, address: IpAddr) -> Option<Hop> {
        let lengths = self.lengths[usize::from(address.is_ipv6())].iter().rev();
        let prefixes = lengths.filter_map(|length| IpNet::new(address, *length).ok());
        prefixes.into_iter().find_map(|prefix| self.routes.get(&prefix.trunc()))?.hop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(table: &[(&str, u32, Option<u32>)]) -> Routes {
        let mut routes = Routes::default();
        for (prefix, metric, ifindex) in table {
            let hop = ifindex.map(|ifindex| Hop { ifindex, via: Via::Link });
            routes.add(prefix.parse().expect("a prefix"), Route { metric: *metric, hop });
        }
        routes
    }

    #[test]
    fn the_longest_prefix_holds() {
        let routes = routes(&[
            ("0.0.0.0/0", 0, Some(1)),
            ("10.0.0.0/8", 0, Some(2)),
            ("10.244.2.0/24", 0, Some(3)),
            ("10.244.3.0/24", 0, None),
            ("10.244.2.7/32", 0, Some(4)),
            ("fd00::/8", 0, Some(5)),
        ]);
        for (address, expected) in [
            ("192.0.2.1", Some(1)),
            ("10.1.1.1", Some(2)),
            ("10.244.2.6", Some(3)),
            ("10.244.2.7", Some(4)),
            ("10.244.3.1", None),
            ("fd00::1", Some(5)),
            ("2001:db8::1", None),
        ] {
            let found = routes.find(address.parse().expect("an address"));
            assert_eq!(found.map(|hop| hop.ifindex), expected, "{address}");
        }
    }

    #[test]
    fn of_one_prefix_the_smallest_metric_holds_then_the_first() {
        let default = |table: &[(&str, u32, Option<u32>)]| {
            routes(table).find([192, 0, 2, 1].into()).map(|hop| hop.ifindex)
        };
        assert_eq!(default(&[("0.0.0.0/0", 100, Some(1)), ("0.0.0.0/0", 50, Some(2))]), Some(2));
        assert_eq!(default(&[("0.0.0.0/0", 50, Some(1)), ("0.0.0.0/0", 50, Some(2))]), Some(1));
    }
}
