//! `cargo xtask bench`: hands over to netloom-bench, built for speed.

use anyhow::Result;
use clap::ValueEnum;

use crate::repo;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// Allocation in memory beside its peers
    Alloc,
    /// Durable allocation beside a raw synchronised write
    Durable,
}

impl What {
    const fn word(self) -> &'static str {
        match self {
            Self::Alloc => "alloc",
            Self::Durable => "durable",
        }
    }
}

/// Runs the bench with the rest of the words.
pub(crate) fn run(what: What, rest: &[String]) -> Result<bool> {
    let mut command = repo::cargo();
    command.args([
        "run",
        "--quiet",
        "--release",
        "-p",
        "netloom-bench",
        "--",
        what.word(),
    ]);
    command.args(rest);
    Ok(command.status()?.success())
}
