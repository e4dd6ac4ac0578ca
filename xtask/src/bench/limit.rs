//! What the hook can do at best: programs that redirect every packet to the other pod and look at
//! nothing.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};

use lb_sys::bpf::{self, Kind};

use crate::lab::Lab;

/// `bpf_redirect_peer` of linux/bpf.h.
const BPF_FUNC_REDIRECT_PEER: u64 = 155;

/// Puts the programs on the ports of red and blue. They go when the value is dropped.
pub fn attach(lab: &Lab) -> Result<[OwnedFd; 2]> {
    let attached = lab.within("node", || {
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None)?;
        let ifindex = |name| rustix::net::netdevice::name_to_index(&socket, name);
        let (red, blue) = (ifindex("veth-red")?, ifindex("veth-blue")?);
        Ok::<_, io::Error>([redirect(red, blue)?, redirect(blue, red)?])
    })?;
    attached.context("attaching the programs of the limit")
}

/// A link that sends what comes in at `from` into the pod behind `to`.
fn redirect(from: u32, to: u32) -> io::Result<OwnedFd> {
    // r1 = to; r2 = 0; call bpf_redirect_peer; exit
    let program: [u64; 4] = [0x1b7 | u64::from(to) << 32, 0x2b7, 0x85 | BPF_FUNC_REDIRECT_PEER << 32, 0x95];
    let program = bpf::load(Kind::Tc, &program)?;
    bpf::link_tcx(program.as_fd(), from)
}
