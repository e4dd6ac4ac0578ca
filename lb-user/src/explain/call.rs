//! The call that is asked about where the client is a process of the host: a socket's `connect()`.

use std::net::SocketAddr;

use lb_common::{
    family::Family,
    path::{Caller, Peer, Socket},
    wire::Protocol as Transport,
};

use crate::{compile::Frontend, model::Protocol};

/// A socket that nobody has seen, naming its other end.
pub struct Call<F: Family> {
    protocol: Protocol,
    peer: Peer<F>,
}

impl<F: Family> Call<F> {
    /// `connect()` to a frontend; `None`: it is of another family.
    pub fn new(to: Frontend) -> Option<Self> {
        let peer = Peer { addr: F::from_ip(to.address)?, port: to.port.to_be() };
        Some(Call { protocol: to.protocol, peer })
    }

    /// The other end as it is now.
    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(F::to_ip(self.peer.addr), u16::from_be(self.peer.port))
    }
}

impl<F: Family> Socket<F> for Call<F> {
    fn cookie(&self) -> [u32; 2] {
        [0; 2]
    }

    fn caller(&self) -> Caller {
        Caller::Host
    }

    fn protocol(&self) -> Option<Transport> {
        Transport::from_number(self.protocol.number())
    }

    fn peer(&self) -> Peer<F> {
        self.peer
    }

    fn set_peer(&mut self, peer: Peer<F>) {
        self.peer = peer;
    }
}
