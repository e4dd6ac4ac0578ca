//! Multicast groups in which neighbours ask for IPv6 addresses that are announced at uplinks (RFC 4291 section 2.7.1).
//! A NIC passes on those alone that somebody on the host has joined. The kernel leaves them when this process ends.

use std::{
    collections::BTreeSet,
    io,
    net::Ipv6Addr,
    os::fd::{AsFd as _, OwnedFd},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};
use tracing::warn;

/// Those joined, by device (interface index).
#[derive(Default)]
pub struct Groups {
    joined: BTreeSet<(u32, Ipv6Addr)>,
    /// Who is a member.
    socket: Option<OwnedFd>,
}

impl Groups {
    /// Joins the groups of these addresses and leaves all others. What can't be joined is said, and not tried again
    /// before it has left the `addresses`.
    pub fn update(&mut self, addresses: &BTreeSet<(u32, Ipv6Addr)>) {
        let wanted: BTreeSet<_> =
            addresses.iter().map(|(device, at)| (*device, solicited_node(*at))).collect();
        for (device, group) in self.joined.difference(&wanted) {
            if let Some(socket) = &self.socket {
                // Left already where its device is gone.
                let _ = sockopt::set_ipv6_drop_membership(socket, group, *device);
            }
        }
        for (device, group) in wanted.difference(&self.joined) {
            if let Err(error) = join(&mut self.socket, *device, group) {
                warn!(
                    "joining {group} at device {device}: {error}; its NIC may not hear who asks for neighbours"
                );
            }
        }
        self.joined = wanted;
    }
}

fn join(socket: &mut Option<OwnedFd>, device: u32, group: &Ipv6Addr) -> io::Result<()> {
    let member = match socket {
        Some(member) => member,
        None => {
            socket.insert(socket_with(AddressFamily::INET6, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?)
        }
    };
    Ok(sockopt::set_ipv6_add_membership(member.as_fd(), group, device)?)
}

/// The group in which an address is asked for.
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | high & 0xff, low)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 4291.
    #[test]
    fn the_group_of_an_address() {
        let group = solicited_node("4037::01:800:200e:8c6c".parse().expect("an address"));
        assert_eq!(group.to_string(), "ff02::1:ff0e:8c6c");
    }
}
