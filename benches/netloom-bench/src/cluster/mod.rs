//! Addresses of many hosts: real processes, each with a manager and a journal of its own, on one
//! real store server.
//!
//! Beside them, in the same run: what the store itself gives at most, what the disk gives at most,
//! and the design of old, which kept the whole bitmap of a pool in one key. The worker processes are
//! this program once more; all of a row begin together. Everything shares the machine's processors,
//! the server included, so that only ratios within a run mean something.

mod bitmap;
mod figures;
mod fleet;
mod gates;
mod histogram;
mod job;
mod limits;
mod nothing;
mod plugin;
mod subject;
mod whole;
pub(crate) mod worker;

use crate::report::print;
use figures::{Figure, Row};
use fleet::Ground;
use job::{Pattern, Work};
use netloom_core::StoreKind;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, clap::Args)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "flags of a command line, independent of each other"
)]
pub(crate) struct Args {
    /// The store that all hosts share.
    #[arg(long, value_enum)]
    store: Which,
    /// How many hosts; rows with one host are always there.
    #[arg(long, default_value_t = 8)]
    hosts: usize,
    /// Print one flat JSON object a line instead of the table.
    #[arg(long)]
    json: bool,
    /// Finish within 60 seconds.
    #[arg(long)]
    quick: bool,
    /// Exit with 1 when a gate fails.
    #[arg(long)]
    check: bool,
    /// The directory whose disk is measured; a temporary one is made in it.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Only rows of this pattern or implementation.
    #[arg(long)]
    only: Option<String>,
}

/// A store, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    Etcd,
    Consul,
    #[value(alias = "zk")]
    Zookeeper,
    /// The embedded one: all callers in one process.
    File,
}

impl Which {
    fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Consul => "consul",
            Self::Zookeeper => "zookeeper",
            Self::File => "file",
        }
    }

    fn kind(self) -> Option<StoreKind> {
        match self {
            Self::Etcd => Some(StoreKind::Etcd),
            Self::Consul => Some(StoreKind::Consul),
            Self::Zookeeper => Some(StoreKind::ZooKeeper),
            Self::File => None,
        }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let turn = if args.quick { QUICK } else { FULL };
    let base = args.directory.clone().unwrap_or_else(std::env::temp_dir);
    let mut ground = Ground::new(args.store.kind(), base, turn)?;
    if !args.json {
        figures::print_head(args.store.name());
    }
    let mut found = Vec::new();
    let wanted = |row: &Row| {
        let only = args.only.as_deref();
        only.is_none_or(|only| row.subject() == only || row.pattern() == only)
    };
    for row in rows(args.hosts.max(1)).into_iter().filter(wanted) {
        let figure = match row.work {
            Work::PluginNetloom | Work::PluginNothing => {
                plugin::measure(&mut ground, row.work, row.callers, turn)?
            }
            _ => ground.measure(row)?,
        };
        if !args.json {
            figures::print_row(&figure);
        }
        found.push(figure);
    }
    conclude(args, &found)
}

fn conclude(args: &Args, found: &[Figure]) -> anyhow::Result<ExitCode> {
    let mut gates = gates::model_is_faithful(found);
    gates.extend(gates::goals(found, args.hosts.max(1)));
    // Rows that were left out on the command line promise nothing.
    gates.retain(|gate| gate.value.is_finite());
    if args.json {
        figures::print_json(args.store.name(), found)?;
    } else {
        gates::ratios(found, args.hosts.max(1))
            .iter()
            .for_each(|line| print(line));
        gates.iter().for_each(|gate| print(&gate.line()));
    }
    let failed = gates.iter().any(|gate| !gate.passes());
    Ok(if args.check && failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// The rows of a run, in their order.
fn rows(hosts: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    let sizes = if hosts == 1 { vec![1] } else { vec![1, hosts] };
    let mut add = |work, hosts, callers| {
        rows.push(Row {
            work,
            hosts,
            callers,
        });
    };
    for n in sizes {
        add(Work::RawWrite, n, 1);
        add(Work::CasOwnKey, n, 1);
        add(Work::CasSharedKey, n, 1);
        add(Work::KeyPerAddress, n, 1);
        for pattern in [Pattern::Fresh, Pattern::Half, Pattern::Churn] {
            add(
                Work::Whole {
                    pattern,
                    text: true,
                },
                n,
                1,
            );
            if pattern == Pattern::Half {
                add(
                    Work::Whole {
                        pattern,
                        text: false,
                    },
                    n,
                    1,
                );
            }
        }
        for pattern in [Pattern::Fresh, Pattern::Half, Pattern::Churn] {
            let many = match pattern {
                // All callers of all hosts hold an address at once: half of the pool.
                Pattern::Churn => (128 / n).clamp(2, MANY),
                Pattern::Fresh | Pattern::Half => MANY,
            };
            add(Work::Netloom { pattern }, n, 1);
            add(Work::Netloom { pattern }, n, many);
        }
    }
    add(Work::PluginNothing, 1, MANY);
    add(Work::PluginNetloom, 1, MANY);
    rows
}

/// Requests under way at once on a host that is busy.
const MANY: usize = 64;
/// Thirty rows, and the making of half full pools.
const QUICK: Duration = Duration::from_millis(1000);
const FULL: Duration = Duration::from_secs(4);
