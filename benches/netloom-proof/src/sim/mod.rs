//! Deterministic simulation: the real code of many hosts on simulated time, store, network and disk.
//!
//! A seed is a run: the same seed gives the same run, event by event. Every run ends in a quiet
//! phase in which callers, journals and the store are compared.
//!
//! ```text
//!  callers --> AddressManager h0 --> disk h0 (forgets what was not synced)
//!                    |
//!                 link h0 (delays, loses, doubles, ends)
//!                    |
//!                 ground (linearizable; can go back, be emptied, lose watches)
//! ```

mod clock;
mod disk;
mod faults;
mod finish;
mod gate;
mod ground;
mod host;
mod link;
mod many;
mod moves;
mod ops;
mod planted;
mod plot;
mod random;
mod run;
mod scale;
mod trace;
mod world;

pub use many::{SimReport, hunt, run_many};
pub use planted::Bug;
pub use plot::{csv, svg};
pub use run::Kind;
pub use scale::{Phase, ScaleReport, Second, Size, run_scale};
pub use world::{Promise, Violation};

use serde::Serialize;
use std::collections::BTreeMap;

/// How runs are made.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// A bug in the world around the code.
    pub bug: Option<Bug>,
    /// Only runs of this kind; else drawn from the seed.
    pub kind: Option<Kind>,
    /// Whether to tell the run in words.
    pub in_words: bool,
}

/// What one run came to.
#[derive(Debug, Clone, Serialize)]
pub struct SeedReport {
    /// The seed.
    pub seed: u64,
    /// What it was about.
    pub kind: Kind,
    /// Calls that were answered.
    pub operations: u64,
    /// Of these, with an error.
    pub refused: u64,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Commits whose outcome a host was not told.
    pub unknown: u64,
    /// Reads that reached the store.
    pub reads: u64,
    /// Commits that reached the store.
    pub commits: u64,
    /// Promises that were broken.
    pub violations: Vec<Violation>,
    /// What went wrong where nothing is promised.
    pub unpromised: Vec<Violation>,
    /// The run as a number: two runs of a seed have the same.
    pub trace_hash: u64,
    /// The run in words, if it was asked for.
    #[serde(skip)]
    pub lines: Vec<String>,
}

/// Runs one seed.
#[must_use]
pub fn run_seed(seed: u64, config: &Config) -> SeedReport {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without input and output needs nothing that can fail");
    runtime.block_on(run::live(seed, config))
}
