//! The targets of `fuzz/`: built with the coverage that libFuzzer is led by, without cargo-fuzz and on the
//! stable compiler.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build::{cargo, workspace},
    setup,
};

/// A target that is built.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    program: PathBuf,
    seeds: PathBuf,
}

/// Each target, and the files that its inputs begin with: directories and what their files' names end in.
const TARGETS: [(&str, &[(&str, &str)]); 2] = [
    ("config", &[("examples", "yaml"), ("tests/golden", "yaml"), ("lb-user/testdata/kubernetes", "yaml")]),
    ("path", &[]),
];

/// What cargo-fuzz tells the compiler, without a sanitizer of memory: that needs a nightly compiler, and
/// there is hardly any unsafe code behind these targets.
const FLAGS: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg=fuzzing",
];

/// Builds the targets and gathers the inputs they begin with.
pub fn build() -> Result<Vec<Target>> {
    setup::compiler()?;
    let fuzz = workspace().join("fuzz");
    // The triple named, so that build scripts are built without these flags.
    let triple = host()?;
    let status = cargo()
        .current_dir(&fuzz)
        .args(["build", "--release", "--target", &triple])
        .arg("--target-dir")
        .arg(workspace().join("target/libfuzzer"))
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"))
        .status()
        .context("running cargo")?;
    if !status.success() {
        bail!("the fuzz targets do not build");
    }
    let built = workspace().join("target/libfuzzer").join(triple).join("release");
    TARGETS
        .iter()
        .map(|(name, seeds)| {
            let gathered = workspace().join("target/libfuzzer/seeds").join(name);
            gather(seeds, &gathered)?;
            Ok(Target { name, program: built.join(name), seeds: gathered })
        })
        .collect()
}

fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().context("running rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("`rustc -vV` names no host")
}

fn gather(from: &[(&str, &str)], to: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for (directory, end) in from {
        let directory = workspace().join(directory);
        let entries = fs::read_dir(&directory).with_context(|| format!("reading {}", directory.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|known| known == *end) {
                let name = path.file_name().unwrap_or_default();
                fs::copy(&path, to.join(name)).with_context(|| format!("copying {}", path.display()))?;
            }
        }
    }
    Ok(())
}

impl Target {
    /// Runs it; whether nothing was found. What was found is kept and said.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn run(&self, seed: u64, time: Duration) -> Result<bool> {
        let found = workspace().join("fuzz/artifacts").join(self.name);
        let corpus = workspace().join("fuzz/corpus").join(self.name);
        for directory in [&found, &corpus] {
            fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        }
        let status = Command::new(&self.program)
            .args([&corpus, &self.seeds])
            // libFuzzer takes 32 bits, and 0 for none.
            .arg(format!("-seed={}", (seed as u32).max(1)))
            .arg(format!("-max_total_time={}", time.as_secs().max(1)))
            .arg(format!("-artifact_prefix={}/", found.display()))
            .args(["-max_len=8192", "-timeout=10", "-print_final_stats=1", "-verbosity=1"])
            .status()
            .with_context(|| format!("running {}", self.program.display()))?;
        Ok(status.success())
    }
}
