//! One process of many: prepares, says so, waits for the word, works for a turn and reports.

use super::histogram::Laps;
use super::job::{Job, Outcome, Random, Work, read_line, write_line};
use super::limits::{self, CasOwnKey, CasSharedKey, KeyPerAddress, RawWrite};
use super::whole::{self, Whole};
use super::{plugin, subject};
use async_trait::async_trait;
use netloom_core::store::Store;
use netloom_store::CountingStore;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Somebody who does one thing after another.
#[async_trait]
pub(super) trait Caller: Send {
    /// Does it once.
    async fn step(&mut self) -> anyhow::Result<Step>;
}

/// What a step came to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// It took so long.
    Took(Duration),
    /// There is nothing more to take.
    Over,
}

#[allow(clippy::disallowed_methods, reason = "a bench measures real time")]
pub(super) fn begin() -> Instant {
    Instant::now()
}

/// The worker's whole life; it is told everything on its standard input.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let job: Job = read_line(&mut input)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let store = CountingStore::new(job.store.open(&job.directory)?);
    let store = Arc::new(store);
    if matches!(job.work, Work::PluginNetloom | Work::PluginNothing) {
        let pool = runtime.block_on(plugin::serve(&job, store))?;
        write_line(&mut output, &pool)?;
        // Until the parent closes it.
        drop(read_line::<bool>(&mut input));
        return Ok(ExitCode::SUCCESS);
    }
    let callers = runtime.block_on(callers(&job, &store))?;
    write_line(&mut output, &true)?;
    let _: bool = read_line(&mut input)?;
    let outcome = runtime.block_on(turn(&job, &store, callers))?;
    write_line(&mut output, &outcome)?;
    Ok(ExitCode::SUCCESS)
}

async fn callers(job: &Job, counting: &Arc<CountingStore>) -> anyhow::Result<Vec<Box<dyn Caller>>> {
    let store = Arc::clone(counting) as Arc<dyn Store>;
    if !job.store.is_shared() {
        prepare(job.work, &*store).await?;
    }
    if let Work::Netloom { pattern } = job.work {
        let (manager, pool) = subject::open(job, store, pattern).await?;
        return subject::callers(job, &manager, &pool, pattern).await;
    }
    let mut callers: Vec<Box<dyn Caller>> = Vec::new();
    for caller in 0..job.callers {
        callers.push(one(job, caller, Arc::clone(&store)).await?);
    }
    Ok(callers)
}

/// What the row finds in its store: made once for all its hosts.
pub(super) async fn prepare(work: Work, store: &dyn Store) -> anyhow::Result<()> {
    match work {
        Work::CasSharedKey => limits::prepare_shared(store).await,
        Work::Whole { pattern, .. } => whole::prepare(store, pattern).await,
        _ => Ok(()),
    }
}

async fn one(job: &Job, caller: usize, store: Arc<dyn Store>) -> anyhow::Result<Box<dyn Caller>> {
    let name = format!("{}-{caller}", job.host);
    let place = job.host * job.callers + caller;
    let random = Random::new(u64::try_from(place).unwrap_or(0));
    Ok(match job.work {
        Work::RawWrite => Box::new(RawWrite::new(&job.directory.join(name))?),
        Work::CasOwnKey => Box::new(CasOwnKey::new(store, &name).await?),
        Work::CasSharedKey => Box::new(CasSharedKey { store }),
        Work::KeyPerAddress => Box::new(KeyPerAddress { store, random }),
        Work::Whole { pattern, text } => {
            let live = Vec::new();
            let mut whole = Whole {
                store,
                pattern,
                text,
                random,
                live,
            };
            whole.adopt(place, job.hosts * job.callers).await?;
            Box::new(whole)
        }
        Work::Netloom { .. } | Work::PluginNetloom | Work::PluginNothing => {
            anyhow::bail!("{:?} has callers of its own", job.work)
        }
    })
}

async fn turn(
    job: &Job,
    store: &CountingStore,
    callers: Vec<Box<dyn Caller>>,
) -> anyhow::Result<Outcome> {
    let (before, cpu_before) = (store.counts(), cpu_us()?);
    let begun = begin();
    let until = begun + Duration::from_millis(job.turn_ms);
    let tasks: Vec<_> = callers
        .into_iter()
        .map(|caller| tokio::spawn(work(caller, until)))
        .collect();
    let mut outcome = Outcome::default();
    for task in tasks {
        let (operations, laps) = task.await??;
        outcome.operations += operations;
        outcome.laps.add_laps(&laps);
    }
    let after = store.counts();
    outcome.seconds = begun.elapsed().as_secs_f64();
    outcome.store_writes = after.commits - before.commits;
    outcome.store_reads = (after.gets + after.lists + after.identities)
        - (before.gets + before.lists + before.identities);
    outcome.cpu_us = cpu_us()? - cpu_before;
    Ok(outcome)
}

async fn work(mut caller: Box<dyn Caller>, until: Instant) -> anyhow::Result<(u64, Laps)> {
    let mut laps = Laps::default();
    let mut operations = 0;
    while begin() < until {
        match caller.step().await? {
            Step::Took(took) => laps.note(took),
            Step::Over => break,
        }
        operations += 1;
    }
    Ok((operations, laps))
}

fn cpu_us() -> anyhow::Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    #[allow(clippy::cast_precision_loss, reason = "hours would not fill 52 bits")]
    Ok(us as f64)
}
