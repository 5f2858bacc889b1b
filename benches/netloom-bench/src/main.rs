//! Measures Netloom beside its peers, in one run.
//!
//! Goals: figures that are ratios of rows of one run, the same flat JSON form in every bench, gates
//! that a loaded machine does not break. Not goals: absolute figures that compare across machines.
#![deny(unsafe_code)]

mod alloc;
mod clock;
mod cluster;
mod durable;
mod heap;
mod report;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Allocation in memory: netloom-alloc beside sets of other crates.
    Alloc(alloc::Args),
    /// Instructions per allocation, counted by callgrind and compared with the recorded ones.
    AllocInstructions(alloc::instructions::Args),
    /// Durable allocation: netloom-ipam and its journal beside a raw write and embedded stores.
    Durable(durable::Args),
    /// Addresses of many hosts on one real store, beside the store's own limits and the old design.
    Cluster(cluster::Args),
    /// One of the hosts of `cluster`; it is told everything on its standard input.
    #[command(hide = true)]
    ClusterWorker,
}

fn main() -> anyhow::Result<std::process::ExitCode> {
    match Cli::parse().bench {
        Bench::Alloc(args) => alloc::run(&args),
        Bench::AllocInstructions(args) => alloc::instructions::run(&args),
        Bench::Durable(args) => durable::run(&args),
        Bench::Cluster(args) => cluster::run(&args),
        Bench::ClusterWorker => cluster::worker::run(),
    }
}
