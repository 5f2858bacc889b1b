//! `cargo xtask bench attach`: what it costs to attach a container, beside Docker's own bridge.
//!
//! One dockerd serves all peers of a run, and their repetitions are interleaved, so that what the
//! machine does beside hits all of them alike. Only ratios between rows of one run say something.
#![allow(
    clippy::struct_excessive_bools,
    reason = "flags of a command line are what they are"
)]

mod cell;
mod fixture;
mod report;

use anyhow::{Context, Result};
use clap::Parser;
use netloom_lab::Version;

use crate::{Consent, interrupt, repo, setup};
use cell::{Cell, Operation};
use fixture::Fixture;

/// What `cargo xtask bench attach` understands.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask bench attach",
    after_help = "Examples:
  cargo xtask bench attach --quick         one cell: connect, no ports, one at a time
  cargo xtask bench attach                 the usual cells on Docker 20.10
  cargo xtask bench attach --full          every cell; takes half an hour
  cargo xtask bench attach --full --only '200 present'
  cargo xtask bench attach --docker sid    on the newest Docker"
)]
struct AttachArgs {
    #[command(flatten)]
    consent: Consent,
    /// On this Docker: bookworm (20.10), trixie (26.1), sid (28 or newer)
    #[arg(long, default_value = "bookworm", value_name = "RELEASE")]
    docker: Version,
    /// One JSON object a line instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    extent: Extent,
    /// Only cells whose name contains this, such as "run, 50 ports" or "200 present"
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Fail when a goal is not met
    #[arg(long)]
    check: bool,
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct Extent {
    /// One cell and few repetitions
    #[arg(long)]
    quick: bool,
    /// Every cell: 0 and 50 ports, 1 and 8 at a time, 0 and 200 containers present
    #[arg(long)]
    full: bool,
}

/// Runs the bench; `false` where `--check` found a goal that is not met.
pub(crate) fn run(rest: &[String]) -> Result<bool> {
    let words = std::iter::once("attach".to_owned()).chain(rest.iter().cloned());
    let args = AttachArgs::try_parse_from(words).unwrap_or_else(|error| error.exit());
    anyhow::ensure!(repo::is_root(), "namespaces need root; run it with sudo");
    setup::run(&args.consent, &[args.docker])?;
    let programs = repo::build_release_programs()?;
    interrupt::remove_machines_on_interrupt()?;

    // Samples per row: eight at a time give eight a round.
    let samples: usize = if args.extent.quick { 8 } else { 15 };
    let mut rows = Vec::new();
    let mut fixture = Fixture::start(args.docker, &programs).context("the lab's machine")?;
    let version = fixture.docker_version()?;
    if !args.json {
        report::header(&version);
    }
    let only = args.only.as_deref().unwrap_or_default();
    let chosen = cells(&args.extent).into_iter();
    // Told cell by cell: what was measured is not lost when a long run is cut off.
    for cell in chosen.filter(|cell| cell.to_string().contains(only)) {
        fixture.fill(cell.present)?;
        let rounds = samples.div_ceil(cell.parallel).max(ROUNDS_MIN);
        let measured = cell::measure(&fixture, cell, rounds)?;
        if args.json {
            report::json_lines(&measured, &version)?;
        } else {
            report::table(&measured);
        }
        rows.extend(measured);
    }
    let met = report::goals(&rows, args.docker);
    if !args.json {
        report::print_goals(&met);
    }
    Ok(!args.check || met.iter().all(|goal| goal.met))
}

/// Fewer rounds than this would let one hiccup of the machine speak for a row.
const ROUNDS_MIN: usize = 3;

/// The cells in an order in which the count of present containers only grows.
fn cells(extent: &Extent) -> Vec<Cell> {
    if extent.quick {
        return vec![Cell {
            operation: Operation::Connect,
            ports: 0,
            parallel: 1,
            present: 0,
        }];
    }
    let (parallels, presents): (&[usize], &[usize]) = if extent.full {
        (&[1, 8], &[0, 200])
    } else {
        (&[1], &[0])
    };
    let mut cells = Vec::new();
    for &present in presents {
        for &parallel in parallels {
            for ports in [0, 50] {
                for operation in [Operation::Connect, Operation::Run] {
                    cells.push(Cell {
                        operation,
                        ports,
                        parallel,
                        present,
                    });
                }
            }
        }
    }
    cells
}
