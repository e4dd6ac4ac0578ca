//! Why XDP is refused, in the kernel's words: links of bpf(2) have only numbers for it.

use std::io;

use super::raw::Raw;

/// `IFLA_XDP` of linux/if_link.h, with the bit of nested attributes.
const XDP: u16 = 43 | 1 << 15;
/// `IFLA_XDP_FD`.
const FD: u16 = 1;
/// `IFLA_XDP_FLAGS`.
const FLAGS: u16 = 3;
/// `XDP_FLAGS_UPDATE_IF_NOEXIST`.
const IF_NOT_EXISTS: u32 = 1;

/// Tries once more to attach a program of XDP that has just been refused, for the kernel's words.
pub fn xdp_refusal(ifindex: u32, flags: u32) -> Option<String> {
    let program = crate::attach::bpf::pass_xdp().ok()?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&program);
    let route = Raw::new(None).ok()?;
    route.explain().ok()?;
    let set = |fd: i32, flags: u32| -> io::Result<Option<String>> {
        // struct ifinfomsg: family, padding, type, index, flags, change.
        let mut body = vec![0; 16];
        body[4..8].copy_from_slice(&ifindex.to_ne_bytes());
        let mut nested = Vec::new();
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
    };
    match set(fd, flags | IF_NOT_EXISTS).ok()? {
        Some(why) => Some(why),
        None => {
            // It is attached after all, without a link: not what was asked for.
            let _ = set(-1, flags);
            None
        }
    }
}
