//! Who listens on the host's own addresses. A frontend there would take calls away from a process of the
//! host (CVE-2020-8554), so it is refused as long as one listens; docker-proxy aside, which only stands in
//! for what a host port does.

use std::net::{IpAddr, SocketAddr};

use procfs::{
    net::{TcpState, UdpState},
    process::{FDTarget, all_processes},
};

use crate::{compile::Frontend, model::Protocol};

/// A process whose listening is no reason against a frontend.
const STAND_IN: &str = "docker-proxy";

/// The sockets that are listened on, as they were at one moment.
#[derive(Debug)]
pub struct PortConflicts {
    sockets: Vec<Socket>,
}

#[derive(Clone, Copy, Debug)]
struct Socket {
    protocol: Protocol,
    at: SocketAddr,
    inode: u64,
}

impl PortConflicts {
    /// Those of this network namespace. What can't be read is taken for nothing: only a reason to refuse
    /// is lost.
    pub fn now() -> PortConflicts {
        let tcp = procfs::net::tcp().into_iter().chain(procfs::net::tcp6()).flatten();
        let tcp = tcp.filter(|entry| entry.state == TcpState::Listen);
        let tcp = tcp.map(|entry| (Protocol::Tcp, entry.local_address, entry.inode));
        let udp = procfs::net::udp().into_iter().chain(procfs::net::udp6()).flatten();
        // Connected sockets hear only whom they are connected to.
        let udp = udp.filter(|entry| entry.state != UdpState::Established);
        let udp = udp.map(|entry| (Protocol::Udp, entry.local_address, entry.inode));
        let sockets = tcp.chain(udp).map(|(protocol, at, inode)| Socket { protocol, at, inode }).collect();
        PortConflicts { sockets }
    }

    /// The process that a frontend at one of the host's addresses would take calls from, in words.
    pub fn holder(&self, frontend: &Frontend) -> Option<String> {
        let hears = |socket: &&Socket| {
            let ip = socket.at.ip();
            // An IPv6 socket that is bound to every address hears IPv4, too, unless it asked not to.
            let everywhere = ip.is_unspecified() && (ip.is_ipv6() || frontend.address.is_ipv4());
            (socket.protocol, socket.at.port()) == (frontend.protocol, frontend.port)
                && (everywhere || same(ip, frontend.address))
        };
        self.who(hears)
    }

    /// The process that listens on a port at whatever address, in words.
    pub fn holder_of(&self, protocol: Protocol, port: u16) -> Option<String> {
        self.who(|socket| (socket.protocol, socket.at.port()) == (protocol, port))
    }

    fn who(&self, hears: impl FnMut(&&Socket) -> bool) -> Option<String> {
        let inodes: Vec<u64> = self.sockets.iter().filter(hears).map(|socket| socket.inode).collect();
        if inodes.is_empty() {
            return None;
        }
        let holders = holders(&inodes);
        match holders.first() {
            None => Some("a process".to_owned()),
            Some(_) if holders.iter().all(|(name, _)| name == STAND_IN) => None,
            Some((name, pid)) => Some(format!("{name} (process {pid})")),
        }
    }
}

fn same(bound: IpAddr, address: IpAddr) -> bool {
    bound.to_canonical() == address
}

/// Names and ids of the processes that have one of these sockets open.
fn holders(inodes: &[u64]) -> Vec<(String, i32)> {
    let has = |process: &procfs::process::Process| {
        let open = process.fd().into_iter().flatten().flatten();
        open.into_iter().any(|fd| matches!(fd.target, FDTarget::Socket(inode) if inodes.contains(&inode)))
    };
    let processes = all_processes().into_iter().flatten().flatten().filter(has);
    processes.filter_map(|process| Some((process.stat().ok()?.comm, process.pid))).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn frontend(protocol: Protocol, address: &str, port: u16) -> Frontend {
        Frontend { address: address.parse().expect("an address"), port, protocol }
    }

    #[test]
    fn who_listens_is_found_by_address_port_and_protocol() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        let udp = UdpSocket::bind("[::]:0").expect("a port");
        let [tcp_port, udp_port] = [tcp.local_addr(), udp.local_addr()].map(|at| at.expect("bound").port());
        let port_conflicts = PortConflicts::now();

        let holder =
            port_conflicts.holder(&frontend(Protocol::Tcp, "127.0.0.1", tcp_port)).expect("this test");
        assert!(holder.ends_with(&format!("(process {})", std::process::id())), "{holder}");
        assert_eq!(port_conflicts.holder(&frontend(Protocol::Tcp, "127.0.0.2", tcp_port)), None);
        assert_eq!(port_conflicts.holder(&frontend(Protocol::Udp, "127.0.0.1", tcp_port)), None);
        for address in ["192.168.1.11", "fd00:1::11"] {
            assert!(
                port_conflicts.holder(&frontend(Protocol::Udp, address, udp_port)).is_some(),
                "{address}"
            );
            assert_eq!(port_conflicts.holder(&frontend(Protocol::Tcp, address, udp_port)), None);
        }
    }
}
