//! The first process of the guest.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    mount::{MountFlags, mount},
    system::{RebootCommand, finit_module, reboot, uname},
};

use super::{FAILED, PASSED};
use crate::{
    lab::{self, Lab},
    run::{Extent, demonstrate},
    setup::say,
};

/// The agent in the guest.
pub(super) const LB: &str = "/bin/lb";
/// The modules to load, one a line.
pub(super) const MODULES: &str = "/modules";

/// Readies the machine, runs the demonstration, says how it went and ends the machine.
pub fn guest() -> Result<()> {
    if std::process::id() != 1 {
        bail!("`guest` is what `cargo xtask old-kernel` starts inside its machine");
    }
    match ready().and_then(|()| demonstration()) {
        Ok(()) => println!("{PASSED}"),
        Err(error) => println!("{FAILED}: {error:#}"),
    }
    // The machine is started so that this ends it.
    reboot(RebootCommand::Restart).context("ending the machine")
}

fn ready() -> Result<()> {
    for (kind, path) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
        ("bpf", "/sys/fs/bpf"),
    ] {
        mount(kind, path, kind, MountFlags::empty(), None).with_context(|| format!("mounting {path}"))?;
    }
    // Where `ip` keeps its namespaces.
    symlink("/run", "/var/run")?;
    let modules = fs::read_to_string(MODULES).with_context(|| format!("reading {MODULES}"))?;
    for module in modules.lines() {
        let file = File::open(module).with_context(|| format!("opening {module}"))?;
        finit_module(file, c"", 0).with_context(|| format!("loading {module}"))?;
    }
    Ok(())
}

fn demonstration() -> Result<()> {
    say(&format!("Linux {}", uname().release().to_string_lossy()));
    let lab = Lab::new(lab::PREFIX);
    lab.up()?;
    demonstrate(&lab, Path::new(LB), Extent::Short)
}
