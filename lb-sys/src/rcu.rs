//! Waiting until no program can still read what has just been unpublished.

use std::io;

/// `MEMBARRIER_CMD_GLOBAL` of linux/membarrier.h.
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;

/// Returns after every kernel program that ran when it was called has ended: the command waits for an
/// RCU grace period (membarrier(2)), and programs run inside RCU read-side sections.
pub fn wait_for_readers() -> io::Result<()> {
    // SAFETY: a system call without pointers.
    match unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
