//! Durable allocation: what an acknowledged address costs beside one raw write, and what many
//! callers get together.
//!
//! All subjects are opened first and then measured in short turns, many times; a subject's figures
//! are the best of its turns, because noise only takes away. The disk is shared with whatever else
//! runs, so costs are compared by the median: one slow sync of a neighbour must not decide.

mod figures;
mod peers;
mod subjects;

use crate::report::{Gate, print};
use figures::{Figure, Turn};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, clap::Args)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "flags of a command line, independent of each other"
)]
pub(crate) struct Args {
    /// Print one flat JSON object a line instead of the table.
    #[arg(long)]
    json: bool,
    /// Finish within 30 seconds.
    #[arg(long)]
    quick: bool,
    /// Exit with 1 when a gate fails.
    #[arg(long)]
    check: bool,
    /// The directory whose disk is measured; a temporary one is made in it.
    #[arg(long)]
    directory: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let base = args.directory.clone().unwrap_or_else(std::env::temp_dir);
    let directory = tempfile::tempdir_in(base)?;
    let (turns, turn) = if args.quick { QUICK } else { FULL };
    let mut subjects = subjects::all(directory.path())?;
    let mut figures: Vec<Option<Figure>> = vec![None; subjects.len()];
    for _ in 0..turns {
        for (subject, best) in subjects.iter_mut().zip(&mut figures) {
            let figure = subject.take_turn(turn)?;
            *best = Some(match best.take() {
                None => figure,
                Some(before) => before.best_of(figure),
            });
        }
    }
    let figures: Vec<Figure> = figures.into_iter().flatten().collect();
    let gates = gates(&figures);
    if args.json {
        figures::print_json(&figures)?;
    } else {
        figures::print_table(&figures);
        gates.iter().for_each(|gate| print(&gate.line()));
    }
    let failed = gates.iter().any(|gate| !gate.passes());
    Ok(if args.check && failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Something that makes one thing durable again and again.
trait Subject {
    /// Does so for `turn`.
    fn take_turn(&mut self, turn: Turn) -> anyhow::Result<Figure>;
}

fn gates(figures: &[Figure]) -> Vec<Gate> {
    let rate = |subject: &str, callers: usize| {
        let same = |f: &&Figure| f.subject == subject && f.callers == callers;
        let rates = figures.iter().filter(same).map(|f| f.ops_per_s);
        rates.fold(0.0, f64::max)
    };
    let median = |subject: &str| {
        let same = |f: &&Figure| f.subject == subject && f.callers == 1;
        figures.iter().find(same).map_or(f64::NAN, |f| f.p50_us)
    };
    let (raw, raw_us) = (rate("raw-write", 1), median("raw-write"));
    vec![
        Gate {
            name: "one durable address, times one raw write and sync".to_owned(),
            value: median("netloom-ipam") / raw_us,
            at_most: 1.3,
        },
        Gate {
            name: "one journalled event, times one raw write and sync".to_owned(),
            value: median("netloom-journal") / raw_us,
            at_most: 1.3,
        },
        Gate {
            name: "64 callers of the journal: 12 raw rates, over theirs".to_owned(),
            value: 12.0 * raw / rate("netloom-journal", 64),
            at_most: 1.0,
        },
        Gate {
            name: "64 callers of addresses: 12 raw rates, over theirs".to_owned(),
            value: 12.0 * raw / rate("netloom-ipam", 64),
            at_most: 1.0,
        },
    ]
}

/// Thirteen subjects: 26 seconds with the opening.
const QUICK: (u32, Turn) = (20, Turn(Duration::from_millis(80)));
const FULL: (u32, Turn) = (60, Turn(Duration::from_millis(150)));
