//! Requests to the kernel that rtnetlink has no words for.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

/// `NLMSGERR_ATTR_MSG` of linux/netlink.h.
const MESSAGE: u16 = 1;
/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;

/// A netlink socket for the network namespace of the thread that made it.
pub struct Raw(OwnedFd);

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

    /// Has the kernel say why it refuses, in words.
    pub fn explain(&self) -> io::Result<()> {
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            let on: libc::c_int = 1;
            let size = size_of_val(&on) as libc::socklen_t;
            // SAFETY: the kernel reads an integer of that size.
            let set = unsafe {
                libc::setsockopt(self.0.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const on).cast(), size)
            };
            if set < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }

    /// Receives the answer to a request that changes something; why it is refused, if it is. After
    /// [`Self::explain`], which also keeps the request out of the answer.
    pub fn refusal(&self) -> io::Result<Option<String>> {
        let mut buffer = vec![0; 1 << 12];
        let (len, _) = recv(self.0.as_fd(), &mut buffer[..], RecvFlags::empty())?;
        // The answer's header, the error, the request's header, then attributes.
        let error = buffer[..len].get(HEADER..).and_then(|rest| rest.first_chunk());
        let error = error.map_or(-libc::EIO, |error| i32::from_ne_bytes(*error));
        if error == 0 {
            return Ok(None);
        }
        let mut rest = buffer[..len].get(2 * HEADER + 4..).unwrap_or_default();
        while let Some([size, more, low, high]) = rest.first_chunk::<4>() {
            let size = (u16::from_ne_bytes([*size, *more]) as usize).clamp(4, rest.len());
            if u16::from_ne_bytes([*low, *high]) == MESSAGE {
                let text = String::from_utf8_lossy(&rest[4..size]);
                return Ok(Some(text.trim_end_matches('\0').to_owned()));
            }
            rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(Some(io::Error::from_raw_os_error(-error).to_string()))
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
