//! How many of the node's ports are allocated to flows to other nodes (SNAT). A port is allocated once towards each
//! backend's address and port, so the backend that has the most says how near the end is.

use std::{cmp::Reverse, collections::HashMap, net::SocketAddr};

use anyhow::Result;
use lb_common::{
    abi::{FlowKey, Lifetimes, SnatRow, maps::of_family},
    family::{Family, V4, V6},
    wire::Protocol,
};
use serde::Serialize;

use super::{
    clock::{hz, now_ticks, tick_shift},
    pressure::NEARLY_FULL,
    protocol_name,
    view::View,
};
use crate::{
    maps::{Pins, walk},
    model::PortRange,
};

/// The range and the backend towards which the most of it is allocated.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Allocated {
    /// `snatPorts`.
    #[serde(flatten)]
    pub ports: PortRange,
    /// That backend, as in `TCP 10.244.2.2:8080`; `None`: none is allocated.
    pub backend: Option<String>,
    /// How many ports of the range are allocated towards it.
    pub used: u32,
    /// How many there are.
    pub max: u32,
    /// One by the other.
    pub pressure: f64,
}

/// A backend and how many ports are allocated towards it.
type Counted = (u32, Reverse<(SocketAddr, &'static str)>);

/// As it is now; `None`: no ports are allocated.
pub fn allocated(pins: &Pins, view: &View) -> Result<Option<Allocated>> {
    let Some(ports) = view.snat_ports else { return Ok(None) };
    let mut most = None;
    let mut add = |counted: Option<Counted>| most = most.max(counted);
    let mut v4 = Count::<V4>::of(ports, &view.lifetimes);
    walk(&pins.maps(), &of_family::<V4>().snat, |key, row| v4.see(key, row))?;
    add(v4.most());
    let mut v6 = Count::<V6>::of(ports, &view.lifetimes);
    walk(&pins.maps(), &of_family::<V6>().snat, |key, row| v6.see(key, row))?;
    add(v6.most());
    Ok(Some(Allocated::new(ports, most)))
}

impl Allocated {
    fn new(ports: PortRange, most: Option<Counted>) -> Allocated {
        let backend = most.map(|(_, Reverse((at, protocol)))| format!("{protocol} {at}"));
        let (used, max) = (most.map_or(0, |(used, _)| used), ports.count());
        Allocated { ports, backend, used, max, pressure: f64::from(used) / f64::from(max) }
    }

    /// What is wrong where nearly all ports are allocated.
    pub fn warning(&self) -> Option<String> {
        let backend = self.backend.as_ref().filter(|_| self.pressure > NEARLY_FULL)?;
        Some(format!(
            "snatPorts {}: {} of {} ports are allocated towards {backend}; when all are, new flows to it from \
             clients outside are dropped; give snatPorts a larger range, or the service more backends",
            self.ports, self.used, self.max
        ))
    }
}

/// Live rows of one family's table, by what they have in common but the port that is allocated.
struct Count<F: Family> {
    ports: PortRange,
    now: u32,
    /// In ticks.
    lifetimes: Lifetimes,
    used: HashMap<FlowKey<F>, u32>,
}

impl<F: Family> Count<F> {
    /// Nothing seen; the lifetimes are in seconds.
    fn of(ports: PortRange, lifetimes: &Lifetimes) -> Self {
        let hz = hz();
        let lifetimes = lifetimes.in_ticks(hz, tick_shift(hz));
        Count { ports, now: now_ticks(hz), lifetimes, used: HashMap::new() }
    }

    /// A row whose flow is over is allocated again when somebody asks.
    fn see(&mut self, key: FlowKey<F>, row: SnatRow<F>) {
        let live = Protocol::from_number(key.protocol as u8)
            .is_some_and(|protocol| !row.row.expired(protocol, self.now, &self.lifetimes));
        if live && self.ports.contains(u16::from_be(key.dst_port)) {
            *self.used.entry(FlowKey { dst_port: 0, ..key }).or_default() += 1;
        }
    }

    fn most(&self) -> Option<Counted> {
        let counted = self.used.iter().filter_map(|(key, used)| {
            let protocol = protocol_name(Protocol::from_number(key.protocol as u8)?);
            let at = SocketAddr::new(F::to_ip(key.src), u16::from_be(key.src_port));
            Some((*used, Reverse((at, protocol))))
        });
        counted.max()
    }
}

#[cfg(test)]
mod tests {
    use lb_common::{
        abi::{FlowRow, flow_bits},
        family::Addr4,
    };

    use super::*;

    const PORTS: PortRange = PortRange { first: 10_000, last: 10_099 };

    /// A row whose flow was used so many ticks ago, of a backend's, in a protocol, to a port.
    fn see(count: &mut Count<V4>, backend: u32, protocol: u16, port: u16, idle: u32) {
        let key = FlowKey::<V4> {
            src: Addr4(backend.to_be()),
            src_port: 8080u16.to_be(),
            dst_port: port.to_be(),
            protocol,
            ..FlowKey::default()
        };
        let row = FlowRow {
            seen: count.now.wrapping_sub(idle),
            bits: flow_bits::REPLY | flow_bits::ANSWERED | flow_bits::ASSURED,
            ..FlowRow::default()
        };
        let row = SnatRow::<V4> { row, ..SnatRow::default() };
        count.see(key, row);
    }

    #[test]
    fn the_backend_with_the_most() {
        let mut count = Count::<V4>::of(PORTS, &Lifetimes::SECONDS);
        assert_eq!(count.most(), None);
        let lifetime = count.lifetimes.udp_answered;
        let (first, second) = (0x0a01_0001, 0x0a01_0002);
        for port in 10_000..10_010 {
            see(&mut count, first, 6, port, 0);
            see(&mut count, second, 17, port, 0);
        }
        // Past the range, which was another, and past its lifetime.
        see(&mut count, first, 6, 9_999, 0);
        see(&mut count, first, 6, 10_100, 0);
        see(&mut count, second, 17, 10_010, lifetime + 1);
        // Another protocol has ports of its own.
        see(&mut count, first, 17, 10_011, 0);
        let allocated = Allocated::new(PORTS, count.most());
        assert_eq!(
            (allocated.used, allocated.max, allocated.backend.as_deref()),
            (10, 100, Some("TCP 10.1.0.1:8080"))
        );
        see(&mut count, second, 17, 10_010, lifetime);
        let allocated = Allocated::new(PORTS, count.most());
        assert_eq!((allocated.used, allocated.backend.as_deref()), (11, Some("UDP 10.1.0.2:8080")));
    }

    #[test]
    fn warned_of_in_time() {
        let of =
            |used| Allocated::new(PORTS, Some((used, Reverse(("10.1.0.1:80".parse().expect("IP"), "TCP")))));
        assert_eq!(of(90).warning(), None, "90 %");
        let warning = of(91).warning().expect("a warning");
        let start = "snatPorts 10000-10099: 91 of 100 ports are allocated towards TCP 10.1.0.1:80; ";
        assert!(warning.starts_with(start), "{warning}");
        assert_eq!(Allocated::new(PORTS, None).warning(), None);
    }
}
