//! Latencies of many processes, added up.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Counts by latency, in steps of at most 1/64 of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Histogram(BTreeMap<u32, u64>);

/// What one caller measured, in the order in which it did: a note costs no search, since hundreds of callers
/// share the processors with what is measured.
#[derive(Debug, Default)]
pub(super) struct Laps(Vec<u32>);

impl Laps {
    pub(super) fn note(&mut self, took: Duration) {
        self.0.push(step(took));
    }
}

impl Histogram {
    pub(super) fn add_laps(&mut self, laps: &Laps) {
        for step in &laps.0 {
            *self.0.entry(*step).or_default() += 1;
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (step, count) in &other.0 {
            *self.0.entry(*step).or_default() += count;
        }
    }

    /// Microseconds below which `percent` of the operations stayed.
    pub(super) fn at(&self, percent: u64) -> f64 {
        let total: u64 = self.0.values().sum();
        let mut seen = 0;
        for (step, count) in &self.0 {
            seen += count;
            if seen * 100 >= total * percent {
                return nanoseconds(*step) / 1000.0;
            }
        }
        0.0
    }
}

/// The power of two, and the six bits below it.
fn step(took: Duration) -> u32 {
    let ns = u64::try_from(took.as_nanos())
        .unwrap_or(u64::MAX)
        .max(1 << FINE);
    let power = ns.ilog2();
    let fine = (ns >> (power - FINE)) & ((1 << FINE) - 1);
    (power << FINE) | u32::try_from(fine).unwrap_or(0)
}

fn nanoseconds(step: u32) -> f64 {
    let (power, fine) = (step >> FINE, step & ((1 << FINE) - 1));
    f64::from(power).exp2() * (1.0 + f64::from(fine) / f64::from(1 << FINE))
}

const FINE: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_step() {
        let mut laps = Laps::default();
        for us in 1..=1000 {
            laps.note(Duration::from_micros(us));
        }
        let mut all = Histogram::default();
        all.add_laps(&laps);
        let mut twice = all.clone();
        twice.add(&all);
        for (percent, expected) in [(50, 500.0), (99, 990.0), (100, 1000.0)] {
            let found = twice.at(percent);
            assert!((found / expected - 1.0).abs() < 1.0 / 32.0, "{found}");
        }
    }
}
