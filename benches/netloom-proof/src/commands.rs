//! The simulation's subcommands.

use clap::Args;
use netloom_proof::sim::{self, Bug, Config, SeedReport, SimReport};
use serde::Serialize;
use std::process::ExitCode;
use std::time::Duration;

/// What `sim` is told.
#[derive(Debug, Args)]
pub(crate) struct SimArgs {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// Threads, each with its own runs.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Stop after so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Plant a bug into all runs, and stop when it is found.
    #[arg(long)]
    bug: Option<Bug>,
    /// Plant each bug in turn: every one must be found within the seeds.
    #[arg(long)]
    all_bugs: bool,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
}

/// What `replay` is told.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The seed.
    seed: u64,
    /// With a planted bug.
    #[arg(long)]
    bug: Option<Bug>,
    /// Only the end of the story: the result.
    #[arg(long)]
    short: bool,
}

/// What `scale` is told.
#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    /// Hosts.
    #[arg(long, default_value_t = 1000)]
    hosts: usize,
    /// Containers on each host.
    #[arg(long, default_value_t = 100)]
    containers: usize,
    /// Seconds over which hosts come up after the power is back.
    #[arg(long, default_value_t = 30)]
    spread: u64,
    /// Where the table goes.
    #[arg(long)]
    csv: Option<std::path::PathBuf>,
    /// Where the picture goes.
    #[arg(long)]
    svg: Option<std::path::PathBuf>,
}

/// How a planted bug was found.
#[derive(Debug, Serialize)]
struct Found {
    bug: Bug,
    found: bool,
    seeds: u64,
    seconds: f64,
    promises: Vec<sim::Promise>,
}

pub(crate) fn sim(args: &SimArgs) -> anyhow::Result<ExitCode> {
    let end = args.first.saturating_add(args.seeds);
    let seeds = args.first..end;
    if args.all_bugs || args.bug.is_some() {
        let bugs = args.bug.map_or_else(|| Bug::ALL.to_vec(), |bug| vec![bug]);
        return hunt(args, &bugs);
    }
    let limit = args.seconds.map(Duration::from_secs);
    let report = sim::run_many(seeds, args.threads, limit, &Config::default());
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        tell(&report);
    }
    Ok(ExitCode::from(u8::from(!report.holds())))
}

fn hunt(args: &SimArgs, bugs: &[Bug]) -> anyhow::Result<ExitCode> {
    let mut all = Vec::new();
    for bug in bugs {
        let end = args.first.saturating_add(args.seeds);
        let report = sim::hunt(*bug, args.first..end, args.threads);
        let found = Found {
            bug: *bug,
            found: !report.holds(),
            seeds: report.seeds,
            seconds: report.seconds,
            promises: report.broken.keys().copied().collect(),
        };
        if !args.json {
            let Found { found, seeds, .. } = &found;
            let word = if *found { "found" } else { "NOT FOUND" };
            let promises = &all_words(&report);
            println!("{bug:?}: {word} within {seeds} seeds: {promises}");
        }
        all.push(found);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    }
    let missed = all.iter().any(|found| !found.found);
    Ok(ExitCode::from(u8::from(missed)))
}

fn all_words(report: &SimReport) -> String {
    let words = report.broken.iter();
    let words = words.map(|(promise, runs)| format!("{promise:?} in {runs}"));
    words.collect::<Vec<_>>().join(", ")
}

fn tell(report: &SimReport) {
    println!(
        "{} runs from seed {} in {:.1} s: {} calls ({} refused), at least {} a run",
        report.seeds,
        report.first,
        report.seconds,
        report.operations,
        report.refused,
        report.fewest_operations
    );
    println!("kinds: {:?}", report.kinds);
    println!(
        "faults, at least {} a run: {:?}",
        report.fewest_faults, report.faults
    );
    println!(
        "store: {} reads, {} commits, {} of them with an outcome that nobody was told",
        report.reads, report.commits, report.unknown
    );
    println!("nothing promised, and noticed: {} runs", report.unpromised);
    if report.holds() {
        println!("every promise held");
        return;
    }
    println!("BROKEN: {}", all_words(report));
    report.examples.iter().for_each(tell_broken);
}

fn tell_broken(report: &SeedReport) {
    println!("seed {} ({:?}):", report.seed, report.kind);
    for broken in &report.violations {
        let at = broken.at_ms;
        println!("  {:?} at {at} ms: {}", broken.promise, broken.what);
    }
}

pub(crate) fn replay(args: &ReplayArgs) -> ExitCode {
    let config = Config {
        bug: args.bug,
        in_words: !args.short,
        ..Config::default()
    };
    let report = sim::run_seed(args.seed, &config);
    report.lines.iter().for_each(|line| println!("{line}"));
    println!(
        "seed {} ({:?}): {} calls ({} refused), faults {:?}, trace {:016x}",
        report.seed,
        report.kind,
        report.operations,
        report.refused,
        report.faults,
        report.trace_hash
    );
    tell_broken(&report);
    ExitCode::from(u8::from(!report.violations.is_empty()))
}

#[allow(clippy::print_stderr, reason = "a test tool tells how it goes")]
pub(crate) fn scale(args: &ScaleArgs) -> anyhow::Result<ExitCode> {
    let size = sim::Size {
        hosts: args.hosts,
        containers: args.containers,
        boot_spread_ms: args.spread.saturating_mul(1000),
    };
    let report = sim::run_scale(size, 1, |phase, second| {
        if second.second % 10 == 9 {
            let (at, served) = (second.second + 1, second.served);
            eprintln!("{phase}: {at} s simulated, {served} containers served");
        }
    });
    if let Some(path) = &args.csv {
        std::fs::write(path, sim::csv(&report))?;
    }
    if let Some(path) = &args.svg {
        std::fs::write(path, sim::svg(&report))?;
    }
    let mut brief = report.clone();
    for phase in &mut brief.phases {
        phase.seconds.clear();
    }
    println!("{}", serde_json::to_string_pretty(&brief)?);
    let all = report
        .phases
        .iter()
        .all(|phase| phase.served_after_ms.is_some());
    Ok(ExitCode::from(u8::from(!all || report.duplicates > 0)))
}
