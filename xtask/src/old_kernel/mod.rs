//! `cargo xtask old-kernel`: the demonstration on the oldest kernel that is supported, in a machine of
//! its own. Its root is an initramfs with little more than `lb`, `ip` and this program as init.

mod guest;
mod image;
mod kernel;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
pub use guest::guest;
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::{
    build::{self, workspace},
    setup::{self, say},
};

/// What the guest prints at its end.
const PASSED: &str = "lb-guest: passed";
/// What it prints instead, and why, if something went wrong.
const FAILED: &str = "lb-guest: failed";

/// How long the machine may run. An emulated one takes about a minute.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Why this host can't run it; nothing if it can.
pub fn unavailable() -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("the guest is an x86-64 machine and runs this host's programs".to_owned());
    }
    kernel::unavailable()
}

/// See the module.
pub fn old_kernel() -> Result<()> {
    if let Some(why) = unavailable() {
        bail!("not on this host: {why}");
    }
    setup::toolchain()?;
    setup::tools()?;
    setup::emulator()?;
    let kernel = kernel::fetch()?;
    let lb = build::agent()?;
    let image = workspace().join("target/old-kernel.cpio");
    image::write(&image, &kernel, &lb)?;
    say(&format!("the demonstration on {} in qemu", kernel.release));
    let passed = boot(&kernel.image, &image)?;
    fs::remove_file(&image).with_context(|| format!("removing {}", image.display()))?;
    if !passed {
        bail!("the demonstration failed on {}", kernel.release);
    }
    Ok(())
}

/// Runs the machine to its end, its console shown; whether the guest says that all went well.
fn boot(kernel: &Path, image: &Path) -> Result<bool> {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1024"]);
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"]);
    qemu.args(["-append", "console=ttyS0 quiet panic=-1 -- guest", "-kernel"]).arg(kernel);
    qemu.arg("-initrd").arg(image).stdin(Stdio::null()).stdout(Stdio::piped());
    // SAFETY: between fork and exec, only a system call.
    unsafe {
        qemu.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
    let mut qemu = qemu.spawn().context("starting qemu-system-x86_64")?;
    let console = qemu.stdout.take().context("qemu has no console")?;
    let console = thread::spawn(move || {
        let mut passed = false;
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            println!("{}", line.trim_end());
            passed |= line.trim_end() == PASSED;
        }
        passed
    });
    let ended = wait(&mut qemu);
    let passed = console.join().map_err(|_| anyhow!("reading the guest's console failed"))?;
    ended.map(|()| passed)
}

/// Waits for the machine's end, which is made if it takes too long.
fn wait(qemu: &mut Child) -> Result<()> {
    let start = Instant::now();
    loop {
        if let Some(status) = qemu.try_wait()? {
            return if status.success() { Ok(()) } else { Err(anyhow!("qemu ended with {status}")) };
        }
        if start.elapsed() > TIMEOUT {
            qemu.kill().context("ending qemu")?;
            qemu.wait()?;
            bail!("the guest did not end within {} s, so it was stopped", TIMEOUT.as_secs());
        }
        thread::sleep(Duration::from_millis(50));
    }
}
