//! What the running system says.

use std::io;

use anyhow::{Result, bail};
use rustix::{
    process::{Resource, getrlimit, setrlimit},
    thread::{CapabilitySet, capabilities},
};

/// Files that the agent opens at the same time on a host of some bridges: maps, programs, sockets.
const OPEN_FILES: u64 = 256;

/// The system's word behind an error.
pub fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<io::ErrorKind> {
    match error.downcast_ref::<io::Error>() {
        Some(error) => Some(error.kind()),
        None => io_kind(error.source()?),
    }
}

/// Major and minor number of the running kernel; (0, 0) if it does not say.
pub fn kernel_version() -> (u32, u32) {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The kernel attaches classifiers by tcx links (6.6).
pub fn has_tcx() -> bool {
    kernel_version() >= (6, 6)
}

/// What this process may not do of what the agent does: names of capabilities(7).
pub fn missing_capabilities() -> Vec<&'static str> {
    // Where the kernel does not tell, trying will.
    let held = capabilities(None).map_or(CapabilitySet::all(), |sets| sets.effective);
    // CAP_SYS_ADMIN stands for each of them (and did so alone before 5.8).
    let needed = [
        ("CAP_BPF", CapabilitySet::BPF),
        ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
        ("CAP_PERFMON", CapabilitySet::PERFMON),
    ];
    let missing = needed.iter().filter(|(_, one)| !held.intersects(*one | CapabilitySet::SYS_ADMIN));
    missing.map(|(name, _)| *name).collect()
}

/// Lets this process have as many files open as the system allows it.
///
/// # Errors
/// These are fewer than the agent needs.
pub fn raise_open_files() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    if let Some(most) = limit.maximum.filter(|most| *most < OPEN_FILES) {
        bail!(
            "at most {most} files may be open, but {OPEN_FILES} are needed; allow more (`ulimit -n`, systemd: \
             LimitNOFILE=)"
        );
    }
    limit.current = limit.maximum;
    // With fewer than all it works as well.
    let _ = setrlimit(Resource::Nofile, limit);
    Ok(())
}
