//! `cargo xtask fuzz`: mutated packets at kernel and host, and inputs nobody thought of at the parsers.

mod targets;

use std::{
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build::{cargo, workspace},
    setup::{self, say},
};

/// Options of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub struct Options {
    /// How long, set-up and builds aside: 90s, 10m, 2h [default: as long as the packets take, and two minutes]
    #[arg(long, value_parser = duration)]
    time: Option<Duration>,
    /// So many mutated packets [default: ten million, or as many as the time allows]
    #[arg(long)]
    packets: Option<u64>,
    /// The same number gives the same packets and inputs [default: another each time]
    #[arg(long)]
    seed: Option<u64>,
}

/// Mutated packets without `--time` or `--packets`.
const PACKETS: u64 = 10_000_000;

/// What each target is given without `--time`.
const EACH: Duration = Duration::from_secs(60);

/// Sets up, builds, then gives mutated packets to the kernel programs and to the host, and any bytes to the
/// fuzz targets, which have one third of the time if it is limited.
///
/// # Errors
/// At a disagreement, a panic or a warning of the kernel, after everything has run.
pub fn fuzz(options: &Options) -> Result<()> {
    setup::toolchain()?;
    setup::tools()?;
    if !setup::is_root() {
        bail!("mutated packets meet programs in the kernel: run `cargo xtask fuzz` as root");
    }
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_millis() as u64);
    let seed = options.seed.unwrap_or_else(clock);
    say("building the fuzzers");
    let status = cargo()
        .args(["build", "--profile", "fuzz", "--package", "lb-tests", "--bin", "fuzz"])
        .status()
        .context("running cargo")?;
    if !status.success() {
        bail!("the build failed; `cargo xtask setup` installs what it needs");
    }
    let targets = targets::build()?;
    say(&format!("mutated packets; `--seed {seed}` repeats them"));
    let count = options.packets.unwrap_or(if options.time.is_some() { u64::MAX } else { PACKETS });
    let mut packets = Command::new(workspace().join("target/fuzz/fuzz"));
    packets.args(["--packets", &count.to_string(), "--seed", &seed.to_string()]);
    if let Some(time) = options.time {
        packets.args(["--seconds", &(time.as_secs() * 2 / 3).to_string()]);
    }
    let status = packets.status().with_context(|| format!("running {packets:?}"))?;
    let mut failed = Vec::new();
    if !status.success() {
        failed.push("mutated packets");
    }
    let each = options.time.map_or(EACH, |time| time / 3 / targets.len() as u32);
    for target in &targets {
        say(&format!("target {}, {} s", target.name, each.as_secs()));
        if !target.run(seed, each)? {
            failed.push(target.name);
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    say("no disagreement, no panic");
    Ok(())
}

/// `90s`, `10m`, `2h`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err("write a time as 90s, 10m or 2h".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| "write a time as 90s, 10m or 2h".to_owned())?;
    let seconds = number.checked_mul(unit).ok_or("that is too long")?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let seconds = |text| duration(text).map(|time| time.as_secs());
        assert_eq!(["90", "90s", "10m", "2h"].map(seconds), [Ok(90), Ok(90), Ok(600), Ok(7_200)]);
        assert!(["", "m", "1d", "1.5h", "-1s"].into_iter().all(|text| duration(text).is_err()));
    }
}
