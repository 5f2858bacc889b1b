//! Allocation in memory: release a random address, allocate any; fill; specific; threads.
//!
//! All subjects of a cell are built first and then measured in turns, several times; the least of a
//! subject's times is its figure, because noise only adds. A pair is one release and one
//! allocation. Picking the random live address and noting the new one is part of every subject's
//! time alike, the limit's too.

mod gates;
pub(crate) mod instructions;
mod measure;
mod patterns;
mod subjects;
mod table;

use crate::report;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print one flat JSON object a line instead of the table.
    #[arg(long)]
    json: bool,
    /// Finish within 30 seconds: shorter samples, and the widest pool for few subjects only.
    #[arg(long)]
    quick: bool,
    /// Exit with 1 when a gate fails.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let effort = if args.quick {
        measure::Effort::QUICK
    } else {
        measure::Effort::FULL
    };
    let rows = patterns::all(effort);
    let gates = gates::all(&rows);
    if args.json {
        report::print_json(&rows)?;
    } else {
        table::print(&rows, &gates);
    }
    let failed = gates.iter().any(|gate| !gate.passes());
    Ok(if args.check && failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
