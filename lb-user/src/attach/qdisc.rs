//! Looking for filters, and taking away a clsact queueing discipline. aya adds one but removes none, and whether
//! others use it is only counted here, so that a filter which nobody can decode counts as well.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use aya::programs::TcAttachType;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, send, socket};

/// Parent of the clsact queueing discipline of a device.
const CLSACT: u32 = 0xffff_fff1;
/// Parents of its filters: at ingress and at egress.
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;
/// The attribute that names the kind of a queueing discipline: its length, its type, the name, padding.
const KIND: &[u8] = &[11, 0, 1, 0, b'c', b'l', b's', b'a', b'c', b't', 0, 0];

/// Removes the clsact queueing discipline of a device unless filters are on it; whether it is gone.
pub fn remove_unused(ifindex: u32) -> io::Result<bool> {
    // No protocol is the first one: NETLINK_ROUTE.
    let socket = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    for parent in [INGRESS, EGRESS] {
        let filters = Object { ifindex, parent, ..Object::default() };
        if request(&socket, libc::RTM_GETTFILTER, libc::NLM_F_DUMP, filters, &[])? {
            return Ok(false);
        }
    }
    let clsact = Object { ifindex, parent: CLSACT, ..Object::default() };
    match request(&socket, libc::RTM_DELQDISC, libc::NLM_F_ACK, clsact, KIND) {
        // Somebody else has removed or replaced it.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => Ok(true),
        done => done.map(|_| true),
    }
}

/// Whether a device has the filter with that priority and handle, for all protocols.
pub fn has_filter(ifindex: u32, direction: TcAttachType, priority: u16, handle: u32) -> io::Result<bool> {
    let socket = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    let parent = if matches!(direction, TcAttachType::Egress) { EGRESS } else { INGRESS };
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    let info = u32::from(priority) << 16 | u32::from(protocol);
    match request(&socket, libc::RTM_GETTFILTER, 0, Object { ifindex, handle, parent, info }, &[]) {
        // No such filter, no clsact, no such device.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)) => {
            Ok(false)
        }
        found => found,
    }
}

/// What a request is about: the members of tcmsg in linux/rtnetlink.h.
#[derive(Clone, Copy, Default)]
struct Object {
    ifindex: u32,
    handle: u32,
    parent: u32,
    /// Of filters: priority above, protocol in network order below.
    info: u32,
}

/// Sends a request; whether the answer is, or begins with, something that was asked for.
fn request(socket: &OwnedFd, kind: u16, flags: i32, object: Object, attributes: &[u8]) -> io::Result<bool> {
    let mut message = Vec::new();
    let flags = (libc::NLM_F_REQUEST | flags) as u16;
    // nlmsghdr: length (below), type, flags, sequence and sender.
    message.extend([0; 4]);
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    // tcmsg: family and padding, device, handle, parent, info.
    message.extend([0; 4]);
    for member in [object.ifindex, object.handle, object.parent, object.info] {
        message.extend(member.to_ne_bytes());
    }
    message.extend(attributes);
    let len = (message.len() as u32).to_ne_bytes();
    message[..4].copy_from_slice(&len);
    send(socket.as_fd(), &message, SendFlags::empty())?;

    let mut answer = vec![0; 1 << 16];
    let (len, _) = recv(socket.as_fd(), &mut answer[..], RecvFlags::empty())?;
    let field = |at: usize| answer[..len].get(at..).and_then(|rest| rest.first_chunk::<4>());
    let (Some(header), Some(error)) = (field(4), field(16)) else {
        return Err(io::Error::other("a short answer of netlink"));
    };
    match i32::from(u16::from_ne_bytes([header[0], header[1]])) {
        libc::NLMSG_DONE => Ok(false),
        libc::NLMSG_ERROR => match i32::from_ne_bytes(*error) {
            0 => Ok(false),
            error => Err(io::Error::from_raw_os_error(-error)),
        },
        _ => Ok(true),
    }
}
