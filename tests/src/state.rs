//! What the maps hold while a packet is seen, as data.

use lb_common::{
    abi::{
        BackendRow, BackendState, BackendWord, FlowKey, FrontendKey, FrontendKind, FrontendRow, Mac,
        NeighKey, NextHopKind, NextHopRow, ProxyNeighRow, RangeKey, Scopes, ServiceRow, SetRow, Settings,
        SlotRow, SourceGuardRow, bridge_zone, other_port,
    },
    family::Address as _,
    path::{Hook, prefilter_hash},
    wire::Protocol,
};
use lb_sim::{Learned, Shared, Side};

use crate::{
    family::{Net, socket},
    packet::mac,
};

/// All rows. Each service's set has its own index, and its slots begin at [`slots_of`].
#[derive(Clone, Debug)]
pub struct State<F: Net> {
    /// Maps that exist once.
    pub shared: Shared,
    /// The family's.
    pub side: Side<F>,
    /// What packets have left.
    pub learned: Learned<F>,
}

/// Where a packet is seen.
#[derive(Copy, Clone, Debug)]
pub struct At {
    /// What the programs there were loaded with.
    pub settings: Settings,
    /// The hook.
    pub hook: Hook,
    /// The device.
    pub ifindex: u32,
    /// It has a VLAN tag, which is none of its bytes. The kernel can't be given such a packet to try.
    pub tagged: bool,
    /// How many bytes of what it carries each part has into which a device is to segment it; 0: it is none of those.
    pub segment: u32,
}

/// First slot of a service.
pub fn slots_of(service: u32) -> u32 {
    service * 24
}

/// A port of a bridge and the pod behind it.
#[derive(Copy, Clone, Debug)]
pub struct Port {
    /// The pod's address, with a port that does not matter.
    pub at: &'static str,
    /// The port's interface index.
    pub ifindex: u32,
    /// Its bridge.
    pub bridge: Bridge,
}

/// A bridge.
#[derive(Copy, Clone, Debug)]
pub struct Bridge {
    /// Its own address, with a port that does not matter.
    pub at: &'static str,
    /// Its interface index.
    pub ifindex: u32,
    /// Its zone.
    pub zone: u16,
}

/// The bridge of most cases.
pub const BRIDGE: Bridge = Bridge { at: "10.244.1.1:0", ifindex: 100, zone: bridge_zone(100) };
/// Another one on the same host.
pub const OTHER_BRIDGE: Bridge = Bridge { at: "10.244.2.1:0", ifindex: 200, zone: bridge_zone(200) };
/// A pod.
pub const RED: Port = Port { at: "10.244.1.2:0", ifindex: 102, bridge: BRIDGE };
/// A pod.
pub const BLUE: Port = Port { at: "10.244.1.3:0", ifindex: 103, bridge: BRIDGE };
/// A pod.
pub const GREEN: Port = Port { at: "10.244.1.4:0", ifindex: 104, bridge: BRIDGE };
/// A pod on the other bridge.
pub const ORANGE: Port = Port { at: "10.244.2.2:0", ifindex: 202, bridge: OTHER_BRIDGE };
/// All of them.
pub const PODS: [Port; 4] = [RED, BLUE, GREEN, ORANGE];
/// The device to the outside.
pub const UPLINK: u32 = 300;
/// Another one.
pub const OTHER_UPLINK: u32 = 301;
/// Every device that packets arrive on.
pub const DEVICES: [u32; 8] = [100, 200, 102, 103, 104, 202, UPLINK, OTHER_UPLINK];

/// The MTU of the uplink.
pub const NARROW: u32 = 1400;

/// The MTU of a device; `None`: it is none of the cases'.
pub fn mtu(ifindex: u32) -> Option<u32> {
    let mtu = if ifindex == UPLINK { NARROW } else { 1500 };
    DEVICES.contains(&ifindex).then_some(mtu)
}

/// Whether a packet that comes in by a device is addressed to another's MAC. All have the bridge's.
pub fn is_for_another(ifindex: u32, packet: &[u8]) -> bool {
    const GROUP: u8 = 1;
    let own = mac(socket(BRIDGE.at).ip().octets());
    DEVICES.contains(&ifindex) && packet.first_chunk().is_some_and(|to| *to != own && to[0] & GROUP == 0)
}

/// A MAC as rows hold it.
pub fn mac_of(at: &str) -> Mac {
    bytemuck::cast(mac(socket(at).ip().octets()))
}

impl Port {
    /// The way to it.
    pub fn reached(self, kind: NextHopKind) -> NextHopRow {
        NextHopRow {
            ifindex: self.ifindex,
            bridge: self.bridge.ifindex,
            mac: mac_of(self.at),
            host_mac: mac_of(self.bridge.at),
            kind: kind as u32,
        }
    }
}

/// The next hop behind the uplink, with a port that does not matter. The uplink itself has the bridge's MAC.
pub const ROUTER: &str = "192.168.1.1:0";

/// The way out of the uplink.
pub fn outside() -> NextHopRow {
    NextHopRow {
        ifindex: UPLINK,
        bridge: 0,
        mac: mac_of(ROUTER),
        host_mac: mac_of(BRIDGE.at),
        kind: NextHopKind::Uplink as u32,
    }
}

/// The way to a process of the host.
pub fn host_process() -> NextHopRow {
    NextHopRow { kind: NextHopKind::Host as u32, ..Default::default() }
}

/// Settings of a bridge's programs; its clients are reached by `return_path`. The kernel's time does not
/// move: a tick is longer than its clock can count.
pub fn on(bridge: Bridge, return_path: NextHopKind) -> Settings {
    Settings {
        zone: bridge.zone as u32,
        return_path: return_path as u32,
        hash_seed: 0x5eed,
        tick_shift: 63,
        ..Settings::DEFAULT
    }
}

/// Settings of the uplink's programs.
pub fn on_uplink() -> Settings {
    Settings { zone: 0, outside: 1, ..on(BRIDGE, NextHopKind::Uplink) }
}

/// The same settings where there are several bridges: their programs look up in which zone they are.
pub fn among_several(settings: Settings) -> Settings {
    Settings { zone: 0, ..settings }
}

impl<F: Net> Default for State<F> {
    /// No services; the agent knows in which zone each port is.
    fn default() -> Self {
        let bridge_ports = PODS.iter().map(|port| (port.ifindex, port.bridge.zone.into())).collect();
        let shared = Shared { bridge_ports, ..Shared::default() };
        State { shared, side: Side::default(), learned: Learned::default() }
    }
}

impl<F: Net> State<F> {
    /// With a service of these frontends and, slot by slot, these backends.
    pub fn service(mut self, id: u32, frontends: &[(Protocol, &str)], slots: &[u32]) -> Self {
        for (protocol, at) in frontends {
            let key = F::frontend(*protocol, at);
            self.shared.prefilter(prefilter_hash(key.addr, 0));
            self.side
                .frontends
                .insert(key, FrontendRow { service: id, kind: FrontendKind::ClusterIp as u32 });
        }
        self.shared.services.insert(id, ServiceRow { low: id, generation: 1 });
        let set = SetRow { first: slots_of(id), len: slots.len() as u32, service: id, ..Default::default() };
        self.shared.sets.insert(id, set);
        for (index, backend) in slots.iter().enumerate() {
            self.shared.slots.insert(slots_of(id) + index as u32, SlotRow { backend: *backend, service: id });
        }
        self
    }

    /// With another frontend of a service.
    pub fn frontend(mut self, id: u32, kind: FrontendKind, protocol: Protocol, at: &str) -> Self {
        let key = F::frontend(protocol, at);
        self.shared.prefilter(prefilter_hash(key.addr, 0));
        self.side.frontends.insert(key, FrontendRow { service: id, kind: kind as u32 });
        self
    }

    /// With an address (`address:port`, the port does not matter) whose other ports are refused.
    pub fn owned(mut self, at: &str) -> Self {
        let key = FrontendKey { port: 0, protocol: 0, ..F::frontend(Protocol::Tcp, at) };
        self.side.frontends.insert(key, FrontendRow { service: 0, kind: FrontendKind::Address as u32 });
        self
    }

    /// With an address (`address:port`, the port does not matter) of another node that node ports are called at.
    pub fn of_other_node(mut self, at: &str) -> Self {
        let key = FrontendKey { port: 0, protocol: 0, ..F::frontend(Protocol::Tcp, at) };
        self.side.frontends.insert(key, FrontendRow { service: 0, kind: FrontendKind::Node as u32 });
        self
    }

    /// The service's set is so.
    pub fn set(mut self, id: u32, change: impl FnOnce(&mut SetRow)) -> Self {
        change(self.shared.sets.get_mut(&id).expect("a service of this case"));
        self
    }

    /// The service's slots for who is held to a Local policy: those behind its other ones.
    pub fn local(mut self, id: u32, slots: &[u32]) -> Self {
        let set = self.shared.sets.get_mut(&id).expect("a service of this case");
        (set.local_first, set.local_len) = (set.first + set.len, slots.len() as u32);
        let first = set.local_first;
        for (index, backend) in slots.iter().enumerate() {
            self.shared.slots.insert(first + index as u32, SlotRow { backend: *backend, service: id });
        }
        self
    }

    /// Only these sources (`address:port`, the port does not matter) and prefix lengths of IPv4 may use
    /// the load balancer's addresses of a service. In IPv6 a prefix is as long as that many whole groups.
    pub fn source_ranges(mut self, id: u32, ranges: &[(&str, u32)]) -> Self {
        self = self.set(id, |set| set.source_ranges = id);
        for (at, prefix) in ranges {
            let key = RangeKey { set: id, addr: F::addr(*socket(at).ip()) };
            self.side.ranges.push((F::prefix(*prefix), key));
        }
        self
    }

    /// With an active backend of a service; its reach row has the same index.
    pub fn backend(mut self, id: u32, service: u32, at: &str, zone: u16, next_hop: NextHopRow) -> Self {
        let at = socket(at);
        let row = BackendRow {
            word: BackendWord::new(BackendState::Active(Scopes::Both), id, 1).0,
            addr: F::addr(*at.ip()),
            port: at.port().to_be(),
            zone,
            service,
            node: F::Addr::ZERO,
        };
        self.shared.prefilter(prefilter_hash(row.addr, row.port));
        self.side.backends.insert(id, row);
        self.shared.next_hops.insert(id, next_hop);
        self
    }

    /// A backend is on the node with this address (`address:port`, the port does not matter), and packets go there
    /// inside others.
    pub fn on_node(mut self, id: u32, at: &str) -> Self {
        self.side.backends.get_mut(&id).expect("a backend of this case").node = F::addr(*socket(at).ip());
        self
    }

    /// Gives a backend another state.
    pub fn set_state(&mut self, id: u32, state: BackendState) {
        let row = self.side.backends.get_mut(&id).expect("a backend of this case");
        let word = BackendWord(row.word);
        row.word = BackendWord::new(state, word.next_hop(), row.word.generation).0;
    }

    /// With an address that a bridge answers for.
    pub fn answer(mut self, at: &str, bridge: Bridge) -> Self {
        self.shared.proxy_neigh.insert(address_key::<F>(at, bridge), ProxyNeighRow::new(mac_of(bridge.at)));
        self
    }

    /// With an uplink that has the MAC of this address (`address:port`, the port does not matter).
    pub fn uplink(mut self, ifindex: u32, at: &str) -> Self {
        self.shared.proxy_neigh.insert(NeighKey::uplink(ifindex), ProxyNeighRow::new(mac_of(at)));
        self
    }

    /// With a pod that is known at its port.
    pub fn home(mut self, pod: Port) -> Self {
        let row = SourceGuardRow { ifindex: pod.ifindex, mac: mac_of(pod.at), zone: 0 };
        self.shared.homes.insert(address_key::<F>(pod.at, pod.bridge), row);
        self
    }

    /// With a pod that has another port besides the one that it is known at.
    pub fn other_port(mut self, pod: Port, ifindex: u32) -> Self {
        let row = SourceGuardRow { ifindex: pod.ifindex, mac: mac_of(pod.at), zone: pod.bridge.zone };
        let key = F::neigh_key(F::addr(*socket(pod.at).ip()), other_port(ifindex));
        self.shared.homes.insert(key, row);
        self
    }

    /// A row of a flow is gone, in whichever table it was; whether there was one.
    pub fn lose(&mut self, key: &FlowKey<F>) -> bool {
        self.learned.flows.remove(key).is_some()
            | self.learned.unassured.remove(key).is_some()
            | self.learned.snat.remove(key).is_some()
    }

    /// Lets time pass: every row gets older.
    pub fn age(&mut self, ticks: u32) {
        for row in self.learned.flows.values_mut() {
            row.seen = row.seen.wrapping_sub(ticks);
        }
        for row in self.learned.unassured.values_mut() {
            row.row.seen = row.row.seen.wrapping_sub(ticks);
        }
        for row in self.learned.snat.values_mut() {
            row.row.seen = row.row.seen.wrapping_sub(ticks);
        }
        for row in self.learned.fragments.values_mut() {
            row.seen = row.seen.wrapping_sub(ticks);
        }
        for row in self.learned.affinity.values_mut() {
            row.seen = row.seen.wrapping_sub(ticks);
        }
    }
}

fn address_key<F: Net>(at: &str, bridge: Bridge) -> NeighKey {
    F::neigh_key(F::addr(*socket(at).ip()), bridge.zone.into())
}
