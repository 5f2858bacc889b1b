//! Rows, what they came to, and how they are shown.

use super::histogram::Histogram;
use super::job::{Outcome, Pattern, Work};
use crate::report::print;
use serde::Serialize;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) work: Work,
    pub(super) hosts: usize,
    /// Requests under way at once on each host.
    pub(super) callers: usize,
}

impl Row {
    pub(super) fn subject(self) -> &'static str {
        match self.work {
            Work::RawWrite => "raw-write",
            Work::CasOwnKey => "limit-cas-own-key",
            Work::CasSharedKey => "limit-cas-shared-key",
            Work::KeyPerAddress => "limit-key-per-address",
            Work::Whole { text: true, .. } => "whole-bitmap",
            Work::Whole { text: false, .. } => "whole-bitmap-no-text",
            Work::Netloom { .. } | Work::PluginNetloom => "netloom",
            Work::PluginNothing => "nothing",
        }
    }

    pub(super) fn pattern(self) -> &'static str {
        match self.work {
            Work::Whole { pattern, .. } | Work::Netloom { pattern } => pattern.name(),
            Work::PluginNetloom | Work::PluginNothing => "plugin",
            Work::RawWrite => "disk",
            Work::CasOwnKey | Work::CasSharedKey | Work::KeyPerAddress => "store",
        }
    }

    /// In which order addresses that came back are used again.
    fn cool_down(self) -> &'static str {
        match self.work {
            Work::Netloom { .. } | Work::PluginNetloom => "longest-idle-first",
            Work::Whole { .. } => "none",
            _ => "-",
        }
    }
}

/// What a row came to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figure {
    pub(super) row: Row,
    pub(super) processes: usize,
    pub(super) ops_per_s: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) writes: f64,
    pub(super) reads: f64,
    pub(super) cpu_us: f64,
}

impl Figure {
    pub(super) fn of(row: Row, processes: usize, outcomes: &[Outcome]) -> Self {
        let mut laps = Histogram::default();
        outcomes.iter().for_each(|o| laps.add(&o.laps));
        let sum = |of: fn(&Outcome) -> u64| as_f64(outcomes.iter().map(of).sum());
        let operations = sum(|o| o.operations);
        let seconds = outcomes.iter().map(|o| o.seconds).fold(0.0, f64::max);
        let cpu: f64 = outcomes.iter().map(|o| o.cpu_us).sum();
        Self {
            row,
            processes,
            ops_per_s: operations / seconds,
            p50_us: laps.at(50),
            p99_us: laps.at(99),
            writes: sum(|o| o.store_writes) / operations,
            reads: sum(|o| o.store_reads) / operations,
            cpu_us: cpu / operations,
        }
    }

    fn metrics(&self) -> [(&'static str, f64); 6] {
        [
            ("ops_per_s", self.ops_per_s),
            ("p50_us", self.p50_us),
            ("p99_us", self.p99_us),
            ("store_writes_per_op", self.writes),
            ("store_reads_per_op", self.reads),
            ("cpu_us_per_op", self.cpu_us),
        ]
    }
}

/// The figure of a row, as found in a run.
pub(super) fn find(figures: &[Figure], work: Work, hosts: usize, callers: usize) -> Option<Figure> {
    let wanted = Row {
        work,
        hosts,
        callers,
    };
    figures.iter().find(|f| f.row == wanted).copied()
}

pub(super) fn print_json(store: &'static str, figures: &[Figure]) -> anyhow::Result<()> {
    for figure in figures {
        for (metric, value) in figure.metrics() {
            if value.is_finite() {
                print(&serde_json::to_string(&Line::new(
                    store, figure, metric, value,
                ))?);
            }
        }
    }
    Ok(())
}

pub(super) fn print_head(store: &str) {
    print(&format!(
        "cluster on {store}: an operation is an allocation; in {} a release of a random address and",
        Pattern::Half.name()
    ));
    print(&format!(
        "an allocation, in {} an allocation and its release. Latencies are of allocations.",
        Pattern::Churn.name()
    ));
    if store == "file" {
        print("The embedded store is one process's: its rows are hosts x callers in one process.");
    }
    print(&format!(
        "{:<22} {:<9} {:>5} {:>5} {:>7} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8}  {}",
        "impl",
        "pattern",
        "hosts",
        "procs",
        "callers",
        "ops/s",
        "p50 us",
        "p99 us",
        "writes/op",
        "reads/op",
        "cpu us",
        "cool-down"
    ));
}

pub(super) fn print_row(figure: &Figure) {
    print(&format!(
        "{:<22} {:<9} {:>5} {:>5} {:>7} {:>9.0} {:>9.1} {:>9.1} {:>9.4} {:>8.4} {:>8.1}  {}",
        figure.row.subject(),
        figure.row.pattern(),
        figure.row.hosts,
        figure.processes,
        figure.row.callers,
        figure.ops_per_s,
        figure.p50_us,
        figure.p99_us,
        figure.writes,
        figure.reads,
        figure.cpu_us,
        figure.row.cool_down()
    ));
}

#[derive(Serialize)]
struct Line {
    bench: &'static str,
    #[serde(rename = "impl")]
    subject: &'static str,
    pattern: &'static str,
    store: &'static str,
    hosts: usize,
    processes: usize,
    callers: usize,
    cool_down: &'static str,
    metric: &'static str,
    value: f64,
}

impl Line {
    fn new(store: &'static str, figure: &Figure, metric: &'static str, value: f64) -> Self {
        Self {
            bench: "cluster",
            subject: figure.row.subject(),
            pattern: figure.row.pattern(),
            store,
            hosts: figure.row.hosts,
            processes: figure.processes,
            callers: figure.row.callers,
            cool_down: figure.row.cool_down(),
            metric,
            value,
        }
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "counts of a bench are far below 2^52"
)]
fn as_f64(count: u64) -> f64 {
    count as f64
}
