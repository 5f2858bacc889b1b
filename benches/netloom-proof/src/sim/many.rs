//! Many seeds, on many threads.

use super::{Bug, Config, Kind, Promise, SeedReport, run_seed};
use netloom_core::{Clock, SystemClock};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What many runs came to.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SimReport {
    /// The first seed.
    pub first: u64,
    /// Runs.
    pub seeds: u64,
    /// Runs by kind.
    pub kinds: BTreeMap<Kind, u64>,
    /// Calls that were answered, and of these with an error.
    pub operations: u64,
    /// Of these, with an error.
    pub refused: u64,
    /// Fewest calls, and fewest faults, of one run.
    pub fewest_operations: u64,
    /// Fewest faults of one run.
    pub fewest_faults: u64,
    /// Faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// Commits whose outcome a host was not told.
    pub unknown: u64,
    /// Reads that reached the store.
    pub reads: u64,
    /// Commits that reached the store.
    pub commits: u64,
    /// Runs in which a promise was broken, by promise.
    pub broken: BTreeMap<Promise, u64>,
    /// The first of them.
    pub examples: Vec<SeedReport>,
    /// Runs in which something went wrong where nothing is promised, and was noticed.
    pub unpromised: u64,
    /// Seconds by the clock.
    pub seconds: f64,
}

impl SimReport {
    /// Whether every promise held.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.broken.is_empty() && self.seeds > 0
    }

    fn add(&mut self, report: SeedReport) {
        let faults: u64 = report.faults.values().sum();
        if self.seeds == 0 {
            (self.fewest_operations, self.fewest_faults) = (report.operations, faults);
        }
        self.seeds += 1;
        *self.kinds.entry(report.kind).or_default() += 1;
        self.operations += report.operations;
        self.refused += report.refused;
        self.fewest_operations = self.fewest_operations.min(report.operations);
        self.fewest_faults = self.fewest_faults.min(faults);
        for (name, count) in &report.faults {
            *self.faults.entry((*name).to_owned()).or_default() += count;
        }
        self.unknown += report.unknown;
        self.reads += report.reads;
        self.commits += report.commits;
        self.unpromised += u64::from(!report.unpromised.is_empty());
        let mut broken: Vec<Promise> = report.violations.iter().map(|v| v.promise).collect();
        broken.sort_unstable();
        broken.dedup();
        let mut rare = false;
        for promise in &broken {
            let runs = self.broken.entry(*promise).or_default();
            *runs += 1;
            rare |= *runs <= EXAMPLES_EACH;
        }
        if rare {
            self.examples.push(report);
        }
    }
}

/// Runs seeds until they are done or time is up.
#[must_use]
pub fn run_many(
    seeds: Range<u64>,
    threads: usize,
    limit: Option<Duration>,
    config: &Config,
) -> SimReport {
    work(seeds, threads, limit, config, false)
}

/// Runs seeds until one finds a planted bug; the report's count of seeds says how many it took.
#[must_use]
pub fn hunt(bug: Bug, seeds: Range<u64>, threads: usize) -> SimReport {
    let config = Config {
        bug: Some(bug),
        ..Config::default()
    };
    work(seeds, threads, None, &config, true)
}

#[allow(clippy::print_stderr, reason = "a test tool tells how it goes")]
fn work(
    seeds: Range<u64>,
    threads: usize,
    limit: Option<Duration>,
    config: &Config,
    until_broken: bool,
) -> SimReport {
    let clock = SystemClock::new();
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let total = Mutex::new(SimReport {
        first: seeds.start,
        ..SimReport::default()
    });
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let late = limit.is_some_and(|limit| clock.monotonic() >= limit);
                    if seed >= seeds.end || late {
                        return;
                    }
                    let report = run_seed(seed, config);
                    let broken = !report.violations.is_empty();
                    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                    total.add(report);
                    if !until_broken && (broken || total.seeds.is_multiple_of(TELL_EVERY)) {
                        let (done, broken) = (total.seeds, total.broken.values().sum::<u64>());
                        let seconds = clock.monotonic().as_secs();
                        eprintln!("{done} seeds in {seconds} s, {broken} promises broken");
                    }
                    if broken && until_broken {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    total.seconds = clock.monotonic().as_secs_f64();
    total
}

/// Seeds between two lines for who waits.
const TELL_EVERY: u64 = 10_000;
/// Reports of broken runs that are kept for each promise.
const EXAMPLES_EACH: u64 = 4;
