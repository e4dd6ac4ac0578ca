//! XDP by netlink: why it is refused, in the kernel's words, for which links of bpf(2) have only numbers; and
//! programs that stay without a link.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use crate::{bpf, netlink::Raw};

/// `IFLA_XDP` of linux/if_link.h, with the bit of nested attributes.
const XDP: u16 = 43 | 1 << 15;
/// `IFLA_XDP_FD`.
const FD: u16 = 1;
/// `IFLA_XDP_FLAGS`.
const FLAGS: u16 = 3;
/// `XDP_FLAGS_UPDATE_IF_NOEXIST`.
const IF_NOT_EXISTS: u32 = 1;

/// Tries once more to attach a program of XDP that has just been refused, for the kernel's words.
pub fn refusal(ifindex: u32, flags: u32) -> Option<String> {
    let program = bpf::pass_xdp().ok()?;
    match set(ifindex, Some(program.as_fd()), flags | IF_NOT_EXISTS).ok()? {
        Some(why) => Some(why),
        None => {
            // It is attached after all, without a link: not what was asked for.
            let _ = set(ifindex, None, flags);
            None
        }
    }
}

/// Makes a program of XDP that of a device in the network namespace of this thread, or takes it away; `flags` are those
/// of linux/if_link.h. It stays as long as the device. Why it is refused, if it is.
///
/// # Errors
/// When the kernel can't be asked.
pub fn set(ifindex: u32, program: Option<BorrowedFd<'_>>, flags: u32) -> io::Result<Option<String>> {
    let route = Raw::new(None)?;
    route.explain()?;
    // struct ifinfomsg: family, padding, type, index, flags, change.
    let mut body = vec![0; 16];
    body[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    let mut nested = Vec::new();
    let fd = program.map_or(-1, |program| program.as_raw_fd());
    for (kind, value) in [(FD, fd.to_ne_bytes()), (FLAGS, flags.to_ne_bytes())] {
        nested.extend(8_u16.to_ne_bytes());
        nested.extend(kind.to_ne_bytes());
        nested.extend(value);
    }
    body.extend((4 + nested.len() as u16).to_ne_bytes());
    body.extend(XDP.to_ne_bytes());
    body.extend(nested);
    route.request(libc::RTM_SETLINK, libc::NLM_F_ACK, &body)?;
    route.refusal()
}
