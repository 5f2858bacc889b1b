//! The crash matrix: the daemon dies at every step of every command, and nothing is lost, leaked
//! or doubled.
//!
//! A life of networks and containers on a real dockerd is lived once without a kill, to see which
//! named points each command passes; a point of the source that nothing passes fails the test. Then
//! it is lived again and again with a death in every command, by plan or by strace, and with a
//! second one in the recovery from it. A command in which a daemon died succeeds, or fails clearly
//! and its repeat succeeds; at the end nothing is left, without any repair by hand.

mod attempt;
mod hidden;
mod life;
mod machine;
mod matrix;
mod points;
mod syscalls;
mod tally;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::suite::Tally;
use crate::{TestArgs, term};
use matrix::{Extent, Machines};
use tally::Seen;

pub(crate) use hidden::pool_reference;
pub(crate) use machine::build;

/// Runs the smoke, or with `--full` the whole matrix. Needs root and the programs of [`build`].
///
/// # Errors
/// When the lab itself fails, or a life without a kill does.
pub(crate) fn run(args: &TestArgs) -> Result<Tally> {
    term::heading("Crash matrix");
    netloom_lab::sweep_abandoned();
    let extent = if args.long {
        Extent::Full
    } else {
        Extent::Smoke
    };
    // A filter is for a suite that is asked for alone; all others have no pairs of step and point.
    let filter = args.only.and(args.filter.as_deref()).unwrap_or_default();
    let start = Instant::now();
    let programs = machine::programs()?;
    let seen = lives(&programs, extent, filter)?;
    term::aside(&format!("{:.0} s", start.elapsed().as_secs_f32()));
    Ok(seen.tally())
}

fn lives(programs: &Path, extent: Extent, filter: &str) -> Result<Seen> {
    let all = points::all()?;
    let mut seen = Seen::default();
    let mut machines = Machines {
        programs,
        kept: None,
    };
    let machine = machines.take().context("the first machine")?;
    let listing = match matrix::list(&machine) {
        Ok(listing) => listing,
        Err(e) => {
            machine.last_words();
            return Err(e);
        }
    };
    machines.kept = Some(machine);
    for name in matrix::unreached(&all, &listing.reached()) {
        seen.failed(format!("{name} was not passed by any step"));
    }
    for (name, reason) in points::EXCUSED {
        term::say(&format!("not tried: {name}: {reason}"));
    }
    let listing = listing.filtered(filter);
    matrix::run(&listing, extent, &mut machines, &mut seen)?;
    if filter.is_empty() || "system call".contains(filter) {
        syscalls::run(extent, &mut machines, &mut seen)?;
    }
    if extent == Extent::Full && filter.is_empty() {
        let reached = listing.reached();
        let alive = all.iter().filter(|n| reached.contains(n.as_str()));
        let alive: Vec<_> = alive
            .filter(|n| !seen.killed_at.contains(*n))
            .cloned()
            .collect();
        for name in alive {
            seen.failed(format!("{name} was passed, but killed nobody"));
        }
    }
    seen.tell(all.len() - points::EXCUSED.len());
    Ok(seen)
}
