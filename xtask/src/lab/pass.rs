//! A program of XDP that passes everything on, for the far ends of wires at whose near ends XDP sends: a veth
//! takes what XDP at its other end sends back, but looks after it at once only with a program of its own
//! (`veth_xdp_flush` in drivers/net/veth.c).

use std::{io, os::fd::AsFd as _};

use lb_sys::{bpf, xdp};
use rustix::net::{AddressFamily, SocketType, netdevice::name_to_index, socket};

/// Attaches it to devices of the network of this thread. It stays as long as they do.
pub fn attach(devices: &[&str]) -> io::Result<()> {
    let program = bpf::pass_xdp()?;
    let any = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    for device in devices {
        if let Some(why) = xdp::set(name_to_index(&any, device)?, Some(program.as_fd()), 0)? {
            return Err(io::Error::other(why));
        }
    }
    Ok(())
}
