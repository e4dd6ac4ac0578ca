//! A node with one service, and the calls of sockets on it.

use bumpalo::Bump;
use lb_common::{
    abi::{
        BackendRow, BackendState, BackendWord, Counter, FrontendKey, FrontendKind, FrontendRow, RangeKey,
        Scopes, SetRow, Settings, SlotRow, Word,
    },
    family::{Address as _, Family, V4, V6},
    path::{Access, Caller, Peer, Socket, connect, prefilter_hash, send, shown},
    wire::Protocol,
};
use lb_sim::{Learned, Shared, Side, Tables};

/// Last parts of addresses.
pub const NODE: u8 = 1;
pub const VIP: u8 = 10;
pub const STRANGER: u8 = 99;
/// The backends, by id.
pub const BACKENDS: [u8; 3] = [0, 201, 202];
pub const PORT: u16 = 80_u16.to_be();
pub const TARGET_PORT: u16 = 8080_u16.to_be();
/// Source ranges of the set.
pub const RANGES: u32 = 5;

pub fn addr<F: Family>(last: u8) -> F::Addr {
    let bytes = [10, 0, 0, last, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    bytemuck::pod_read_unaligned(&bytes[..size_of::<F::Addr>()])
}

pub fn peer<F: Family>(last: u8, port: u16) -> Peer<F> {
    Peer { addr: addr::<F>(last), port }
}

/// A service, row 1, with two backends.
pub struct Node<F: Family> {
    pub settings: Settings,
    pub shared: Shared,
    pub side: Side<F>,
    pub learned: Learned<F>,
    random: u32,
    /// Whether more sockets can be remembered.
    pub room: bool,
}

impl<F: Family> Node<F> {
    pub fn new() -> Self {
        let backend = |id: usize| BackendRow {
            node: F::Addr::ZERO,
            word: BackendWord::new(BackendState::Active(Scopes::Cluster), 0, 7).0,
            addr: addr::<F>(BACKENDS[id]),
            port: TARGET_PORT,
            zone: 0,
            service: 1,
        };
        let mut node = Node {
            settings: Settings { host4: addr::<V4>(NODE), host6: addr::<V6>(NODE), ..Settings::DEFAULT },
            shared: Shared::default(),
            side: Side::default(),
            learned: Learned::default(),
            random: 1,
            room: true,
        };
        node.shared.services.insert(1, Word { low: 1, generation: 1 });
        node.shared.sets.insert(1, SetRow { len: 2, service: 1, ..SetRow::default() });
        node.shared.prefilter(prefilter_hash(addr::<F>(VIP), 0));
        for id in [1, 2] {
            node.shared.slots.insert(id - 1, SlotRow { backend: id, service: 1 });
            node.shared.prefilter(prefilter_hash(addr::<F>(BACKENDS[id as usize]), TARGET_PORT));
            node.side.backends.insert(id, backend(id as usize));
        }
        node.serve(FrontendKind::ClusterIp);
        node
    }

    pub fn serve(&mut self, kind: FrontendKind) {
        for (port, protocol, kind) in [(PORT, 17, kind), (PORT, 6, kind), (0, 0, FrontendKind::Address)] {
            let key = FrontendKey { addr: addr::<F>(VIP), port, zone: 0, protocol };
            self.side.frontends.insert(key, FrontendRow { service: 1, kind: kind as u32 });
        }
    }

    pub fn set(&mut self) -> &mut SetRow {
        self.shared.sets.get_mut(&1).expect("the set")
    }

    pub fn backend(&mut self, id: u32) -> &mut BackendRow<F> {
        self.side.backends.get_mut(&id).expect("the backend")
    }

    pub fn set_state(&mut self, id: u32, state: BackendState, generation: u32) {
        self.backend(id).word = BackendWord::new(state, 0, generation).0;
    }

    /// Allows the node among the source ranges that [`SetRow::source_ranges`] names.
    pub fn allow_node(&mut self) {
        let whole = size_of::<F::Addr>() as u32 * 8;
        self.side.ranges.push((whole, RangeKey { set: RANGES, addr: addr::<F>(NODE) }));
    }

    /// The id of the backend at an end.
    pub fn backend_at(&self, at: Peer<F>) -> u32 {
        let here = |row: &BackendRow<F>| row.addr == at.addr && row.port == at.port;
        let found = self.side.backends.iter().find(|(_, row)| here(row));
        *found.expect("a backend's address").0
    }

    /// A call: what it gives, and what is counted last. What it leaves is there for the next one.
    pub fn call<R>(&mut self, call: impl FnOnce(&Tables<'_, F>) -> R) -> (R, Option<Counter>) {
        let arena = Bump::new();
        self.random = self.random.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
        let maps = (&self.shared, &self.side, 4);
        let mut tables =
            Tables::new(&arena, maps, &self.learned, self.settings).with_random(self.random >> 16);
        if !self.room {
            tables = tables.without_room_for_sockets();
        }
        let given = call(&tables);
        let counted = tables.counted();
        self.learned = tables.outcome(Vec::new()).learned;
        (given, counted.last().copied())
    }
}

/// A call of a socket.
pub struct Call<F: Family> {
    pub cookie: u32,
    pub caller: Caller,
    pub protocol: Option<Protocol>,
    pub peer: Peer<F>,
}

impl<F: Family> Socket<F> for Call<F> {
    fn cookie(&self) -> [u32; 2] {
        [self.cookie, 0]
    }

    fn caller(&self) -> Caller {
        self.caller
    }

    fn protocol(&self) -> Option<Protocol> {
        self.protocol
    }

    fn peer(&self) -> Peer<F> {
        self.peer
    }

    fn set_peer(&mut self, peer: Peer<F>) {
        self.peer = peer;
    }
}

pub fn host<F: Family>(cookie: u32, protocol: Protocol, peer: Peer<F>) -> Call<F> {
    Call { cookie, caller: Caller::Host, protocol: Some(protocol), peer }
}

/// A connection: what becomes of it, and where it goes.
pub fn connection<F: Family>(
    node: &mut Node<F>,
    cookie: u32,
    to: Peer<F>,
) -> (Access, Peer<F>, Option<Counter>) {
    let mut call = host(cookie, Protocol::Tcp, to);
    let (access, counter) = node.call(|tables| connect(&mut call, tables));
    (access, call.peer, counter)
}

/// One datagram to the frontend: what became of it, and where it went.
pub fn datagram<F: Family>(node: &mut Node<F>, cookie: u32) -> (Access, Peer<F>, Option<Counter>) {
    let mut call = host(cookie, Protocol::Udp, peer(VIP, PORT));
    let (access, counter) = node.call(|tables| send(&mut call, tables));
    (access, call.peer, counter)
}

/// Who a datagram from there is shown to be from.
pub fn seen<F: Family>(node: &mut Node<F>, cookie: u32, from: Peer<F>) -> Peer<F> {
    let mut call = host(cookie, Protocol::Udp, from);
    node.call(|tables| shown(&mut call, tables));
    call.peer
}
