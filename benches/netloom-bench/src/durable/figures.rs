//! Latencies of one turn, and how they are shown.

use crate::report::print;
use serde::Serialize;
use std::time::{Duration, Instant};

/// How long a subject is measured at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn(pub(super) Duration);

/// What one turn showed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figure {
    pub(super) subject: &'static str,
    pub(super) pattern: &'static str,
    pub(super) callers: usize,
    pub(super) ops_per_s: f64,
    pub(super) p50_us: f64,
    p99_us: f64,
    /// For single callers, whose thread does all the work.
    heap_allocs_per_op: Option<f64>,
}

/// Who was measured, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Label {
    pub(super) subject: &'static str,
    pub(super) pattern: &'static str,
    pub(super) callers: usize,
}

/// One caller's operations in one turn.
#[derive(Debug)]
pub(super) struct Laps {
    until: Instant,
    began: Instant,
    ended: Instant,
    nanoseconds: Vec<u32>,
}

impl Laps {
    #[allow(clippy::disallowed_methods, reason = "a bench measures real time")]
    pub(super) fn begin(turn: Turn) -> Self {
        let now = Instant::now();
        Self {
            until: now + turn.0,
            began: now,
            ended: now,
            nanoseconds: Vec::with_capacity(LAPS_USUAL),
        }
    }

    /// Notes the end of an operation; whether there is time for another one.
    #[allow(clippy::disallowed_methods, reason = "a bench measures real time")]
    pub(super) fn lap(&mut self) -> bool {
        let now = Instant::now();
        let took = (now - self.ended).as_nanos();
        self.nanoseconds
            .push(u32::try_from(took).unwrap_or(u32::MAX));
        self.ended = now;
        now < self.until
    }

    pub(super) fn count(&self) -> usize {
        self.nanoseconds.len()
    }
}

impl Figure {
    /// Adds up what the callers of one turn did.
    pub(super) fn of(label: Label, laps: Vec<Laps>) -> Self {
        let Label {
            subject,
            pattern,
            callers,
        } = label;
        let began = laps.iter().map(|l| l.began).min();
        let ended = laps.iter().map(|l| l.ended).max();
        let mut all: Vec<u32> = laps.into_iter().flat_map(|l| l.nanoseconds).collect();
        all.sort_unstable();
        let seconds = match (began, ended) {
            (Some(began), Some(ended)) => (ended - began).as_secs_f64(),
            _ => f64::INFINITY,
        };
        let at = |percent: usize| {
            let found = all.get((all.len() * percent / 100).min(all.len().saturating_sub(1)));
            found.map_or(0.0, |ns| f64::from(*ns) / 1000.0)
        };
        let (p50_us, p99_us) = (at(50), at(99));
        Self {
            subject,
            pattern,
            callers,
            ops_per_s: as_f64(all.len()) / seconds,
            p50_us,
            p99_us,
            heap_allocs_per_op: None,
        }
    }

    /// The best of two turns of one subject, figure by figure.
    pub(super) fn best_of(self, other: Self) -> Self {
        let heap = [self.heap_allocs_per_op, other.heap_allocs_per_op];
        Self {
            ops_per_s: self.ops_per_s.max(other.ops_per_s),
            p50_us: self.p50_us.min(other.p50_us),
            p99_us: self.p99_us.min(other.p99_us),
            heap_allocs_per_op: heap.into_iter().flatten().reduce(f64::min),
            ..self
        }
    }

    pub(super) fn with_heap(mut self, calls: u64, operations: usize) -> Self {
        let calls = u32::try_from(calls).map_or(f64::INFINITY, f64::from);
        self.heap_allocs_per_op = Some(calls / as_f64(operations));
        self
    }
}

pub(super) fn print_json(figures: &[Figure]) -> anyhow::Result<()> {
    for figure in figures {
        let metrics = [
            ("ops_per_s", Some(figure.ops_per_s)),
            ("p50_us", Some(figure.p50_us)),
            ("p99_us", Some(figure.p99_us)),
            ("heap_allocs_per_op", figure.heap_allocs_per_op),
        ];
        for (metric, value) in metrics {
            let Some(value) = value else { continue };
            print(&serde_json::to_string(&Row {
                bench: "durable",
                subject: figure.subject,
                pattern: figure.pattern,
                callers: figure.callers,
                metric,
                value,
            })?);
        }
    }
    Ok(())
}

pub(super) fn print_table(figures: &[Figure]) {
    let (raw, raw_us) = figures
        .first()
        .map_or((1.0, 1.0), |raw| (raw.ops_per_s, raw.p50_us));
    print("durable: best of many turns; one raw write and sync of 4 KiB is 1.00");
    print("(x cost by the median, x rate by operations per second)");
    print(&format!(
        "{:<16} {:<8} {:>7} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "impl", "pattern", "callers", "ops/s", "p50 us", "p99 us", "x cost", "x rate", "allocs/op"
    ));
    for figure in figures {
        let heap = figure.heap_allocs_per_op;
        let heap = heap.map_or_else(String::new, |calls| format!("{calls:.2}"));
        print(&format!(
            "{:<16} {:<8} {:>7} {:>10.0} {:>9.1} {:>9.1} {:>9.2} {:>9.2} {:>9}",
            figure.subject,
            figure.pattern,
            figure.callers,
            figure.ops_per_s,
            figure.p50_us,
            figure.p99_us,
            figure.p50_us / raw_us,
            figure.ops_per_s / raw,
            heap
        ));
    }
}

#[derive(Serialize)]
struct Row {
    bench: &'static str,
    #[serde(rename = "impl")]
    subject: &'static str,
    pattern: &'static str,
    callers: usize,
    metric: &'static str,
    value: f64,
}

fn as_f64(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

/// One caller's operations in a turn, so that noting them allocates nothing.
const LAPS_USUAL: usize = 64 * 1024;
