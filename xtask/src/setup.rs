//! Installing what building, the lab and the tests need. Nothing is assumed but cargo, git and apt.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// A program the lab or the tests call, and the Debian package it comes from.
const TOOLS: [(&str, &str); 9] = [
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("iperf3", "iperf3"),
    ("tcpdump", "tcpdump"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("bpftool", "bpftool"),
    ("curl", "curl"),
];

/// What `cargo xtask old-kernel` calls besides.
const EMULATOR: [(&str, &str); 2] = [("qemu-system-x86_64", "qemu-system-x86"), ("depmod", "kmod")];

/// Says what is being done, on its own line.
pub fn say(what: &str) {
    println!("\x1b[1m==>\x1b[0m {what}");
}

/// The tool chain of the kernel programs.
pub fn toolchain() -> Result<()> {
    lb_toolchain::install(&mut say).map(drop)
}

/// Whether this process is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Programs that the lab and the tests call.
pub fn tools() -> Result<()> {
    install(&TOOLS)
}

/// What compiles libFuzzer.
pub fn compiler() -> Result<()> {
    install(&[("c++", "g++")])
}

/// The machine for `cargo xtask old-kernel`.
pub fn emulator() -> Result<()> {
    install(&EMULATOR)
}

fn install(tools: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> =
        tools.iter().filter(|(tool, _)| !installed(tool)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    if !installed("apt-get") {
        bail!(
            "missing here: {packages} (names of Debian's packages); install them with this system's package manager"
        );
    }
    if !is_root() && !installed("sudo") {
        bail!("missing here: {packages}. As root:\n    apt-get install --no-install-recommends {packages}");
    }
    say(&format!("installing {packages} (Debian packages)"));
    let apt = |arguments: &[&str]| -> Result<()> {
        let mut apt = elevated("apt-get");
        apt.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        let status = apt.status().context("running apt-get")?;
        if !status.success() {
            bail!(
                "apt-get failed. As root:\n    apt-get update && apt-get install --no-install-recommends {packages}"
            );
        }
        Ok(())
    };
    let install: Vec<&str> =
        ["install", "-y", "-qq", "--no-install-recommends"].into_iter().chain(missing).collect();
    apt(&install).or_else(|_| apt(&["update", "-qq"]).and_then(|()| apt(&install)))
}

/// A command with root's rights: by sudo where this process has none.
pub fn elevated(program: impl AsRef<Path>) -> Command {
    let mut command = if is_root() {
        Command::new(program.as_ref())
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg(program.as_ref());
        sudo
    };
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn installed(tool: &str) -> bool {
    find(tool).is_some()
}

/// Where a program is.
pub fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(Into::into);
    std::env::split_paths(&path).chain(system).map(|dir| dir.join(tool)).find(|program| program.is_file())
}
