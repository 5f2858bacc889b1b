//! `cargo xtask bench`: hands over to netloom-bench, built for speed, or to the lab.

use anyhow::Result;
use clap::ValueEnum;

use crate::{attach, repo};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// Allocation in memory beside its peers
    Alloc,
    /// Durable allocation beside a raw synchronised write
    Durable,
    /// Addresses of many hosts on one real store, beside the store's limits and the old design
    Cluster,
    /// Attaching containers beside Docker's own bridge, on a real dockerd
    Attach,
}

/// Runs the bench with the rest of the words.
pub(crate) fn run(what: What, rest: &[String]) -> Result<bool> {
    match what {
        What::Alloc => netloom_bench("alloc", rest),
        What::Durable => netloom_bench("durable", rest),
        What::Cluster => netloom_bench("cluster", rest),
        What::Attach => attach::run(rest),
    }
}

fn netloom_bench(word: &str, rest: &[String]) -> Result<bool> {
    let mut command = repo::cargo();
    command
        .args([
            "run",
            "--quiet",
            "--release",
            "-p",
            "netloom-bench",
            "--",
            word,
        ])
        .args(rest);
    Ok(command.status()?.success())
}
