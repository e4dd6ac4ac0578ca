//! What `ping` and `traceroute` do.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use xtask::lab::request::any;

fn raw(ipv6: bool) -> Result<Socket> {
    Ok(if ipv6 {
        Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?
    } else {
        Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?
    })
}

/// Messages that arrive until `timeout`, with their senders, until `wanted` is one.
fn hear(socket: &Socket, timeout: Duration, wanted: impl Fn(IpAddr, &[u8]) -> bool) -> Result<IpAddr> {
    let (start, ipv6) = (Instant::now(), socket.domain()? == Domain::IPV6);
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    while start.elapsed() < timeout {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 2048];
        let (len, from) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.into()),
        };
        // SAFETY: so many bytes have been received.
        let packet: Vec<u8> = buffer[..len].iter().map(|byte| unsafe { byte.assume_init() }).collect();
        // The kernel has checked ICMPv6's checksum; IPv4's packets come whole and unchecked.
        let message = if ipv6 { &packet[..] } else { &packet[20..] };
        ensure!(ipv6 || sum(message) == 0, "a message with a wrong checksum: {message:02x?}");
        let Some(from) = from.as_socket() else { continue };
        if wanted(from.ip(), message) {
            return Ok(from.ip());
        }
    }
    bail!("nothing within {timeout:?}")
}

/// The checksum over an even number of bytes, 0 if it is among them.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}

/// An echo request that is answered, from whom it was sent to.
pub fn echo(to: IpAddr, timeout: Duration) -> Result<()> {
    let socket = raw(to.is_ipv6())?;
    let (request, reply) = if to.is_ipv6() { (128, 129) } else { (8, 0) };
    let mut message = [&[request, 0, 0, 0, 0x4c, 0x42, 0, 1][..], &[0xa5; 56]].concat();
    // The kernel does so for ICMPv6.
    if to.is_ipv4() {
        let check = sum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&check);
    }
    socket.send_to(&message, &SockAddr::from(SocketAddr::new(to, 0)))?;
    hear(&socket, timeout, |from, heard| from == to && heard[0] == reply && heard[4..] == message[4..])?;
    Ok(())
}

/// Who sends an error about a datagram to `to` with so few hops; the error quotes what was sent.
pub fn traced(to: SocketAddr, hops: u32, timeout: Duration) -> Result<IpAddr> {
    let listener = raw(to.is_ipv6())?;
    let socket = UdpSocket::bind(any(to, 0))?;
    if to.is_ipv6() {
        Socket::from(socket.try_clone()?).set_unicast_hops_v6(hops)?;
    } else {
        socket.set_ttl(hops)?;
    }
    socket.send_to(b"how far?", to)?;
    let ports = [socket.local_addr()?.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    let called = match to.ip() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let (kinds, transport) = if to.is_ipv6() { ([1, 3], 48) } else { ([3, 11], 28) };
    hear(&listener, timeout, |_, heard| {
        kinds.contains(&heard[0])
            && heard.len() >= transport + 8
            && heard[transport..][..4] == ports
            && heard[transport - called.len()..transport] == called
    })
}

/// A packet of `size` bytes that no router may divide is too big: the second time the stack knows.
pub fn too_big(to: SocketAddr, size: usize, timeout: Duration) -> Result<()> {
    let socket = UdpSocket::bind(any(to, 0))?;
    let (level, option, headers) = if to.is_ipv6() {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, 48)
    } else {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, 28)
    };
    let value = libc::IP_PMTUDISC_DO;
    // SAFETY: an int that outlives the call.
    let set = unsafe {
        let value = (&raw const value).cast();
        libc::setsockopt(socket.as_raw_fd(), level, option, value, size_of::<libc::c_int>() as u32)
    };
    ensure!(set == 0, "{}", std::io::Error::last_os_error());
    socket.connect(to)?;
    let (start, payload) = (Instant::now(), vec![0xa5; size - headers]);
    while start.elapsed() < timeout {
        match socket.send(&payload) {
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok(_) => sleep(Duration::from_millis(50)),
        }
    }
    bail!("sent, again and again")
}
