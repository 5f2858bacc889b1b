//! Instructions per operation, counted by callgrind: the same on a loaded machine.
//!
//! The recorded figures stand in `instructions.json` beside this package's manifest. They hold for
//! one compiler, and a newer one may change them: then they are recorded again, on purpose.

use super::measure::{Pattern, Running, State, churn, specific};
use super::subjects::{Pool, Subject};
use crate::report::{self, Gate};
use anyhow::Context;
use netloom_alloc::{AtomicBitmap, Bitmap};
use std::collections::BTreeMap;
use std::process::{Command, ExitCode};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write the counts down instead of comparing them with those written down.
    #[arg(long)]
    record: bool,
    /// Only do the work of this name: what runs under callgrind, or under a profiler.
    #[arg(long, value_name = "NAME")]
    workload: Option<String>,
    /// Pairs of that work.
    #[arg(long, default_value_t = PAIRS, requires = "workload")]
    pairs: usize,
}

/// A name and the work behind it, for a number of pairs.
type Workload = (&'static str, fn(usize));

/// The counter sees only the two pattern functions of these.
const WORKLOADS: [Workload; 6] = [
    ("exclusive-churn-16-50", work::<Churn<Bitmap, 50>>),
    ("exclusive-churn-16-99", work::<Churn<Bitmap, 99>>),
    ("exclusive-specific-16-50", work::<Specific<Bitmap, 50>>),
    ("atomic-churn-16-50", work::<Churn<AtomicBitmap, 50>>),
    ("atomic-churn-16-99", work::<Churn<AtomicBitmap, 99>>),
    ("pool-churn-16-50", work::<Churn<Pool, 50>>),
];

/// What a workload does to a /16.
trait Work {
    type Subject: Subject;
    const OCCUPANCY: u32;
    const PATTERN: Pattern<Self::Subject>;
}

struct Churn<S, const OCCUPANCY: u32>(core::marker::PhantomData<S>);

impl<S: Subject, const OCCUPANCY: u32> Work for Churn<S, OCCUPANCY> {
    type Subject = S;
    const OCCUPANCY: u32 = OCCUPANCY;
    const PATTERN: Pattern<S> = churn::<S>;
}

struct Specific<S, const OCCUPANCY: u32>(core::marker::PhantomData<S>);

impl<S: Subject, const OCCUPANCY: u32> Work for Specific<S, OCCUPANCY> {
    type Subject = S;
    const OCCUPANCY: u32 = OCCUPANCY;
    const PATTERN: Pattern<S> = specific::<S>;
}

fn work<W: Work>(pairs: usize) {
    let state = State::new(16, W::OCCUPANCY);
    Running::<W::Subject>::new(&state).work(W::PATTERN, pairs);
}

/// Enough that the search comes round a /16 more than once at 99 %.
const PAIRS: usize = 20_000;

/// How much dearer than recorded an operation may become.
const GROWTH_MAX: f64 = 1.05;

const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.json");

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(name) = &args.workload {
        let found = WORKLOADS.iter().find(|(known, _)| known == name);
        let (_, body) = found.with_context(|| format!("no workload is named {name}"))?;
        body(args.pairs);
        return Ok(ExitCode::SUCCESS);
    }
    let mut counts = BTreeMap::new();
    for (name, _) in WORKLOADS {
        counts.insert(name.to_owned(), count(name)?);
    }
    if args.record {
        std::fs::write(RECORD, serde_json::to_string_pretty(&counts)? + "\n")
            .with_context(|| format!("cannot write {RECORD}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    compare(&counts)
}

/// Instructions per pair of a workload, from a run of this program under callgrind.
#[allow(clippy::disallowed_methods, reason = "callgrind is a program")]
fn count(name: &str) -> anyhow::Result<f64> {
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--collect-atstart=no",
        ])
        .args(["--toggle-collect=*alloc::measure::churn*"])
        .args(["--toggle-collect=*alloc::measure::specific*"])
        .arg(std::env::current_exe()?)
        .args(["alloc-instructions", "--workload", name])
        .output()
        .context("cannot run valgrind; install the package of this name")?;
    let text = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(
        output.status.success(),
        "callgrind failed for {name}:\n{text}"
    );
    let collected = text
        .lines()
        .find_map(|line| line.split_once("Collected :"))
        .with_context(|| format!("callgrind told no count for {name}:\n{text}"))?;
    let total: f64 = collected.1.trim().parse()?;
    anyhow::ensure!(
        total > 0.0,
        "callgrind counted nothing for {name}: were symbols stripped?"
    );
    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    let pairs = PAIRS as f64;
    // One decimal is enough, and keeps the file readable.
    Ok((total / pairs * 10.0).round() / 10.0)
}

fn compare(counts: &BTreeMap<String, f64>) -> anyhow::Result<ExitCode> {
    let text = std::fs::read_to_string(RECORD)
        .with_context(|| format!("cannot read {RECORD}; make it with --record"))?;
    let recorded: BTreeMap<String, f64> = serde_json::from_str(&text)?;
    let mut passed = true;
    for (name, count) in counts {
        let before = recorded
            .get(name)
            .with_context(|| format!("{name} is not recorded"))?;
        let name = format!("{name}: {count} instructions a pair, {before} recorded");
        let gate = Gate {
            name,
            value: count / before,
            at_most: GROWTH_MAX,
        };
        report::print(&gate.line());
        passed &= gate.passes();
    }
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
