//! Rows as a table, as JSON lines, and held against the goals.

use anyhow::Result;
use netloom_lab::Version;
use serde_json::json;

use super::cell::{Cell, Row};
use super::fixture::Peer;
use crate::term::{self, Colour};

/// A goal, and what was measured.
#[derive(Debug, Clone)]
pub(super) struct Goal {
    text: String,
    measured: f64,
    limit: f64,
    pub(super) met: bool,
}

pub(super) fn json_lines(rows: &[Row], docker: &str) -> Result<()> {
    for row in rows {
        let Cell {
            ports,
            parallel,
            present,
            operation: _,
        } = row.cell;
        for (metric, value) in [
            ("p50_us", row.percentile(50)),
            ("p99_us", row.percentile(99)),
            ("min_us", min(row)),
        ] {
            let line = json!({
                "bench": "attach", "impl": row.peer.name(), "pattern": row.pattern,
                "docker": docker, "ports": ports, "parallel": parallel, "present": present,
                "metric": metric, "value": value,
            });
            println!("{}", serde_json::to_string(&line)?);
        }
    }
    Ok(())
}

pub(super) fn header(docker: &str) {
    term::heading(&format!("attach, Docker {docker}, milliseconds"));
    println!(
        "  {:<12} {:>5} {:>8} {:>7}  {:<14} {:>8} {:>8} {:>8}  {:>9}",
        "pattern", "ports", "parallel", "present", "impl", "min", "median", "p99", "of bridge"
    );
}

/// The rows of one or more whole cells.
pub(super) fn table(rows: &[Row]) {
    for row in rows {
        let Cell {
            ports,
            parallel,
            present,
            operation: _,
        } = row.cell;
        let of_bridge = find(rows, row.cell, row.pattern, Peer::Bridge)
            .map_or("-".to_owned(), |bridge| {
                format!("{:.2}x", ratio(median(row), median(bridge)))
            });
        println!(
            "  {:<12} {ports:>5} {parallel:>8} {present:>7}  {:<14} {:>8.1} {:>8.1} {:>8.1}  {of_bridge:>9}",
            row.pattern,
            row.peer.name(),
            millis(min(row)),
            millis(row.percentile(50)),
            millis(row.percentile(99)),
        );
    }
}

/// The goals that this run can speak of.
pub(super) fn goals(rows: &[Row], docker: Version) -> Vec<Goal> {
    let mut goals = Vec::new();
    let is_ours = |row: &&Row| matches!(row.peer, Peer::Netloom | Peer::Inside);
    for ours in rows.iter().filter(is_ours) {
        let of = |peer| find(rows, ours.cell, ours.pattern, peer).map(median);
        let Some(bridge) = of(Peer::Bridge) else {
            continue;
        };
        let (name, cell) = (ours.peer.name(), ours.cell);
        match ours.pattern {
            "connect" => {
                let limit = if cell.ports == 0 { 0.5 } else { 0.3 };
                let measured = ratio(median(ours), bridge);
                goals.push(goal(
                    &format!("{name}, {cell}: of Docker's bridge"),
                    measured,
                    limit,
                ));
            }
            // On 28 and newer the container's own start hides the network; what counts is its share.
            "run" if docker == Version::Sid => {
                let Some(none) = of(Peer::None) else { continue };
                let measured = ratio(median(ours) - none, bridge - none);
                goals.push(goal(
                    &format!("{name}, {cell}: network's share of the bridge's"),
                    measured,
                    0.6,
                ));
            }
            "run" => {
                let measured = ratio(median(ours), bridge);
                goals.push(goal(
                    &format!("{name}, {cell}: of Docker's bridge"),
                    measured,
                    1.0,
                ));
            }
            _ => {}
        }
    }
    goals
}

pub(super) fn print_goals(goals: &[Goal]) {
    term::heading("goals");
    for Goal {
        text,
        measured,
        limit,
        met,
    } in goals
    {
        let verdict = if *met {
            term::paint("met", Colour::Green)
        } else {
            term::paint("NOT MET", Colour::Red)
        };
        println!("  {verdict}  {text}: {measured:.2}x (goal: at most {limit:.2}x)");
    }
}

fn goal(text: &str, measured: f64, limit: f64) -> Goal {
    Goal {
        text: text.to_owned(),
        measured,
        limit,
        met: measured <= limit,
    }
}

fn find<'a>(rows: &'a [Row], cell: Cell, pattern: &str, peer: Peer) -> Option<&'a Row> {
    rows.iter()
        .find(|row| row.cell == cell && row.pattern == pattern && row.peer == peer)
}

#[allow(
    clippy::cast_precision_loss,
    reason = "microseconds of an operation are far below 2^52"
)]
fn median(row: &Row) -> f64 {
    row.percentile(50) as f64
}

fn min(row: &Row) -> u64 {
    row.percentile(0)
}

fn ratio(ours: f64, theirs: f64) -> f64 {
    if theirs > 0.0 {
        ours / theirs
    } else {
        f64::NAN
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "microseconds of an operation are far below 2^52"
)]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::super::cell::Operation;
    use super::*;

    fn row(peer: Peer, pattern: &'static str, operation: Operation, time_us: u64) -> Row {
        let cell = Cell {
            operation,
            ports: 0,
            parallel: 1,
            present: 0,
        };
        Row {
            cell,
            peer,
            pattern,
            times_us: vec![time_us],
        }
    }

    #[test]
    fn a_goal_that_is_missed_says_so() {
        let connect = |peer, time| row(peer, "connect", Operation::Connect, time);
        let met = |ours| {
            let rows = [connect(Peer::Netloom, ours), connect(Peer::Bridge, 1000)];
            goals(&rows, Version::Bookworm).iter().all(|goal| goal.met)
        };
        assert!(met(500));
        assert!(!met(501));
    }

    #[test]
    fn on_new_dockers_only_the_networks_share_counts() {
        let run = |peer, time| row(peer, "run", Operation::Run, time);
        let rows = [
            run(Peer::Netloom, 1060),
            run(Peer::Bridge, 1100),
            run(Peer::None, 1000),
        ];
        let goals = goals(&rows, Version::Sid);
        assert_eq!(goals.len(), 1);
        assert!(goals[0].met, "{goals:?}");
    }
}
