//! A host's clocks and ids.

use super::random::Random;
use netloom_core::{Clock, Ids, Timestamp};
use netloom_types::OperationId;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Simulated time, with a wall clock that somebody sets.
#[derive(Debug)]
pub(crate) struct SimClock {
    begun: Instant,
    /// What the wall clock is wrong by, in milliseconds.
    wrong_by: AtomicI64,
    /// What was slept through without anything else going on.
    skipped: AtomicU64,
}

impl SimClock {
    pub(crate) fn new() -> Self {
        Self {
            begun: Instant::now(),
            wrong_by: AtomicI64::new(0),
            skipped: AtomicU64::new(0),
        }
    }

    pub(crate) fn set_wrong(&self, millis: i64) {
        self.wrong_by.store(millis, Ordering::Relaxed);
    }

    pub(crate) fn skip(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.skipped.fetch_add(millis, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let millis = u64::try_from(self.monotonic().as_millis()).unwrap_or(u64::MAX);
        let right = FIRST_DAY.saturating_add(millis);
        Timestamp(right.saturating_add_signed(self.wrong_by.load(Ordering::Relaxed)))
    }

    fn monotonic(&self) -> Duration {
        let skipped = self.skipped.load(Ordering::Relaxed);
        self.begun.elapsed() + Duration::from_millis(skipped)
    }
}

/// Ids from a seed.
#[derive(Debug)]
pub(crate) struct SimIds(Mutex<Random>);

impl SimIds {
    pub(crate) fn new(random: Random) -> Self {
        Self(Mutex::new(random))
    }
}

impl Ids for SimIds {
    fn operation(&self) -> OperationId {
        let mut random = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        OperationId::new(format!("{:016x}{:016x}", random.next(), random.next()))
            .expect("32 hexadecimal digits are an id")
    }
}

const FIRST_DAY: u64 = 1_700_000_000_000;
