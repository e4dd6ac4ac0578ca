//! What a packet costs in the program itself, by kind of packet: measured by a program of the tests,
//! which knows how to make every kind.

use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use crate::{build::cargo, setup::say};

/// The table of nanoseconds per packet, with the verifier's effort.
pub fn measure(quick: bool) -> Result<String> {
    say("program cost: nanoseconds per packet by kind");
    let mut command = cargo();
    command.args(["run", "--quiet", "--package", "lb-tests", "--bin", "program-cost", "--"]);
    if quick {
        command.arg("--quick");
    }
    let output = command.stderr(Stdio::inherit()).output().context("running cargo")?;
    if !output.status.success() {
        bail!("measuring the program's cost failed ({})", output.status);
    }
    String::from_utf8(output.stdout).context("reading the program's cost")
}
