//! Building with the cargo that runs us.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::setup::say;

/// The workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_owned)
}

/// A cargo command in the workspace.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace());
    cargo
}

/// Builds the agent, kernel object inside; its path.
pub fn agent() -> Result<PathBuf> {
    say("building target/release/lb");
    let status =
        cargo().args(["build", "--release", "--package", "lb-user"]).status().context("running cargo")?;
    if !status.success() {
        bail!("the build failed; `cargo xtask setup` installs what it needs");
    }
    let path = workspace().join("target/release/lb");
    path.is_file().then_some(path).ok_or_else(|| anyhow!("cargo built no target/release/lb"))
}
