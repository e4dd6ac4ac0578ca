//! The `lb` binary.

use std::process::ExitCode;

use lb_user::cli::Cli;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    Cli::run().await
}
