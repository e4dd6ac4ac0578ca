//! Services as they are served.

use std::net::IpAddr;

use lb_common::abi::Traffic;
use serde::Serialize;

use super::view::{BackendView, View};
use crate::{
    maps::Maps,
    plan::{Mirror, adopt},
};

/// One frontend and what is behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// Namespace; empty if no agent has told since boot.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `ClusterIP`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Name of the port, empty for an only port.
    pub port_name: String,
    /// Address of the frontend.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// `TCP` or `UDP`.
    pub protocol: String,
    /// Its backends.
    pub backends: Vec<BackendView>,
    /// Packets from its clients.
    pub packets: u64,
    /// Bytes of those packets.
    pub bytes: u64,
}

/// Every frontend, by namespace, name and address.
pub fn services(maps: &Maps, view: &View) -> Vec<Service> {
    let traffic = |id: u32| {
        let rows = maps.traffic.get(&id, 0).ok();
        rows.iter().flat_map(|rows| rows.iter()).fold(Traffic::default(), |sum, row| Traffic {
            packets: sum.packets + row.packets,
            bytes: sum.bytes + row.bytes,
        })
    };
    let known = view.services.iter().map(|service| {
        let Traffic { packets, bytes } = traffic(service.id);
        Service {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
            kind: service.kind.clone(),
            port_name: service.port_name.clone(),
            address: service.address,
            port: service.port,
            protocol: service.protocol.clone(),
            backends: service.backends.clone(),
            packets,
            bytes,
        }
    });
    let mut all: Vec<Service> = known.collect();
    if all.is_empty() {
        all = unnamed(maps, &adopt(maps), traffic);
    }
    all.sort_by(|a, b| {
        (&a.namespace, &a.name, a.address, a.port).cmp(&(&b.namespace, &b.name, b.address, b.port))
    });
    all
}

/// From the maps alone: no agent has told names and weights since boot.
fn unnamed(maps: &Maps, mirror: &Mirror, traffic: impl Fn(u32) -> Traffic) -> Vec<Service> {
    let service = |id: u32, found: &crate::plan::Found| {
        let slots = |backend: u32| {
            let slots = found.published.iter().flat_map(|set| set.first..set.first + set.len);
            slots.filter(|index| maps.slots.get(*index).backend == backend).count() as u16
        };
        let backends: Vec<BackendView> = mirror
            .backends_of(id)
            .iter()
            .map(|backend| BackendView {
                address: backend.address,
                port: backend.port,
                weight: slots(backend.id),
                state: super::state_name(backend.word.state()).to_owned(),
                node: backend.node,
            })
            .collect();
        let Traffic { packets, bytes } = traffic(id);
        let frontends = found.frontends.iter().map(move |frontend| Service {
            namespace: String::new(),
            name: String::new(),
            kind: super::kind_name(frontend.kind).to_owned(),
            port_name: String::new(),
            address: frontend.at.address,
            port: frontend.at.port,
            protocol: frontend.at.protocol.to_string(),
            backends: backends.clone(),
            packets,
            bytes,
        });
        frontends.collect::<Vec<_>>()
    };
    mirror.services().flat_map(|(id, found)| service(id, found)).collect()
}
