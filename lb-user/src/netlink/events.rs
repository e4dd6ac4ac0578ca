//! What has changed, as the kernel tells it to everybody who listens. Only keys are taken from that: what holds
//! for them is asked. What gets lost in a flood is everything of its kind.

use std::{
    collections::HashSet,
    hash::Hash,
    io,
    net::IpAddr,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use ipnet::IpNet;
use lb_sys::packet::{filter, step};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink, recv, socket_with, sockopt},
};

use super::{kernel::first, questions};

/// Messages that are read before they count as a flood.
const FLOOD: usize = 4096;

/// Some, or all there are.
#[derive(Debug)]
pub(super) enum Changed<T> {
    /// These.
    Some(HashSet<T>),
    /// Nobody knows which.
    All,
}

impl<T: Eq + Hash> Changed<T> {
    fn add(&mut self, one: T) {
        if let Changed::Some(some) = self {
            some.insert(one);
        }
    }

    /// All there are.
    pub fn is_all(&self) -> bool {
        matches!(self, Changed::All)
    }
}

impl<T> Default for Changed<T> {
    fn default() -> Self {
        Changed::Some(HashSet::new())
    }
}

/// What has to be asked again.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Links and addresses.
    pub devices: bool,
    /// By destination.
    pub routes: Changed<IpNet>,
    /// By device and address.
    pub neighbours: Changed<(u32, IpAddr)>,
    /// Entries of forwarding tables, by bridge and MAC.
    pub forwarding: Changed<(u32, [u8; 6])>,
}

impl Changes {
    /// Everything.
    pub fn all() -> Changes {
        Changes { devices: true, routes: Changed::All, neighbours: Changed::All, forwarding: Changed::All }
    }

    fn add(&mut self, message: RouteNetlinkMessage) {
        use RouteNetlinkMessage as Message;
        match message {
            Message::NewRoute(route) | Message::DelRoute(route) => match questions::prefix(&route) {
                Some(prefix) => self.routes.add(prefix),
                None => self.routes = Changed::All,
            },
            Message::NewNeighbour(entry) | Message::DelNeighbour(entry) => {
                if let Some(address) = questions::destination(&entry) {
                    self.neighbours.add((entry.header.ifindex, address));
                } else if let (Some(bridge), Some(mac)) = (questions::bridge(&entry), questions::mac(&entry))
                {
                    self.forwarding.add((bridge, mac));
                }
            }
            _ => {}
        }
    }

    fn lost(&mut self, kind: Kind) {
        match kind {
            Kind::Devices => self.devices = true,
            Kind::Rules | Kind::Routes => self.routes = Changed::All,
            Kind::Neighbours => self.neighbours = Changed::All,
            Kind::Forwarding => self.forwarding = Changed::All,
        }
    }
}

/// What a listener hears of, each by a socket of its own: a flood of one kind drowns no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Links and addresses.
    Devices,
    /// Rules of policy routing, and next hops that routes refer to.
    Rules,
    /// Routes.
    Routes,
    /// Neighbours.
    Neighbours,
    /// Entries of bridges' forwarding tables.
    Forwarding,
}

impl Kind {
    /// Every one.
    pub const ALL: [Kind; 5] = [Kind::Devices, Kind::Rules, Kind::Routes, Kind::Neighbours, Kind::Forwarding];

    /// Multicast groups (`RTNLGRP_` of linux/rtnetlink.h).
    fn groups(self) -> &'static [u32] {
        match self {
            // Links, addresses of IPv4 and of IPv6.
            Kind::Devices => &[1, 5, 9],
            // Rules of IPv4 and of IPv6, next hops.
            Kind::Rules => &[8, 19, 32],
            Kind::Routes => &[7, 11],
            Kind::Neighbours | Kind::Forwarding => &[3],
        }
    }

    /// Bytes of messages that may wait. Of what pods and routing daemons can flood little: past it, all is asked.
    fn buffer(self) -> usize {
        match self {
            Kind::Devices => 1 << 20,
            Kind::Rules => 1 << 16,
            Kind::Routes | Kind::Neighbours | Kind::Forwarding => 1 << 18,
        }
    }
}

/// Hears of one kind of changes.
pub(super) struct Listener {
    /// Which.
    pub kind: Kind,
    socket: OwnedFd,
}

impl Listener {
    /// From now on.
    pub fn new(kind: Kind) -> io::Result<Listener> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        // Without the right to force it, the system's limit applies, which is enough.
        let _ = sockopt::set_socket_recv_buffer_size_force(&socket, kind.buffer());
        match kind {
            Kind::Neighbours => only(&socket, false)?,
            Kind::Forwarding => only(&socket, true)?,
            _ => {}
        }
        bind(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
        for group in kind.groups() {
            match join(&socket, *group) {
                // Next hops by themselves came with kernel 5.3.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) && *group == 32 => {}
                joined => joined?,
            }
        }
        Ok(Listener { kind, socket })
    }

    /// To wait for.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Reads away what waits; whether there was anything.
    pub fn read(&self, buffer: &mut [u8], changes: &mut Changes) -> bool {
        for read in 0..FLOOD {
            match recv(self.socket.as_fd(), &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((len, _)) => match self.kind {
                    Kind::Devices | Kind::Rules => changes.lost(self.kind),
                    _ => self.parse(&buffer[..len], changes),
                },
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return read > 0,
                // An overrun (ENOBUFS).
                Err(_) => changes.lost(self.kind),
            }
        }
        changes.lost(self.kind);
        true
    }

    fn parse(&self, mut bytes: &[u8], changes: &mut Changes) {
        while let Some((one, more)) = first(bytes) {
            match NetlinkMessage::<RouteNetlinkMessage>::deserialize(one).map(|one| one.payload) {
                Ok(NetlinkPayload::InnerMessage(message)) => changes.add(message),
                _ => changes.lost(self.kind),
            }
            bytes = more;
        }
    }
}

/// Lets only neighbours of bridges' forwarding tables through to a socket, or only all others: the kernel tells of
/// both in one group.
fn only(socket: &OwnedFd, forwarding: bool) -> io::Result<()> {
    /// Where the family is: at the beginning of what follows `struct nlmsghdr`.
    const FAMILY: u32 = 16;
    let take = |yes: bool| if yes { u32::MAX } else { 0 };
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, FAMILY),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, libc::AF_BRIDGE as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, take(!forwarding)),
        step(libc::BPF_RET | libc::BPF_K, 0, take(forwarding)),
    ];
    filter(socket.as_fd(), &mut steps)
}

fn join(socket: &OwnedFd, group: u32) -> io::Result<()> {
    let size = size_of_val(&group) as libc::socklen_t;
    // SAFETY: the kernel reads an integer of that size.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_ADD_MEMBERSHIP,
            (&raw const group).cast(),
            size,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
