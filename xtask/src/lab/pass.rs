//! A program of XDP that passes everything on, for the far ends of wires at whose near ends XDP sends: a veth
//! takes what XDP at its other end sends back, but looks after it at once only with a program of its own
//! (`veth_xdp_flush` in drivers/net/veth.c).

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketType, netdevice::name_to_index, recv, send, socket,
};

use crate::bpf;

/// `BPF_PROG_TYPE_XDP` of linux/bpf.h.
const XDP: u64 = 6;
/// `IFLA_XDP` of linux/if_link.h, with the bit of nested attributes.
const ATTRIBUTE: u16 = 43 | 1 << 15;
/// `IFLA_XDP_FD`.
const FD: u16 = 1;

/// Attaches it to devices of the network of this thread. It stays as long as they do.
pub fn attach(devices: &[&str]) -> io::Result<()> {
    // r0 = XDP_PASS; exit
    let program = bpf::load(XDP, &[0xb7 | 2 << 32, 0x95])?;
    // No protocol is the first one: NETLINK_ROUTE.
    let route = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    for device in devices {
        let ifindex = name_to_index(&route, device)?;
        // nlmsghdr: length, type, flags, sequence, sender; ifinfomsg: family, type, index, flags, change; then the
        // descriptor, in an attribute in an attribute.
        let mut message = Vec::new();
        message.extend(44_u32.to_ne_bytes());
        message.extend(libc::RTM_SETLINK.to_ne_bytes());
        message.extend(((libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16).to_ne_bytes());
        message.extend([0; 12]);
        message.extend(ifindex.to_ne_bytes());
        message.extend([0; 8]);
        for (len, kind) in [(12_u16, ATTRIBUTE), (8, FD)] {
            message.extend(len.to_ne_bytes());
            message.extend(kind.to_ne_bytes());
        }
        message.extend(program.as_raw_fd().to_ne_bytes());
        send(route.as_fd(), &message, SendFlags::empty())?;
        let mut answer = [0; 256];
        let (len, _) = recv(route.as_fd(), &mut answer[..], RecvFlags::empty())?;
        let error = answer[..len].get(16..).and_then(|rest| rest.first_chunk());
        match error.map_or(-libc::EIO, |error| i32::from_ne_bytes(*error)) {
            0 => {}
            error => return Err(io::Error::from_raw_os_error(-error)),
        }
    }
    Ok(())
}
