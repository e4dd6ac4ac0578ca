//! The kernel object under test.

use std::{env, fs, path::PathBuf};

use anyhow::{Context, Result};

/// The programs of tc, in the order of their names.
pub const PROGRAMS: [&str; 6] =
    ["bridge_egress", "bridge_ingress", "port_egress", "port_ingress", "uplink_egress", "uplink_ingress"];

/// The program of XDP.
pub const XDP: &str = "uplink_xdp";

/// Bytes of the object that `LB_OBJECT` names, or else of the one that is part of `lb`: building
/// lb-user, which these tests depend on, has left it in the workspace.
///
/// # Errors
/// When there is none; the message says how to get one.
pub fn object() -> Result<Vec<u8>> {
    let path = match env::var_os("LB_OBJECT") {
        Some(path) => PathBuf::from(path),
        None => {
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/bpfel-unknown-none/release/lb-ebpf")
        }
    };
    fs::read(&path).with_context(|| {
        format!("no kernel object at {}: run `cargo xtask build`, or name one in LB_OBJECT", path.display())
    })
}
