//! Following the world. An event only says that something has changed: then everything is read
//! again. So an overrun of the socket, where events are lost, needs no path of its own.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use anyhow::{Context as _, Result};
use netlink_packet_route::neighbour::{NeighbourFlags, NeighbourState};
use rtnetlink::Handle;
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink, recv, socket_with, sockopt,
};
use tokio::{
    io::unix::AsyncFd,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{dump, world::World};

/// Multicast groups of linux/rtnetlink.h as bits: link, neighbour, IPv4 addresses and routes, IPv6 addresses and
/// routes.
const GROUPS: u32 = 1 | 1 << 2 | 1 << 4 | 1 << 6 | 1 << 8 | 1 << 10;
/// Between an event and reading: a new device comes with several.
const SETTLE: Duration = Duration::from_millis(10);
/// Between two readings, on a host where something always changes.
const PAUSE: Duration = Duration::from_millis(100);
/// Without any event, in case one was never sent.
const RESYNC: Duration = Duration::from_secs(300);
/// Bytes of events that may wait.
const BUFFER: usize = 1 << 20;

/// Follows the namespace it was started in.
pub struct Watcher {
    events: AsyncFd<OwnedFd>,
    handle: Handle,
    world: World,
    read: Instant,
    /// An event has come and nothing has been read since.
    pending: bool,
}

impl Watcher {
    /// Listens first, then reads, so that nothing between is missed.
    pub async fn start() -> Result<(Watcher, World)> {
        // SAFETY: an `OwnedFd` is the same open descriptor as long as it lives.
        let events = unsafe { AsyncFd::register(listen().context("opening a netlink socket")?) }?;
        let (connection, handle, _) = rtnetlink::new_connection().context("opening a netlink socket")?;
        tokio::spawn(connection);
        let world = dump::world(&handle).await?;
        Ok((Watcher { events, handle, world: world.clone(), read: Instant::now(), pending: false }, world))
    }

    /// The world as last read.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Returns when the world has changed. May be dropped and called again.
    pub async fn changed(&mut self) -> Result<()> {
        loop {
            // No event for a long time is a reason to look, too.
            if !self.pending
                && let Ok(ready) = timeout(RESYNC, self.events.readable()).await
            {
                ready.context("waiting for netlink events")?.clear_ready();
            }
            self.pending = true;
            sleep(SETTLE).await;
            sleep_until(self.read + PAUSE).await;
            drain(self.events.get_ref());
            let mut world = dump::world(&self.handle).await?;
            (self.read, self.pending) = (Instant::now(), false);
            world.remember(&self.world);
            if world != self.world {
                self.world = world;
                return Ok(());
            }
        }
    }

    /// Asks the kernel to find a neighbour whose port is not known (`ip neigh ... use`); the answer
    /// comes as a change. A MAC that is behind no port is of somebody who left: it is forgotten first,
    /// as the kernel would go on using it for seconds.
    pub async fn resolve(&self, ifindex: u32, address: IpAddr) -> Result<()> {
        let known = self.world.neighbours.get(&(ifindex, address));
        if known.is_some_and(|neighbour| !neighbour.permanent) {
            let mut request = self.handle.neighbours().add(ifindex, address);
            let message = std::mem::take(request.message_mut());
            // The kernel may have forgotten it by itself.
            let _ = self.handle.neighbours().del(message).execute().await;
        }
        let request = self.handle.neighbours().add(ifindex, address);
        let request = request.state(NeighbourState::None).flags(NeighbourFlags::Use).replace();
        request.execute().await.context("asking the kernel for a neighbour")
    }
}

fn listen() -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    // Without the right to force it, the system's limit applies, which is enough.
    let _ = sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER);
    bind(&socket, &netlink::SocketAddrNetlink::new(0, GROUPS))?;
    Ok(socket)
}

/// Reads away what waits, whatever it says; an overrun (ENOBUFS) is no different.
fn drain(socket: &OwnedFd) {
    let mut buffer = vec![0u8; 1 << 16];
    loop {
        match recv(socket.as_fd(), &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok(_) | Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}
