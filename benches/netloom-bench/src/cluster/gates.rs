//! What the rows of one run have to show beside each other.

use super::figures::{Figure, find};
use super::job::{Pattern, Work};
use crate::report::Gate;

/// Whether the model of the old design asks its store as often as the old one was seen to: in
/// commits and reads that went through the log, an operation, with one host.
pub(super) fn model_is_faithful(figures: &[Figure]) -> Vec<Gate> {
    let measured = [
        (Pattern::Fresh, "allocation, fresh", 3.0),
        (Pattern::Half, "pair, half full", 6.5),
        (Pattern::Churn, "pair, /24", 6.0),
    ];
    let gate = |(pattern, name, of_old): (Pattern, &str, f64)| {
        let work = Work::Whole {
            pattern,
            text: true,
        };
        let model = find(figures, work, 1, 1)?;
        Some(Gate {
            name: format!("model of old, reads and writes of a {name}: off by"),
            value: ((model.reads + model.writes) / of_old - 1.0).abs(),
            at_most: 0.10,
        })
    };
    measured.into_iter().filter_map(gate).collect()
}

/// The goals, with `hosts` hosts.
pub(super) fn goals(figures: &[Figure], hosts: usize) -> Vec<Gate> {
    let best = |work: Work, hosts: usize| {
        let of = figures
            .iter()
            .filter(move |f| f.row.work == work && f.row.hosts == hosts);
        of.map(|f| f.ops_per_s).fold(f64::NAN, f64::max)
    };
    let ours = |pattern| Work::Netloom { pattern };
    let old = |pattern| Work::Whole {
        pattern,
        text: true,
    };
    let times = |pattern| best(ours(pattern), hosts) / best(old(pattern), hosts);
    let writes = figures
        .iter()
        .filter(|f| f.row.hosts == hosts && f.row.work == ours(Pattern::Fresh))
        .map(|f| f.writes)
        .fold(0.0, f64::max);
    let p99 = |work| find(figures, work, hosts, 1).map_or(f64::NAN, |f| f.p99_us);
    let plugin = |work| {
        let same = figures.iter().filter(|f| f.row.work == work);
        same.map(|f| f.ops_per_s).fold(f64::NAN, f64::max)
    };
    let gate = |name: &str, value: f64, at_most: f64| Gate {
        name: name.to_owned(),
        value,
        at_most,
    };
    vec![
        gate("store writes of an allocation, fresh", writes, 0.05),
        gate(
            "200 times the old design's rate, fresh, over ours",
            200.0 / times(Pattern::Fresh),
            1.0,
        ),
        gate(
            "2,000 times the old design's rate, half full, over ours",
            2000.0 / times(Pattern::Half),
            1.0,
        ),
        gate(
            "p99 with one caller a host, of raw write and sync",
            p99(ours(Pattern::Fresh)) / p99(Work::RawWrite),
            3.0,
        ),
        gate(
            "one host's rate over that of all",
            best(ours(Pattern::Fresh), 1) / best(ours(Pattern::Fresh), hosts),
            1.0,
        ),
        gate(
            "100,000 allocations a second, over ours",
            100_000.0 / best(ours(Pattern::Fresh), hosts),
            1.0,
        ),
        gate(
            "plugin: half of a handler that does nothing, over ours",
            0.5 * plugin(Work::PluginNothing) / plugin(Work::PluginNetloom),
            1.0,
        ),
    ]
}

/// The ratios behind the goals, in words.
pub(super) fn ratios(figures: &[Figure], hosts: usize) -> Vec<String> {
    let rate = |work, hosts, callers| {
        find(figures, work, hosts, callers).map_or(f64::NAN, |f| f.ops_per_s)
    };
    let mut lines = Vec::new();
    for pattern in [Pattern::Fresh, Pattern::Half, Pattern::Churn] {
        let ours = figures
            .iter()
            .filter(|f| f.row.work == Work::Netloom { pattern } && f.row.hosts == hosts);
        let ours = ours.map(|f| f.ops_per_s).fold(f64::NAN, f64::max);
        for text in [true, false] {
            let old = rate(Work::Whole { pattern, text }, hosts, 1);
            if old.is_finite() {
                let log = if text { "" } else { " without its log's text" };
                let times = ours / old;
                let name = pattern.name();
                lines.push(format!(
                    "{name}, {hosts} hosts: {times:.0} times the old design{log}"
                ));
            }
        }
    }
    let fresh = Work::Netloom {
        pattern: Pattern::Fresh,
    };
    for (name, work, callers) in [
        ("netloom, fresh, 64 callers a host", fresh, super::MANY),
        ("raw write and sync", Work::RawWrite, 1),
    ] {
        let times = rate(work, hosts, callers) / rate(work, 1, callers);
        lines.push(format!("{name}: {hosts} hosts are {times:.2} times one"));
    }
    lines
}
