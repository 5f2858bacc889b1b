//! Allocation in memory: release a random address, allocate any; fill; specific; threads.
//!
//! All subjects of a cell are built first and then measured in turns, several times; the least of a
//! subject's times is its figure, because noise only adds. A pair is one release and one
//! allocation. The random live addresses are drawn, and the new ones filed, outside of the time.

mod gates;
pub(crate) mod instructions;
mod measure;
mod patterns;
mod subjects;
mod table;

use crate::report;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
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
    let mut rows = patterns::all(effort);
    let mut gates = gates::all(&rows);
    if gates.iter().any(|gate| !gate.passes()) {
        // Other programs on the machine may have had the caches all the while: twice the
        // repetitions, before a gate is said to fail.
        merge(&mut rows, &patterns::all(effort));
        gates = gates::all(&rows);
    }
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

/// Keeps the lesser time of each cell. Both runs have the same rows in the same order.
fn merge(rows: &mut [report::Row], again: &[report::Row]) {
    for (row, other) in rows.iter_mut().zip(again) {
        if row.metric == "ns_per_op" {
            row.value = row.value.min(other.value);
        }
    }
}
