//! `cargo xtask`: see `cargo xtask --help`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{bench, build, fuzz, lab, old_kernel, run, setup, test};

/// Everything there is to do with this project, each from a fresh machine.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sets up, builds, brings up a lab, balances its services and shows that it works; with
    /// `--bridge B --config F`: the agent on this host's own bridge
    Run(run::Options),
    /// All tests: host, kernel, end to end
    Test(test::Options),
    /// Mutated packets at kernel and host, any bytes at the parsers: do they agree, does nothing panic?
    Fuzz(fuzz::Options),
    /// Throughput and connection rates: direct, limit and lb side by side
    Bench(bench::Options),
    /// The kernel object and target/release/lb, nothing else
    Build,
    /// Installs what building, the lab and the tests need
    Setup,
    /// Runs the demonstration on Debian's 6.1 kernel, in qemu
    OldKernel,
    /// What old-kernel starts inside
    #[command(hide = true)]
    Guest,
    /// The lab's network alone
    #[command(subcommand)]
    Lab(lab::Command),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(options) => run::run(&options),
        Command::Test(options) => test::test(&options),
        Command::Fuzz(options) => fuzz::fuzz(&options),
        Command::Bench(options) => bench::bench(&options),
        Command::Build => {
            setup::toolchain().and_then(|()| build::agent()).map(|path| println!("{}", path.display()))
        }
        Command::Setup => setup::toolchain().and_then(|()| setup::tools()),
        Command::OldKernel => old_kernel::old_kernel(),
        Command::Guest => old_kernel::guest(),
        Command::Lab(command) => lab::command(&command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
