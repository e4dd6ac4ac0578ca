//! Installing what is missing.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{FlockOperation, flock};

use crate::{
    LINKER_VERSION, RUSTUP_TOOLCHAIN, Toolchain,
    find::{compiler, find, linker, tools},
};

/// Brings what [`find`] misses and says what it does. What can't be done here is named with the
/// commands a person must run.
pub fn install(say: &mut dyn FnMut(&str)) -> Result<Toolchain> {
    if compiler().is_none() {
        bring_compiler(say)?;
    }
    if linker().is_none() {
        bring_linker(say)?;
    }
    find()
}

fn bring_compiler(say: &mut dyn FnMut(&str)) -> Result<()> {
    let root = rustix::process::geteuid().is_root();
    // Debian's own rustc and rustup packages conflict with the one we need.
    let conflict = Path::new("/var/lib/dpkg/info/rustup.list").exists();
    if root && !conflict && packaged() {
        say("installing rustc-web and libstd-rust-web-dev-bpf (Debian packages, about 120 MB)");
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").args(["install", "-y", "--no-install-recommends"]);
        return run(apt.args(["rustc-web", "libstd-rust-web-dev-bpf"]));
    }
    if Command::new("rustup").arg("--version").output().is_ok_and(|output| output.status.success()) {
        say(&format!("installing the rustup toolchain {RUSTUP_TOOLCHAIN} with rust-src"));
        let mut rustup = Command::new("rustup");
        return run(rustup.args([
            "toolchain",
            "install",
            RUSTUP_TOOLCHAIN,
            "--profile",
            "minimal",
            "-c",
            "rust-src",
        ]))
        .or_else(|_| find().map(drop));
    }
    find().map(drop)
}

/// Whether apt knows the packages; it is asked to look first where it does not.
fn packaged() -> bool {
    let known = || {
        let policy = Command::new("apt-cache").args(["policy", "libstd-rust-web-dev-bpf"]).output();
        policy.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("Candidate: 1."))
    };
    known() || {
        let updated = run(Command::new("apt-get").args(["update", "-qq"]));
        updated.is_ok() && known()
    }
}

fn bring_linker(say: &mut dyn FnMut(&str)) -> Result<()> {
    let root = tools();
    fs::create_dir_all(&root).with_context(|| format!("making {}", root.display()))?;
    // Two checkouts may be at it.
    let lock = fs::File::create(root.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    if linker().is_some() {
        return Ok(());
    }
    say(&format!("building bpf-linker {LINKER_VERSION} (about two minutes, once for this user)"));
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    crate::build::clean_environment(&mut cargo);
    cargo
        .args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--force", "--root"])
        .arg(&root);
    cargo.arg("--target-dir").arg(root.join("build")).current_dir(&root);
    run(&mut cargo)?;
    let _ = fs::remove_dir_all(root.join("build"));
    Ok(())
}

/// Runs a command to its end, its output shown only if it fails.
fn run(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}").replace('"', "");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("running `{shown}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let tail: Vec<&str> = said.lines().rev().take(15).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("`{shown}` failed; run it by hand to see more:\n{}", tail.join("\n"));
    }
    Ok(())
}
