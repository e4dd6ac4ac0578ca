//! Requests to the kernel that rtnetlink has no words for.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;

/// A netlink socket for the network namespace of the thread that made it.
pub(super) struct Raw(OwnedFd);

impl Raw {
    /// For one of netlink's protocols.
    pub fn new(protocol: Option<Protocol>) -> io::Result<Raw> {
        let flags = SocketFlags::CLOEXEC;
        Ok(Raw(socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?))
    }

    /// Sends a request.
    pub fn request(&self, kind: u16, flags: i32, body: &[u8]) -> io::Result<()> {
        let len = HEADER + body.len();
        let mut message = Vec::with_capacity(len);
        // nlmsghdr: length, type, flags, sequence and sender.
        message.extend((len as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        send(self.0.as_fd(), &message, SendFlags::empty())?;
        Ok(())
    }

    /// Receives once and hands on each answer; whether it was the last.
    pub fn answers(&self, mut each: impl FnMut(&[u8])) -> io::Result<bool> {
        let mut buffer = vec![0; 1 << 16];
        let (len, _) = recv(self.0.as_fd(), &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..len];
        while let Some(header) = rest.first_chunk::<HEADER>() {
            let word =
                |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
            let len = (word(0) as usize).clamp(HEADER, rest.len());
            let body = &rest[HEADER..len];
            match (word(4) & 0xffff) as i32 {
                libc::NLMSG_DONE => return Ok(true),
                libc::NLMSG_ERROR => {
                    let error = body.first_chunk().map_or(libc::EIO, |bytes| -i32::from_ne_bytes(*bytes));
                    return if error == 0 { Ok(true) } else { Err(io::Error::from_raw_os_error(error)) };
                }
                _ => each(body),
            }
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(false)
    }
}
