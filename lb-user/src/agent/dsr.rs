//! What stands in the way of putting clients' packets into others, to other nodes (DSR). Where something does, the
//! services of that family do without: it is said in the log and in `lb status`.

use super::{node, routes::View};
use crate::model::{Family, Forwarding, Model};

/// The largest packets that may always be sent, so that nobody learns of less (RFC 791 section 3.1, RFC 8200 section
/// 5), and what is put before them.
const LEAST: [(Family, u32, u32); 2] = [(Family::V4, 576, 20), (Family::V6, 1280, 40)];

/// The families in which it can't be done.
pub fn refused(model: &Model, view: &View) -> Vec<Family> {
    why_not(model, view).into_iter().map(|(family, _)| family).collect()
}

/// A sentence for each of them, if a service of the family asks for it.
pub fn warnings(model: &Model, view: &View) -> Vec<String> {
    let asks = |family: Family| {
        model.services.values().find(|service| {
            let mut endpoints = service.ports.iter().flat_map(|port| &port.endpoints);
            service.forwarding == Forwarding::Dsr
                && endpoints.any(|endpoint| Family::of(endpoint.address) == family)
        })
    };
    let said = |(family, why): (Family, String)| {
        let service = &asks(family)?.name;
        Some(format!(
            "service {service} asks for forwarding: dsr, but {why}: its {family} backends on other nodes are \
             reached by SNAT"
        ))
    };
    if view.uplinks.is_empty() {
        return Vec::new();
    }
    why_not(model, view).into_iter().filter_map(said).collect()
}

fn why_not(model: &Model, view: &View) -> Vec<(Family, String)> {
    let (ipv4, ipv6) = node::primary(model, view);
    let narrowest =
        view.uplinks.iter().filter_map(|uplink| view.world.links.get(uplink)).min_by_key(|link| link.mtu);
    let mut refused = Vec::new();
    for (family, least, header) in LEAST {
        let has_address = if family == Family::V4 { ipv4.is_some() } else { ipv6.is_some() };
        if !has_address {
            let text = format!(
                "this node has no {family} address to send from (give an uplink one, or name it in `node: \
                 {{addresses: [...]}}`)"
            );
            refused.push((family, text));
        } else if let Some(link) = narrowest.filter(|link| link.mtu < least + header) {
            let text = format!(
                "the MTU of the uplink {} is {}, too small for DSR, which puts {header} bytes before {family} \
                 packets of up to {least} (raise it to {} or more)",
                link.name,
                link.mtu,
                least + header
            );
            refused.push((family, text));
        }
    }
    refused
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;
    use crate::{
        agent::options::Forward,
        model::{Endpoint, Service, ServiceName, ServicePort},
        netlink::{Address, Link, World},
    };

    /// A service that asks for it, with backends of both families.
    fn model() -> Model {
        let endpoint = |address: &str| Endpoint {
            address: address.parse().expect("an address"),
            port: 80,
            weight: 1,
            conditions: Default::default(),
            place: None,
        };
        let endpoints = vec![endpoint("10.244.2.2"), endpoint("fd00:244:2::2")];
        let ports = vec![ServicePort { port: 80, endpoints, ..ServicePort::default() }];
        let name = ServiceName { namespace: "default".into(), name: "web".into() };
        let service =
            Service { name: name.clone(), ports, forwarding: Forwarding::Dsr, ..Service::default() };
        Model { services: BTreeMap::from([(name, Arc::new(service))]), ..Model::default() }
    }

    /// What is said, and the families that do without, where the uplink has this MTU and these addresses.
    fn said(mtu: u32, addresses: &[&str]) -> (Vec<String>, Vec<Family>) {
        let mut world = World::default();
        world.links.insert(5, Link { ifindex: 5, name: "eth0".into(), mtu, ..Link::default() });
        let address =
            |net: &&str| Address { ifindex: 5, net: net.parse().expect("a subnet"), preferred: true };
        world.addresses = addresses.iter().map(address).collect();
        let node = node::addresses(&world, &[1], &[5], (None, None));
        let view =
            View { world: &world, bridges: &[1], ports: &[], uplinks: &[5], forward: Forward::Auto, node };
        (warnings(&model(), &view), refused(&model(), &view))
    }

    #[test]
    fn what_is_said_and_when() {
        let both = ["192.168.1.11/24", "fd00:1::11/64"];
        assert_eq!(said(1500, &both), (vec![], vec![]));
        assert_eq!(said(1320, &both), (vec![], vec![]));
        let (narrow, families) = said(1319, &both);
        assert_eq!(families, [Family::V6]);
        assert_eq!(
            narrow,
            [
                "service default/web asks for forwarding: dsr, but the MTU of the uplink eth0 is 1319, too small for \
              DSR, which puts 40 bytes before IPv6 packets of up to 1280 (raise it to 1320 or more): its IPv6 \
              backends on other nodes are reached by SNAT"
            ]
        );
        assert_eq!(said(595, &both).1, [Family::V4, Family::V6]);
        let (without, families) = said(1500, &both[..1]);
        assert_eq!(families, [Family::V6]);
        assert!(without.len() == 1 && without[0].contains("this node has no IPv6 address"), "{without:?}");
    }
}
