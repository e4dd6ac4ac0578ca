//! bpf(2), for programs of a few instructions.

use std::{
    io,
    os::fd::{FromRawFd as _, OwnedFd},
};

/// `BPF_PROG_LOAD` of linux/bpf.h.
pub const PROG_LOAD: libc::c_int = 5;

/// Loads a program of that type of linux/bpf.h.
pub fn load(kind: u64, program: &[u64]) -> io::Result<OwnedFd> {
    let license = c"GPL";
    // prog_type, insn_cnt; insns; license
    let load = [kind | (program.len() as u64) << 32, program.as_ptr() as u64, license.as_ptr() as u64];
    bpf(PROG_LOAD, &load)
}

/// Carries a command out that answers with a descriptor.
pub fn bpf(command: libc::c_int, attributes: &[u64]) -> io::Result<OwnedFd> {
    let mut union = [0u64; 18];
    union[..attributes.len()].copy_from_slice(attributes);
    // SAFETY: a zeroed union larger than the kernel's, whose pointers are to live memory.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, union.as_ptr(), size_of_val(&union)) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the kernel has just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
