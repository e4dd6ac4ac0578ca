//! `cargo xtask test`: all tests.

use anyhow::{Context as _, Result, bail};

use crate::{
    build::{self, cargo},
    old_kernel,
    setup::{self, say},
};

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Options {
    /// Only tests whose name contains this
    filter: Option<String>,
    /// The end-to-end tests that take minutes, and nothing else
    #[arg(long)]
    long: bool,
}

/// Sets up, builds, then runs every test: those of the crates, the packet cases on the host and in the
/// kernel, the end-to-end tests on lab bridges, and the demonstration on an old kernel.
pub fn test(options: &Options) -> Result<()> {
    setup::toolchain()?;
    setup::tools()?;
    let lb = build::agent()?;
    if !setup::is_root() {
        bail!("tests load programs and make network namespaces: run `cargo xtask test` as root");
    }
    say("running the tests");
    let mut tests = cargo();
    tests.env("LB_BINARY", lb);
    if options.long {
        tests.args(["test", "--package", "lb-tests", "--test", "e2e"]);
    } else {
        // All that fails is shown at once.
        tests.args(["test", "--workspace", "--exclude", "lb-ebpf", "--no-fail-fast"]);
    }
    tests.args(&options.filter);
    if options.long {
        tests.args(["--", "--ignored"]);
    }
    let status = tests.status().context("running cargo")?;
    if !status.success() {
        bail!("tests failed");
    }
    match (&options.filter, old_kernel::unavailable()) {
        _ if options.long => Ok(()),
        (Some(_), _) => Ok(()),
        (None, Some(why)) => {
            say(&format!("skipped: the demonstration on Linux 6.1 ({why})"));
            Ok(())
        }
        (None, None) => old_kernel::old_kernel(),
    }
}
