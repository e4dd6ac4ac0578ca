//! What a packet costs in the program itself, by kind of packet: measured by programs of the tests,
//! which know how to make every kind.

use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use crate::{build::cargo, setup::say};

/// The table of nanoseconds per packet, with the verifier's effort.
pub fn measure(quick: bool) -> Result<String> {
    say("program cost: nanoseconds per packet by kind");
    run("program-cost", &[], quick)
}

/// What a measuring program of the tests prints.
pub fn run(name: &str, options: &[&str], quick: bool) -> Result<String> {
    let mut command = cargo();
    command.args(["run", "--quiet", "--package", "lb-tests", "--bin", name, "--"]).args(options);
    if quick {
        command.arg("--quick");
    }
    let output = command.stderr(Stdio::inherit()).output().context("running cargo")?;
    if !output.status.success() {
        bail!("measuring the program's cost failed ({})", output.status);
    }
    String::from_utf8(output.stdout).context("reading the program's cost")
}
