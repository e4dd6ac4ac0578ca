//! Tagged packets on a bridge. Kernels need not have VLAN devices: both ends are packet sockets.

use std::{
    io::{self, Read as _},
    mem::{size_of_val, zeroed},
    net::IpAddr,
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use etherparse::{PacketBuilder, VlanId};
use socket2::{Domain, Protocol, Socket, Type};
use xtask::lab::Pod;

use crate::{
    Test,
    bed::{Bed, service, vip},
};

pub const ALL: &[Test] = &[("a tagged request", tagged_request)];

const TEXT: &[u8] = b"what a tagged client says";

/// Every packet of this thread's namespace.
fn packets() -> Result<Socket> {
    let all = Protocol::from((libc::ETH_P_ALL as u16).to_be() as i32);
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(all)).context("a packet socket")?;
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    Ok(socket)
}

/// Sends a frame out of `eth0` of this thread's namespace.
pub fn send(frame: &[u8]) -> Result<()> {
    // SAFETY: a string that ends with zero.
    let index = unsafe { libc::if_nametoindex(c"eth0".as_ptr()) };
    // SAFETY: plain data, for which zero is valid.
    let mut to: libc::sockaddr_ll = unsafe { zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_ifindex = index as i32;
    let socket = packets()?;
    let length = size_of_val(&to) as u32;
    // SAFETY: the frame and the address live over the call.
    let sent = unsafe {
        let data = frame.as_ptr().cast();
        libc::sendto(socket.as_raw_fd(), data, frame.len(), 0, (&raw const to).cast(), length)
    };
    ensure!(sent == frame.len() as isize, "sending a frame: {}", io::Error::last_os_error());
    Ok(())
}

/// It is translated, and the bridge delivers it.
fn tagged_request() -> Result<()> {
    let bed = Bed::new(&[])?;
    bed.answered("red", service::BLUE, &["blue"], 1)?;
    let (red, blue) = (Pod::ALL[0], Pod::ALL[1]);
    for (ipv6, from, backend) in [(false, red.ipv4(), blue.ipv4()), (true, red.ipv6(), blue.ipv6())] {
        let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 7], [2, 0, 0, 0, 0, 1])
            .single_vlan(VlanId::try_new(10).context("a VLAN's number")?);
        let ip = match (from, vip(ipv6, service::BLUE, 90).ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => link.ipv4(from.octets(), to.octets(), 64),
            (IpAddr::V6(from), IpAddr::V6(to)) => link.ipv6(from.octets(), to.octets(), 64),
            _ => unreachable!("addresses of one family"),
        };
        let mut frame = Vec::new();
        ip.udp(40_000, 90).write(&mut frame, TEXT)?;
        let mut seen = bed.lab().within("blue", packets)??;
        bed.lab().within("red", move || send(&frame))??;
        let address = match backend {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        // The tag is beside the bytes here, too.
        let expected = [&address[..], &40_000u16.to_be_bytes(), &9090u16.to_be_bytes()].concat();
        let start = Instant::now();
        let mut buffer = [0; 2048];
        loop {
            let len = seen.read(&mut buffer).with_context(|| format!("no request at {backend}"))?;
            let frame = &buffer[..len];
            if frame.ends_with(TEXT) && frame.windows(expected.len()).any(|part| part == expected) {
                break;
            }
            ensure!(start.elapsed() < Duration::from_secs(3), "no request at {backend}");
        }
    }
    Ok(())
}
