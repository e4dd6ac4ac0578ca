//! The UDP sockets of this network namespace that are connected, and the end of some of them
//! (sock_diag(7)).

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use rustix::net::netlink;

use crate::netlink::Raw;

/// `SOCK_DIAG_BY_FAMILY` of linux/sock_diag.h.
const BY_FAMILY: u16 = 20;
/// `SOCK_DESTROY`.
const DESTROY: u16 = 21;
/// A set of states with `TCP_ESTABLISHED` alone, which is what a connected UDP socket is in.
const CONNECTED: u32 = 1 << 1;
/// Where `struct inet_diag_sockid` begins in `struct inet_diag_msg`.
const ID_AT: usize = 4;
/// Its bytes: ports, addresses, interface, cookie.
const ID: usize = 48;

/// Where the parts of it are that we read.
const DESTINATION_PORT: usize = 2;
const DESTINATION: usize = 20;
const COOKIE: usize = 40;

/// One of them.
pub struct UdpSocket {
    family: u8,
    id: [u8; ID],
}

impl UdpSocket {
    /// What tells it from every other socket, and where it is connected to.
    pub fn connection(&self) -> (u64, SocketAddr) {
        let half = |at| u32::from_ne_bytes(self.bytes(at)) as u64;
        let ip = match self.family as i32 {
            libc::AF_INET => IpAddr::from(self.bytes::<4>(DESTINATION)),
            // Also an IPv4 address, of a socket that can do both.
            _ => IpAddr::from(self.bytes::<16>(DESTINATION)).to_canonical(),
        };
        let port = u16::from_be_bytes(self.bytes(DESTINATION_PORT));
        (half(COOKIE) | half(COOKIE + 4) << 32, SocketAddr::new(ip, port))
    }

    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        self.id[at..].first_chunk().copied().unwrap_or([0; N])
    }
}

/// A socket that asks the kernel about sockets.
pub struct Diag(Raw);

impl Diag {
    /// For the network namespace of this thread.
    pub fn new() -> io::Result<Diag> {
        Ok(Diag(Raw::new(Some(netlink::SOCK_DIAG))?))
    }

    /// The UDP sockets that are connected.
    pub fn connected(&self) -> io::Result<Vec<UdpSocket>> {
        let mut found = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            self.request(BY_FAMILY, libc::NLM_F_DUMP, family as u8, &[0; ID])?;
            while !self.0.answers(|message| {
                let id = message.get(ID_AT..).and_then(|rest| rest.first_chunk());
                found.extend(id.map(|id| UdpSocket { family: message[0], id: *id }));
            })? {}
        }
        Ok(found)
    }

    /// Ends a socket: it is not connected any more, and whoever receives from it hears ECONNABORTED once.
    /// Whether it was there.
    pub fn destroy(&self, socket: &UdpSocket) -> io::Result<bool> {
        self.request(DESTROY, libc::NLM_F_ACK, socket.family, &socket.id)?;
        match self.0.answers(|_| {}) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            answer => answer.map(|_| true),
        }
    }

    fn request(&self, kind: u16, flags: i32, family: u8, id: &[u8; ID]) -> io::Result<()> {
        // inet_diag_req_v2: family, protocol, no extensions, padding, states, id.
        let mut body = Vec::with_capacity(8 + ID);
        body.extend([family, libc::IPPROTO_UDP as u8, 0, 0]);
        body.extend(CONNECTED.to_ne_bytes());
        body.extend(id);
        self.0.request(kind, flags, &body)
    }
}
