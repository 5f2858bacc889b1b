//! One run on one store: hosts under load, faults, rest, and the judgement.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::judge::{self, HistoryReport};
use super::planted::Flaw;
use super::site::{Load, Site, StoreChoice};
use super::trouble::Trouble;
use super::walls::Walls;

/// What a run is told.
#[derive(Debug, Clone)]
pub struct RunArgs {
    /// Which store.
    pub store: StoreChoice,
    /// One server instead of three.
    pub single: bool,
    /// How many hosts.
    pub hosts: u32,
    /// How many callers ask each host at once.
    pub callers: u32,
    /// How many pools they share.
    pub pools: u8,
    /// How long the prefix of each pool is.
    pub prefix: u8,
    /// Decides faults and load, as far as processes can be decided.
    pub seed: u64,
    /// No longer under load than this.
    pub longest: Duration,
    /// The load ends when all of these are reached.
    pub goals: Goals,
    /// A run with fewer calls answered a second than this has not passed.
    pub rate_least: f64,
    /// Where files of the run lie while it lasts.
    pub dir: Option<PathBuf>,
    /// What drops packets, where that can be done.
    pub walls: Option<Walls>,
    /// A bug that is planted into all hosts.
    pub flaw: Option<Flaw>,
}

/// How much is wanted.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Goals {
    /// Calls that were answered.
    pub operations: u64,
    /// Transactions that the store took.
    pub commits: u64,
    /// Faults.
    pub faults: u64,
}

/// Runs it.
///
/// # Errors
/// When the machinery of the test fails; what is wrong with the subject is in the report.
pub fn run(args: RunArgs) -> Result<HistoryReport> {
    let mut site = Site::new(args)?;
    let mut trouble = Trouble::new(site.args.seed);
    for host in 0..site.hosts.len() {
        site.start(host, Load::Full)?;
    }
    let began = Instant::now();
    let mut ended = Vec::new();
    let mut told = Instant::now();
    while began.elapsed() < site.args.longest && !reached(&site, &trouble) {
        sleep(STEP);
        ended.extend(site.revive()?);
        // The first calls shall find the store there.
        if site.operations() > 0 {
            trouble.step(&mut site, began.elapsed())?;
        }
        if told.elapsed() > TELL_EVERY {
            told = Instant::now();
            eprintln!(
                "{:?}: {} s, {} calls, {} faults",
                site.args.store,
                began.elapsed().as_secs(),
                site.operations(),
                trouble.faults.values().sum::<u64>()
            );
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    trouble.end(&mut site)?;
    for host in 0..site.hosts.len() {
        site.start(host, Load::None)?;
    }
    let mut restless = Vec::new();
    let rest = match site.args.flaw {
        None => REST_MAX,
        Some(_) => REST_MAX_PLANTED,
    };
    let until = Instant::now() + rest;
    for host in 0..site.hosts.len() {
        if !site.await_end(host, until)? {
            restless.push(format!("host {host} found no rest: {}", site.said(host)));
        }
    }
    let mut report = judge::judge(&mut site, trouble.faults, seconds)?;
    report.wrong.extend(ended);
    report.wrong.extend(restless);
    report.conclude();
    if !report.passed && site.args.flaw.is_none() {
        eprintln!("the run's files stay in {}", site.keep().display());
    }
    Ok(report)
}

fn reached(site: &Site, trouble: &Trouble) -> bool {
    let goals = &site.args.goals;
    trouble.faults.values().sum::<u64>() >= goals.faults
        && site.operations() >= goals.operations
        && site.commits() >= goals.commits
}

/// A host of a run that is in order rests long before.
const REST_MAX: Duration = Duration::from_secs(600);
const REST_MAX_PLANTED: Duration = Duration::from_secs(60);
pub(super) const STEP: Duration = Duration::from_millis(200);
const TELL_EVERY: Duration = Duration::from_secs(15);
