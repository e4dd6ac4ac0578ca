//! What the hook can do at best: programs that redirect every packet to the other pod and look at
//! nothing.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};

use crate::{bpf, lab::Lab};

/// Commands and types of linux/bpf.h.
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_PROG_TYPE_SCHED_CLS: u64 = 3;
const BPF_TCX_INGRESS: u64 = 46;
const BPF_FUNC_REDIRECT_PEER: u64 = 155;

/// Puts the programs on the ports of red and blue. They go when the value is dropped.
pub fn attach(lab: &Lab) -> Result<[OwnedFd; 2]> {
    let attached = lab.within("node", || {
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None)?;
        let ifindex = |name| rustix::net::netdevice::name_to_index(&socket, name).map(u64::from);
        let (red, blue) = (ifindex("veth-red")?, ifindex("veth-blue")?);
        Ok::<_, io::Error>([redirect(red, blue)?, redirect(blue, red)?])
    })?;
    attached.context("attaching the programs of the limit")
}

/// A link that sends what comes in at `from` into the pod behind `to`.
fn redirect(from: u64, to: u64) -> io::Result<OwnedFd> {
    // r1 = to; r2 = 0; call bpf_redirect_peer; exit
    let program: [u64; 4] = [0x1b7 | to << 32, 0x2b7, 0x85 | BPF_FUNC_REDIRECT_PEER << 32, 0x95];
    let program = bpf::load(BPF_PROG_TYPE_SCHED_CLS, &program)?;
    // prog_fd, target_ifindex; attach_type, flags
    bpf::bpf(BPF_LINK_CREATE, &[program.as_raw_fd() as u64 | from << 32, BPF_TCX_INGRESS])
}
