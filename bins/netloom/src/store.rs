//! The commands that work on a store itself.

use crate::Verdict;
use crate::args::{Access, StoreCommand};
use crate::commands::Output;
use anyhow::{Context, bail};
use netloom_core::store::Store;
use netloom_core::{ClientIdentity, Login, RemoteStoreConfig, StoreUrl, SystemClock, TlsFiles};
use netloom_ipam::{Problem, store_check, store_copy, store_dump};
use netloom_store::EmbeddedStore;
use netloom_stores::SharedStore;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

/// One record, as `store dump` prints it.
#[derive(Debug, Serialize)]
struct Row {
    key: String,
    record: serde_json::Value,
}

/// What `store check` found.
#[derive(Debug, Serialize)]
struct Report {
    problems: Vec<Found>,
}

#[derive(Debug, Serialize)]
struct Found {
    key: String,
    what: String,
}

/// What `store copy` did.
#[derive(Debug, Serialize)]
struct Moved {
    records: u64,
    epoch: u64,
}

pub(crate) async fn run(output: Output, command: StoreCommand) -> anyhow::Result<Verdict> {
    match command {
        StoreCommand::Check { url, access } => check(output, &*open(&url, &access)?).await,
        StoreCommand::Dump { url, access } => dump(output, &*open(&url, &access)?).await,
        StoreCommand::Copy {
            from,
            to,
            access,
            to_ca,
        } => copy(output, (&from, &to), &access, to_ca).await,
    }
}

async fn check(output: Output, store: &dyn Store) -> anyhow::Result<Verdict> {
    let problems = store_check(store).await?;
    let found = |problem: Problem| Found {
        key: problem.key.to_string(),
        what: problem.what,
    };
    let report = Report {
        problems: problems.into_iter().map(found).collect(),
    };
    output.print(&report, |report| {
        let mut text = String::new();
        for Found { key, what } in &report.problems {
            let _ = writeln!(text, "{key} {what}");
        }
        match report.problems.len() {
            0 => text.push_str("every record can be read, and they agree\n"),
            count => {
                let _ = writeln!(text, "{count} found");
            }
        }
        text
    })?;
    Ok(if report.problems.is_empty() {
        Verdict::Fine
    } else {
        Verdict::Findings
    })
}

async fn dump(output: Output, store: &dyn Store) -> anyhow::Result<Verdict> {
    let rows: Vec<Row> = store_dump(store)
        .await?
        .into_iter()
        .map(|(key, record)| Row {
            key: key.to_string(),
            record,
        })
        .collect();
    output.print(&rows, |rows| {
        let mut text = String::new();
        for row in rows {
            let line = serde_json::to_string(row).unwrap_or_default();
            let _ = writeln!(text, "{line}");
        }
        text
    })
}

async fn copy(
    output: Output,
    (from, to): (&StoreUrl, &StoreUrl),
    access: &Access,
    to_ca: Option<PathBuf>,
) -> anyhow::Result<Verdict> {
    if from == to {
        bail!("both addresses are the same store");
    }
    let old = open(from, access)?;
    let mut there = access.clone();
    there.ca = to_ca.or(there.ca);
    let new = open(to, &there)?;
    let done = store_copy(&*old, &*new, &to.to_string(), &SystemClock::new()).await?;
    let moved = Moved {
        records: done.records,
        epoch: done.epoch,
    };
    output.print(&moved, |moved| {
        format!(
            "{} records copied; epoch {} begins in {to}\nnext: set store = \"{to}\" on every host, \
             and restart netloomd there\n",
            moved.records, moved.epoch
        )
    })
}

fn open(url: &StoreUrl, access: &Access) -> anyhow::Result<Arc<dyn Store>> {
    match url {
        StoreUrl::File(path) => {
            if !path.exists() {
                bail!("there is no store at {}", path.display());
            }
            let store = EmbeddedStore::open(path)
                .with_context(|| format!("opening {}: is its daemon stopped?", path.display()))?;
            Ok(Arc::new(store))
        }
        StoreUrl::Remote(remote) => {
            let mut config = RemoteStoreConfig::new(remote.clone());
            config.tls = TlsFiles {
                ca: access.ca.clone(),
                identity: access
                    .cert
                    .clone()
                    .zip(access.key.clone())
                    .map(|(cert, key)| ClientIdentity { cert, key }),
            };
            config.login = match (&access.user, &access.password_file, &access.token_file) {
                (Some(user), Some(file), _) => Login::Password {
                    user: user.clone(),
                    password_file: file.clone(),
                },
                (_, _, Some(file)) => Login::Token {
                    token_file: file.clone(),
                },
                _ => Login::Nobody,
            };
            Ok(Arc::new(SharedStore::new(config)))
        }
    }
}
