//! Sockets that send and receive whole frames at a device (packet(7)), and filters of what sockets receive (classic BPF).

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with},
};

/// An instruction of a filter: its code, how many to leave out if it is so, and its operand.
pub fn step(code: u32, so: u8, operand: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: so, jf: 0, k: operand }
}

/// Lets through to a socket what a filter takes.
pub fn filter(socket: BorrowedFd<'_>, steps: &mut [libc::sock_filter]) -> io::Result<()> {
    let filter = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    let size = size_of_val(&filter) as libc::socklen_t;
    // SAFETY: the kernel reads the filter, whose size is given, and its steps, which live until it returns.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A socket for frames with one EtherType at one device.
pub struct Frames(OwnedFd);

impl Frames {
    /// Receives from now on what the filter takes of what comes in there.
    ///
    /// # Errors
    /// Among others, `EPERM` without CAP_NET_RAW.
    pub fn at(ifindex: u32, ether_type: u16, steps: &mut [libc::sock_filter]) -> io::Result<Frames> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Of no protocol, it receives nothing before it has its filter.
        let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
        filter(socket.as_fd(), steps)?;
        // SAFETY: all of it may be zero.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = ether_type.to_be();
        address.sll_ifindex = ifindex as i32;
        let size = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the kernel reads an address of that size.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) };
        if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(Frames(socket)) }
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        send(&self.0, frame, SendFlags::DONTWAIT)?;
        Ok(())
    }

    /// The next frame, as far as there is room; `None`: none waits.
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        match recv(&self.0, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((len, _)) => Ok(Some(&buffer[..len])),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Frames {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
