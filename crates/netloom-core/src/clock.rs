//! Time and ids come through these two traits, so that tests own them.

use netloom_types::OperationId;
use std::time::Duration;

/// Milliseconds since the Unix epoch: for people and for records, never for safety.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(pub u64);

/// Where time comes from.
pub trait Clock: core::fmt::Debug + Send + Sync {
    /// The wall clock; it may jump.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment of this process; it never goes back.
    fn monotonic(&self) -> Duration;
}

/// Where new ids come from.
pub trait Ids: core::fmt::Debug + Send + Sync {
    /// An id that nobody else has; 32 hexadecimal digits.
    fn operation(&self) -> OperationId;
}

/// The machine's clocks and its random numbers.
#[derive(Debug)]
pub struct SystemClock {
    started: std::time::Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    #[must_use]
    #[allow(
        clippy::disallowed_methods,
        reason = "the one place that reads the machine's clock"
    )]
    pub fn new() -> Self {
        Self {
            started: std::time::Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[allow(
        clippy::disallowed_methods,
        reason = "the one place that reads the machine's clock"
    )]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Timestamp(since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Ids for SystemClock {
    fn operation(&self) -> OperationId {
        use std::hash::{BuildHasher, Hasher, RandomState};
        // RandomState is seeded from the system's random source; each new one differs, and the
        // clock keeps ids of two processes apart even where that source is weak at early boot.
        let half = || {
            let mut hasher = RandomState::new().build_hasher();
            hasher.write_u128(self.started.elapsed().as_nanos());
            hasher.write_u64(self.now().0);
            hasher.write_u32(std::process::id());
            hasher.finish()
        };
        OperationId::new(format!("{:016x}{:016x}", half(), half()))
            .expect("32 hexadecimal digits are an id")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ() {
        let clock = SystemClock::new();
        let ids: std::collections::BTreeSet<_> = (0..1000).map(|_| clock.operation()).collect();
        assert_eq!(ids.len(), 1000);
    }
}
