//! Neighbours that the kernel keeps fresh by itself (`ip neigh ... managed`, kernel 5.16): also for who
//! never sends through it, as a program at the driver.

use std::{io, net::IpAddr};

use lb_sys::netlink::Raw;

/// `NDA_DST` of linux/neighbour.h.
const DESTINATION: u16 = 1;
/// `NDA_FLAGS_EXT`.
const EXTENDED_FLAGS: u16 = 15;
/// `NTF_EXT_MANAGED`.
const MANAGED: u32 = 1;
/// `NTF_USE`: asked for once, at once. All that a kernel without managed ones does.
const USE: u8 = 1;

/// Has the kernel find a neighbour and keep it fresh.
pub fn keep_fresh(ifindex: u32, address: IpAddr) -> io::Result<()> {
    let mut body = message(ifindex, address, USE);
    attribute(&mut body, EXTENDED_FLAGS, &MANAGED.to_ne_bytes());
    send(libc::RTM_NEWNEIGH, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, &body)
}

/// Has the kernel find a neighbour (`ip neigh ... use`).
pub fn seek(ifindex: u32, address: IpAddr) -> io::Result<()> {
    send(libc::RTM_NEWNEIGH, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, &message(ifindex, address, USE))
}

/// Takes a neighbour out of the kernel's table; who needs it finds it anew. One that is not there, or whose
/// device is not, is fine.
pub fn forget(ifindex: u32, address: IpAddr) -> io::Result<()> {
    match send(libc::RTM_DELNEIGH, 0, &message(ifindex, address, 0)) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
        done => done,
    }
}

/// `struct ndmsg` and the address.
fn message(ifindex: u32, address: IpAddr, flags: u8) -> Vec<u8> {
    let (family, octets) = match address {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    };
    // Family and padding, device, state, flags, type.
    let mut body = vec![family as u8, 0, 0, 0];
    body.extend(ifindex.to_ne_bytes());
    body.extend([0, 0, flags, 0]);
    attribute(&mut body, DESTINATION, &octets);
    body
}

/// Adds a `struct rtattr`, whose value has a multiple of four bytes.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend((4 + value.len() as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}

fn send(kind: u16, flags: i32, body: &[u8]) -> io::Result<()> {
    let route = Raw::new(None)?;
    route.request(kind, libc::NLM_F_ACK | flags, body)?;
    route.answers(|_| {}).map(drop)
}
