//! Clients on the host, and pods where that is asked for: a socket's destination is translated once, when it
//! connects, or with each
//! datagram where it is not connected. No packet pays; what the application is shown stays the frontend.

use super::tables::{Tables, prefilter_hash};
use super::{prefilter::is_unassigned, select};
use crate::{
    abi::{BackendRef, BackendRow, Ending, Event, FlowKey, SocketEnd, SocketKey, SocketRow, Stop},
    family::Family,
    wire::Protocol,
};

/// Whose socket it is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The host's: its client is the node.
    Host,
    /// A pod's: which address it is going to have is not known, so its packets are left to get what depends
    /// on that.
    Pod,
}

/// A socket in the middle of a call that names another end.
pub trait Socket<F: Family> {
    /// What tells it from every other socket.
    fn cookie(&self) -> [u32; 2];
    /// Whose it is.
    fn caller(&self) -> Caller;
    /// Its protocol; `None` where that is not balanced.
    fn protocol(&self) -> Option<Protocol>;
    /// The other end that the call names.
    fn peer(&self) -> Peer<F>;
    /// Makes the call name another one.
    fn set_peer(&mut self, peer: Peer<F>);
}

/// The other end of a socket.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Peer<F: Family> {
    /// Its address.
    pub addr: F::Addr,
    /// Its port, network byte order.
    pub port: u16,
}

/// What is remembered of sockets.
pub trait Sockets<F: Family>: Tables<F> {
    /// The other end.
    fn socket(&self, key: &SocketKey<F>) -> Option<SocketRow<F>>;
    /// Remembers one; whether it could.
    fn keep_socket(&self, key: SocketKey<F>, row: SocketRow<F>) -> bool;
}

/// What becomes of a call.
#[must_use]
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// It goes on, to where the socket now says.
    Granted,
    /// What packets would be rejected for: ECONNREFUSED.
    Refused,
    /// What packets would be dropped for: EHOSTUNREACH, since waiting would not help.
    Unreachable,
}

/// `connect()`: from here on the kernel knows the backend alone.
#[inline(always)]
pub fn connect<F: Family, S: Socket<F>, T: Sockets<F>>(socket: &mut S, tables: &T) -> Access {
    let outcome = connected(socket, tables);
    access(tables, socket.caller(), outcome)
}

/// `sendto()` and the like, of a socket that is not connected. It keeps its backend of each frontend
/// while that serves.
#[inline(always)]
pub fn send<F: Family, S: Socket<F>, T: Sockets<F>>(socket: &mut S, tables: &T) -> Access {
    let outcome = sent(socket, tables);
    access(tables, socket.caller(), outcome)
}

/// `recvfrom()` and `getpeername()`: the application is shown the frontend that it named.
#[inline(always)]
pub fn shown<F: Family, S: Socket<F>, T: Sockets<F>>(socket: &mut S, tables: &T) {
    let peer = socket.peer();
    if !tables.prefilter(prefilter_hash(peer.addr, peer.port)) {
        return;
    }
    if let Some(row) = tables.socket(&key_of(socket, peer, SocketEnd::Backend)) {
        socket.set_peer(Peer { addr: row.addr, port: row.port });
    }
}

/// Counts what is about services, and says what it means for the caller.
#[inline(always)]
fn access<F: Family, T: Tables<F>>(tables: &T, caller: Caller, outcome: Result<Event, Stop>) -> Access {
    let why = match outcome {
        Err(Stop::NotOurs | Stop::NoFrontend) => return Access::Granted,
        // A pod's packets come to the path, which knows more: a server that is its own client through a
        // service answers to the service's address, and only the flow tells that from a call there.
        Err(_) if caller == Caller::Pod => return Access::Granted,
        Err(why) => why,
        Ok(event) => {
            tables.count(event.into());
            return Access::Granted;
        }
    };
    tables.count(why.into());
    match why.ending() {
        Ending::Reject => Access::Refused,
        Ending::Drop => Access::Unreachable,
        Ending::Pass => Access::Granted,
    }
}

#[inline(always)]
fn connected<F: Family, S: Socket<F>, T: Sockets<F>>(socket: &mut S, tables: &T) -> Result<Event, Stop> {
    let flow = flow_of(socket, tables)?;
    let target = select::target(tables, &flow)?;
    let (id, backend) = choose(socket, tables, &flow, target)?;
    remember(socket, tables, id, backend)?;
    socket.set_peer(Peer { addr: backend.addr, port: backend.port });
    Ok(Event::SocketConnected)
}

#[inline(always)]
fn sent<F: Family, S: Socket<F>, T: Sockets<F>>(socket: &mut S, tables: &T) -> Result<Event, Stop> {
    let flow = flow_of(socket, tables)?;
    let target = select::target(tables, &flow)?;
    let key = key_of(socket, socket.peer(), SocketEnd::Frontend);
    let known = tables.socket(&key);
    if let Some(known) = known
        && let Some(backend) = serving(tables, known.backend, target.service)
    {
        // The row of the way back may have been evicted, or be another frontend's by now.
        remember(socket, tables, known.backend, backend)?;
        socket.set_peer(Peer { addr: backend.addr, port: backend.port });
        return Ok(Event::SocketSent);
    }
    let (id, backend) = choose(socket, tables, &flow, target)?;
    remember(socket, tables, id, backend)?;
    let row = SocketRow { backend: id, addr: backend.addr, port: backend.port, reserved: 0 };
    if !tables.keep_socket(key, row) {
        return Err(Stop::TableFull);
    }
    socket.set_peer(Peer { addr: backend.addr, port: backend.port });
    Ok(if known.is_some() { Event::SocketMoved } else { Event::SocketSent })
}

/// The call as a flow: of the node, from any port, since the socket may not have one yet.
#[inline(always)]
fn flow_of<F: Family, S: Socket<F>, T: Tables<F>>(socket: &S, tables: &T) -> Result<FlowKey<F>, Stop> {
    let (peer, protocol) = (socket.peer(), socket.protocol().ok_or(Stop::NotOurs)?);
    // Resolvers connect to port 0 to learn which address they would have. Nothing is ever sent there.
    if peer.port == 0 {
        return Err(Stop::NotOurs);
    }
    if !tables.prefilter(prefilter_hash(peer.addr, 0)) {
        let unassigned = is_unassigned::<F, T>(tables, peer.addr);
        return Err(if unassigned { Stop::UnassignedVip } else { Stop::NotOurs });
    }
    Ok(FlowKey {
        src: F::host(tables.settings()),
        dst: peer.addr,
        src_port: tables.random() as u16,
        dst_port: peer.port,
        zone: 0,
        protocol: protocol as u16,
    })
}

/// A backend for a new flow. Rows that are replaced meanwhile are looked at again: an application does not
/// try again as a packet's sender does.
#[inline(always)]
fn choose<'a, F: Family, S: Socket<F>, T: Tables<F>>(
    socket: &S,
    tables: &'a T,
    flow: &FlowKey<F>,
    target: select::Target,
) -> Result<(BackendRef, &'a BackendRow<F>), Stop> {
    let client = match socket.caller() {
        Caller::Host => select::Client::Known,
        Caller::Pod => select::Client::Unknown,
    };
    for attempt in 0..select::TRIES {
        let offer = match select::offer(tables, flow, target, client, select::Among::All) {
            Err(Stop::Unsettled) => continue,
            offer => offer?,
        };
        let Some(choice) = select::backend(tables, &offer, attempt) else { continue };
        if offer.keep {
            select::keep(tables, flow.src, target.service, choice.backend);
        }
        return Ok((choice.backend, choice.row));
    }
    Err(Stop::Unsettled)
}

/// The backend that a socket of UDP had, if it still serves the service.
#[inline(always)]
fn serving<F: Family, T: Tables<F>>(tables: &T, backend: BackendRef, service: u32) -> Option<&BackendRow<F>> {
    let (word, row) = tables.backend(backend.low)?;
    (word.state().keeps(Protocol::Udp) && word.0.generation == backend.generation && row.service == service)
        .then_some(row)
}

/// Remembers which frontend a socket named when it was given a backend.
#[inline(always)]
fn remember<F: Family, S: Socket<F>, T: Sockets<F>>(
    socket: &S,
    tables: &T,
    id: BackendRef,
    backend: &BackendRow<F>,
) -> Result<(), Stop> {
    let frontend = socket.peer();
    let key = key_of(socket, Peer { addr: backend.addr, port: backend.port }, SocketEnd::Backend);
    let row = SocketRow { backend: id, addr: frontend.addr, port: frontend.port, reserved: 0 };
    if tables.socket(&key) == Some(row) || tables.keep_socket(key, row) {
        Ok(())
    } else {
        Err(Stop::TableFull)
    }
}

#[inline(always)]
fn key_of<F: Family, S: Socket<F>>(socket: &S, peer: Peer<F>, end: SocketEnd) -> SocketKey<F> {
    SocketKey { cookie: socket.cookie(), addr: peer.addr, port: peer.port, end: end as u16 }
}
