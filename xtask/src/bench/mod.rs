//! `cargo xtask bench`.

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Options {}

/// Not yet.
pub fn bench(_: &Options) -> anyhow::Result<()> {
    anyhow::bail!("no benchmarks yet")
}
