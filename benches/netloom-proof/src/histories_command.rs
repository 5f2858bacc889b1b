//! The subcommands of histories.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use netloom_core::StoreUrl;
use netloom_proof::histories::{
    self, Flaw, Goals, HistoryReport, HostArgs, RunArgs, StoreChoice, Walls,
};
use serde::Serialize;

/// What `histories` is told.
#[derive(Debug, Args)]
pub(crate) struct HistoriesArgs {
    /// Only on this store.
    #[arg(long, value_enum)]
    store: Option<StoreChoice>,
    /// One server instead of three.
    #[arg(long)]
    single: bool,
    /// Half a minute of each store, for a look.
    #[arg(long)]
    quick: bool,
    /// Hosts that share the store.
    #[arg(long, default_value_t = 4)]
    hosts: u32,
    /// Callers of each host.
    #[arg(long, default_value_t = 12)]
    callers: u32,
    /// Pools that they share, at most 15.
    #[arg(long, default_value_t = 4)]
    pools: u8,
    /// The length of the pools' prefixes, at least 20.
    #[arg(long, default_value_t = 22)]
    prefix: u8,
    /// Decides faults and load.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The load on one store lasts no longer.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Calls that are wanted.
    #[arg(long, default_value_t = 1_000_000)]
    operations: u64,
    /// Transactions of the store that are wanted.
    #[arg(long, default_value_t = 100_000)]
    commits: u64,
    /// Faults that are wanted.
    #[arg(long, default_value_t = 200)]
    faults: u64,
    /// Fewer calls answered a second are no pass.
    #[arg(long, default_value_t = 50.0)]
    rate: f64,
    /// Where the run keeps its files while it lasts.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Plant a bug into all hosts: it must be found.
    #[arg(long, value_enum)]
    bug: Option<Flaw>,
    /// Plant each bug in turn, each for at most four short runs: every one must be found.
    #[arg(long, conflicts_with = "bug")]
    all_bugs: bool,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
}

/// What one host is told.
#[derive(Debug, Args)]
pub(crate) struct OneHostArgs {
    dir: PathBuf,
    #[arg(long)]
    number: u32,
    #[arg(long)]
    hosts: u32,
    #[arg(long)]
    store: Option<StoreUrl>,
    #[arg(long)]
    seed: u64,
    #[arg(long)]
    callers: u32,
    #[arg(long)]
    pools: u8,
    #[arg(long)]
    prefix: u8,
    #[arg(long, value_enum)]
    bug: Option<Flaw>,
}

pub(crate) fn histories(args: &HistoriesArgs) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        args.pools <= 15 && (20..=30).contains(&args.prefix) && args.hosts > 1,
        "at most 15 pools, prefixes of 20 to 30, and more than one host"
    );
    if args.all_bugs {
        return planted(args);
    }
    let walls = Walls::enter()?;
    let stores = args
        .store
        .map_or(StoreChoice::ALL.to_vec(), |store| vec![store]);
    let mut reports = Vec::new();
    for store in stores {
        let report = histories::run(RunArgs {
            walls: walls.clone(),
            ..run_args(args, store)
        })?;
        if !args.json {
            tell(&report);
        }
        reports.push(report);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&reports)?);
    }
    let passed = reports.iter().all(|report| report.passed);
    Ok(ExitCode::from(u8::from(!passed)))
}

/// What became of a planted bug.
#[derive(Debug, Serialize)]
struct Planted {
    bug: Flaw,
    found: bool,
    seconds: f64,
    operations: u64,
    /// How it showed.
    by: Vec<&'static str>,
}

/// Plants each bug in turn, on one store.
fn planted(args: &HistoriesArgs) -> anyhow::Result<ExitCode> {
    let store = args.store.unwrap_or(StoreChoice::Etcd);
    let mut all = Vec::new();
    for flaw in Flaw::ALL {
        let planted = plant(args, store, flaw)?;
        if !args.json {
            println!("{planted:?}");
        }
        all.push(planted);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    }
    let found = all.iter().all(|planted| planted.found);
    Ok(ExitCode::from(u8::from(!found)))
}

/// Short runs, until one of them finds the bug.
fn plant(args: &HistoriesArgs, store: StoreChoice, flaw: Flaw) -> anyhow::Result<Planted> {
    let mut planted = Planted {
        bug: flaw,
        found: false,
        seconds: 0.0,
        operations: 0,
        by: Vec::new(),
    };
    for round in 0..PLANTED_ROUNDS {
        let run = RunArgs {
            single: true,
            // Short runs: each address is used again and again.
            prefix: 24,
            flaw: Some(flaw),
            seed: args.seed + round,
            longest: PLANTED_TIME,
            ..run_args(args, store)
        };
        let report = histories::run(run)?;
        planted.seconds += report.seconds;
        planted.operations += report.operations;
        for (word, seen) in [
            ("no order of calls explains it", !report.linear.holds()),
            (
                "the three sides disagree",
                !report.duplicates.found.is_empty(),
            ),
            (
                "a host ended, lost something or found no rest",
                !report.wrong.is_empty(),
            ),
            (
                "fewer calls a second than a pass needs",
                report.rate < report.rate_least,
            ),
        ] {
            if seen {
                planted.by.push(word);
            }
        }
        planted.found = !planted.by.is_empty();
        if planted.found {
            break;
        }
    }
    Ok(planted)
}

fn run_args(args: &HistoriesArgs, store: StoreChoice) -> RunArgs {
    let goals = Goals {
        operations: args.operations,
        commits: args.commits,
        faults: args.faults,
    };
    let small = Goals {
        operations: 2_000,
        commits: 200,
        faults: 10,
    };
    let longest = if args.quick { 0.5 } else { args.minutes };
    RunArgs {
        store,
        single: args.single,
        hosts: if store == StoreChoice::File {
            1
        } else {
            args.hosts
        },
        callers: args.callers,
        pools: args.pools,
        prefix: args.prefix,
        seed: args.seed,
        longest: Duration::from_secs_f64(longest * 60.0),
        goals: if args.quick { small } else { goals },
        rate_least: args.rate,
        dir: args.dir.clone(),
        walls: None,
        flaw: args.bug,
    }
}

pub(crate) fn host(args: OneHostArgs) -> anyhow::Result<ExitCode> {
    let args = HostArgs {
        dir: args.dir,
        number: args.number,
        hosts: args.hosts,
        store: args.store,
        seed: args.seed,
        callers: args.callers,
        pools: args.pools,
        prefix: args.prefix,
        flaw: args.bug,
    };
    // Whoever started this host may be killed; then it ends too, frozen or not.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    tokio::runtime::Runtime::new()?.block_on(histories::run_host(args))?;
    Ok(ExitCode::SUCCESS)
}

fn tell(report: &HistoryReport) {
    let word = if report.passed {
        "passed"
    } else {
        "NOT PASSED"
    };
    println!(
        "{:?}: {word}: {} calls in {:.0} s ({:.0}/s), {} commits, {} changes of hands, {} faults",
        report.store,
        report.operations,
        report.seconds,
        report.rate,
        report.calls.commits,
        report.hands_changed,
        report.faults.values().sum::<u64>()
    );
    println!("  calls: {:?}", report.calls);
    println!("  faults: {:?}", report.faults);
    println!("  ways: {:?}", report.ways);
    println!(
        "  linear: {} addresses, {} in order, {} not, {} unknown",
        report.linear.addresses,
        report.linear.linearizable,
        report.linear.violations.len(),
        report.linear.unknown.len()
    );
    for witness in report.linear.violations.iter().take(EXAMPLES) {
        println!(
            "  no order explains {}; holders {:?}",
            witness.call, witness.holders
        );
        witness
            .before
            .iter()
            .for_each(|call| println!("    {call}"));
    }
    println!("  compared: {:?}", report.duplicates.compared);
    for found in report.duplicates.found.iter().take(EXAMPLES) {
        println!("  {found:?}");
    }
    for wrong in report.wrong.iter().take(EXAMPLES) {
        println!("  wrong: {wrong}");
    }
    if !report.goals_reached {
        println!("  the goals were not reached");
    }
}

const EXAMPLES: usize = 10;
const PLANTED_ROUNDS: u64 = 4;
const PLANTED_TIME: Duration = Duration::from_secs(20);
