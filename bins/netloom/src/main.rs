//! The command `netloom`: what operators see of the daemon, and what they tell it.
//!
//! It speaks the local API, and, for `netloom store`, a store itself. Exit codes: 0 all is well, 1 it failed, 2 the command
//! line was wrong, 3 an audit or the doctor found something.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command talks to its terminal"
)]

mod args;
mod cluster;
mod commands;
mod documents;
mod render;
mod store;

use args::Cli;
use clap::Parser;
use std::process::ExitCode;

/// What the command came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// All is well.
    Fine,
    /// Something was found that is not as it should be.
    Findings,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match commands::run(cli).await {
        Ok(Verdict::Fine) => ExitCode::SUCCESS,
        Ok(Verdict::Findings) => ExitCode::from(3),
        Err(error) => {
            eprintln!("netloom: {}", render::chain(&error));
            ExitCode::FAILURE
        }
    }
}
