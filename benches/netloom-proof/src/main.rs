//! Proves the address protocol, one kind of proof a subcommand; `cargo xtask prove` calls them all.
#![forbid(unsafe_code)]
#![allow(
    clippy::struct_excessive_bools,
    reason = "flags of a command line are what they are"
)]
#![allow(clippy::print_stdout, reason = "a program that talks to a terminal")]

mod commands;
mod histories_command;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use netloom_proof::model::{self, Effort, ModelReport, Plan, Planted};
use serde::Serialize;

/// Simulated hosts make and drop records without end.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    proof: Proof,
}

#[derive(Debug, Subcommand)]
enum Proof {
    /// Walk through all states of the protocol's model, planted bugs and impossible promises included.
    Model(ModelArgs),
    /// Run the real code of many hosts in a simulated world, one run a seed.
    Sim(commands::SimArgs),
    /// Simulate many hosts at once: a power cut, and half of the hosts dying.
    Scale(commands::ScaleArgs),
    /// Tell one run of the simulation in words.
    Replay(commands::ReplayArgs),
    /// Run hosts on real stores under faults, and check what they were told.
    Histories(histories_command::HistoriesArgs),
    /// One host of such a run.
    #[command(hide = true)]
    Host(histories_command::OneHostArgs),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Walks {
    /// Seconds.
    Quick,
    /// Minutes.
    Full,
}

#[derive(Debug, Args)]
struct ModelArgs {
    /// How much to walk through.
    #[arg(long, value_enum, default_value_t = Walks::Full)]
    walks: Walks,
    /// Threads of a walk.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// A walk that takes longer is not a pass.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().proof {
        Proof::Model(args) => prove_model(&args),
        Proof::Sim(args) => commands::sim(&args),
        Proof::Scale(args) => commands::scale(&args),
        Proof::Replay(args) => Ok(commands::replay(&args)),
        Proof::Histories(args) => histories_command::histories(&args),
        Proof::Host(args) => histories_command::host(args),
    }
}

/// What `model` found.
#[derive(Debug, Serialize)]
struct ModelResults {
    passed: bool,
    walks: Vec<ModelReport>,
    planted: Vec<ModelReport>,
    cannot_be_promised: Vec<ModelReport>,
}

fn prove_model(args: &ModelArgs) -> anyhow::Result<ExitCode> {
    let effort = Effort {
        threads: args.threads,
        limit: Duration::from_secs(args.minutes.saturating_mul(60)),
    };
    let walk = |plan: Plan| {
        let report = model::run(plan, effort);
        if !args.json {
            print(&report);
        }
        report
    };
    let plans = match args.walks {
        Walks::Quick => Plan::quick(),
        Walks::Full => Plan::full(),
    };
    let walks: Vec<_> = plans.into_iter().map(walk).collect();
    let planted: Vec<_> = Planted::ALL.map(Plan::with).map(walk).into();
    let impossible = [Plan::unwitnessed(), Plan::undone_word(), Plan::false_word()];
    let cannot_be_promised: Vec<_> = impossible.map(walk).into();
    let mut must_fail = planted.iter().chain(&cannot_be_promised);
    let results = ModelResults {
        passed: walks.iter().all(ModelReport::holds) && must_fail.all(ModelReport::does_harm),
        walks,
        planted,
        cannot_be_promised,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&results)?);
    }
    Ok(ExitCode::from(u8::from(!results.passed)))
}

fn print(report: &ModelReport) {
    let ModelReport {
        plan,
        states,
        steps,
        seconds,
        ..
    } = report;
    let verdict = if report.holds() {
        "holds".to_owned()
    } else {
        let broken: Vec<&str> = report
            .violations
            .iter()
            .map(|found| found.property)
            .collect();
        format!("broken: {broken:?}, never met: {:?}", report.never_met)
    };
    let planted = plan
        .planted
        .map_or_else(String::new, |planted| format!(" {planted:?}"));
    println!(
        "{}{planted}: {states} states, {steps} steps, {seconds} s: {verdict}",
        plan.name
    );
}
