//! What the running system says.

use std::io;

use rustix::thread::{CapabilitySet, capabilities};

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
