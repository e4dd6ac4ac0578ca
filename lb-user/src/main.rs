//! The `lb` binary.

use std::process::ExitCode;

use lb_user::cli::Cli;

fn main() -> ExitCode {
    Cli::run()
}
