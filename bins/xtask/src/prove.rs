//! `cargo xtask prove`: model check, simulation, planted bugs and histories of real stores; and
//! docs/PROOFS.md, written from their results and nothing else.

mod page;

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::{Consent, repo, setup, term};

/// One kind of proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Proof {
    /// All states of a small model, planted bugs included
    Model,
    /// The real code of many hosts in a simulated world
    Sim,
    /// Bugs planted into the simulation, each of which must be found
    Planted,
    /// Real hosts on real stores under faults
    Histories,
}

impl Proof {
    const ALL: [Self; 4] = [Self::Model, Self::Sim, Self::Planted, Self::Histories];
}

/// A store of the histories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProofStore {
    Etcd,
    Consul,
    Zookeeper,
    /// A store of the host's own
    File,
}

impl ProofStore {
    const ALL: [Self; 4] = [Self::Etcd, Self::Consul, Self::Zookeeper, Self::File];

    const fn word(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Consul => "consul",
            Self::Zookeeper => "zookeeper",
            Self::File => "file",
        }
    }
}

#[derive(Debug, Clone, Args)]
#[allow(clippy::struct_excessive_bools, reason = "the flags of a command line")]
#[command(after_help = "Examples:
  cargo xtask prove --quick                        all proofs in some minutes
  cargo xtask prove --only sim --seeds 1000000     a million worlds
  cargo xtask prove --only histories --store etcd --minutes 30
  cargo xtask prove --page                         write docs/PROOFS.md again from the last results

Results are kept in benches/netloom-proof/results, one file a proof; a proof that does not run keeps
its last one.")]
pub(crate) struct ProveArgs {
    #[command(flatten)]
    consent: Consent,
    /// Only this proof.
    #[arg(long)]
    only: Option<Proof>,
    /// Worlds of the simulation.
    #[arg(long)]
    seeds: Option<u64>,
    /// No longer than this: each walk of the model, and each store's load.
    #[arg(long)]
    minutes: Option<u64>,
    /// Histories of this store alone.
    #[arg(long)]
    store: Option<ProofStore>,
    /// Small numbers, for a look.
    #[arg(long)]
    quick: bool,
    /// Prove nothing; write the page from the results that are there.
    #[arg(long)]
    page: bool,
}

/// One call of netloom-proof, and where its results go.
struct Step {
    name: String,
    words: Vec<String>,
}

/// Runs what was asked for; `false` where a proof failed.
pub(crate) fn run(args: &ProveArgs) -> Result<bool> {
    let mut all_hold = true;
    if !args.page {
        let on_stores = |only| matches!(only, Proof::Histories | Proof::Planted);
        if args.only.is_none_or(on_stores) {
            setup::stores(&args.consent)?;
        }
        for step in steps(args) {
            let holds = prove(&step)?;
            if !holds {
                term::failure(&format!("{} does not hold", step.name));
            }
            all_hold &= holds;
        }
    }
    write_page()?;
    Ok(all_hold)
}

fn steps(args: &ProveArgs) -> Vec<Step> {
    let proofs = args.only.map_or(Proof::ALL.to_vec(), |only| vec![only]);
    let mut steps = Vec::new();
    for proof in proofs {
        match proof {
            Proof::Histories => {
                let stores = args.store.map_or(ProofStore::ALL.to_vec(), |s| vec![s]);
                steps.extend(stores.into_iter().map(|store| histories(args, store)));
            }
            Proof::Model => steps.push(model(args)),
            Proof::Sim => {
                let seeds = args.seeds.unwrap_or(if args.quick { 300 } else { 20_000 });
                steps.push(step("sim", &["sim", "--seeds", &seeds.to_string()]));
            }
            Proof::Planted => {
                let seeds = args.seeds.unwrap_or(20_000).to_string();
                steps.push(step("planted", &["sim", "--all-bugs", "--seeds", &seeds]));
                let store = args.store.unwrap_or(ProofStore::Etcd).word();
                let words = ["histories", "--all-bugs", "--store", store];
                steps.push(step("planted-histories", &words));
            }
        }
    }
    steps
}

fn step(name: &str, words: &[&str]) -> Step {
    Step {
        name: name.to_owned(),
        words: words.iter().map(|word| (*word).to_owned()).collect(),
    }
}

fn model(args: &ProveArgs) -> Step {
    let walks = if args.quick { "quick" } else { "full" };
    let minutes = args.minutes.unwrap_or(60).to_string();
    step("model", &["model", "--walks", walks, "--minutes", &minutes])
}

fn histories(args: &ProveArgs, store: ProofStore) -> Step {
    let name = format!("histories-{}", store.word());
    let mut words = vec!["histories", "--store", store.word()];
    let minutes = args.minutes.map(|minutes| minutes.to_string());
    if args.quick {
        words.push("--quick");
    }
    if let Some(minutes) = &minutes {
        words.extend(["--minutes", minutes]);
    }
    step(&name, &words)
}

fn results() -> PathBuf {
    repo::root().join("benches/netloom-proof/results")
}

/// Runs one step and keeps its results; whether it holds.
fn prove(step: &Step) -> Result<bool> {
    let mut command = repo::cargo();
    command
        .args(["run", "--quiet", "--release", "-p", "netloom-proof", "--"])
        .args(&step.words)
        .arg("--json")
        .stderr(Stdio::inherit());
    let output = command.output()?;
    let value: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{} ended with {} and no results", step.name, output.status))?;
    fs::create_dir_all(results())?;
    let path = results().join(format!("{}.json", step.name));
    fs::write(path, serde_json::to_string_pretty(&value)? + "\n")?;
    Ok(output.status.success())
}

/// Writes docs/PROOFS.md from the results that are there.
fn write_page() -> Result<()> {
    let read = |name: &str| -> Result<Option<Value>> {
        match fs::read(results().join(format!("{name}.json"))) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.into()),
        }
    };
    let mut runs = Vec::new();
    for store in ProofStore::ALL {
        if let Some(Value::Array(reports)) = read(&format!("histories-{}", store.word()))? {
            runs.extend(reports);
        }
    }
    let page = page::Page {
        model: read("model")?,
        sim: read("sim")?,
        planted: read("planted")?,
        planted_histories: read("planted-histories")?,
        histories: runs,
    };
    let text = page.text();
    ensure!(!text.is_empty(), "a page has text");
    fs::write(repo::root().join("docs/PROOFS.md"), text)?;
    Ok(())
}
