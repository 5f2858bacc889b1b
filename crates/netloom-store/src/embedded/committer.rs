//! The one thread that writes: it gathers what waits and writes it at one go.

use super::Shared;
use super::file::{self, META, ROWS, ReadError, Totals};
use super::health::Poisoned;
use crate::rules::{self, Incarnation};
use netloom_core::crash_point;
use netloom_core::store::{CommitError, Committed, Key, Operation, Transaction};
use redb::{ReadableTable, Table, WriteTransaction};
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// Transactions that share one write to the disk: enough that the sync no longer counts, few
/// enough that a batch of largest transactions (256 KiB each) stays below 32 MiB.
const BATCH_MAX: usize = 128;
/// Transactions that may wait; more callers wait for room.
const QUEUE_MAX: usize = 1024;

type Outcome = Result<Committed, CommitError>;

#[derive(Debug)]
struct Job {
    transaction: Transaction,
    reply: oneshot::Sender<Outcome>,
}

/// The callers' end of the queue, and the thread at its other end.
#[derive(Debug)]
pub(crate) struct Committer {
    queue: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    /// Starts the thread.
    pub(crate) fn start(shared: Arc<Shared>) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("netloom-store".into())
            .spawn(move || run(&shared, jobs))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// Has a valid transaction committed.
    pub(crate) async fn commit(&self, transaction: Transaction) -> Outcome {
        let (reply, outcome) = oneshot::channel();
        let closed = || CommitError::Unavailable(Some("the store was closed".into()));
        let queue = self.queue.as_ref().ok_or_else(closed)?;
        let job = Job { transaction, reply };
        queue.send(job).await.map_err(|_| closed())?;
        // The thread ended with the job in its hands: it may have written it.
        outcome.await.unwrap_or_else(|_| {
            Err(CommitError::Unknown(Some(
                "the store's writer ended in the middle of the change".into(),
            )))
        })
    }
}

impl Drop for Committer {
    /// Waits until everything in the queue is written, so that the file is free afterwards.
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported to those who waited for it.
            let _ = thread.join();
        }
    }
}

/// Takes what waits, and never waits for more once there is something: a lone caller's change is
/// written at once, and what arrives meanwhile makes the next batch.
fn run(shared: &Shared, mut jobs: mpsc::Receiver<Job>) {
    let incarnation = Incarnation::random();
    while let Some(first) = jobs.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX
            && let Ok(next) = jobs.try_recv()
        {
            batch.push(next);
        }
        let transactions: Vec<_> = batch.iter().map(|job| &job.transaction).collect();
        let outcomes = file::contained(|| write(shared, &transactions, incarnation));
        let outcomes = outcomes.unwrap_or_else(|panic| {
            close(shared, &panic);
            let unknown = |_| Err(CommitError::Unknown(Some(panic.clone().into())));
            transactions.iter().map(unknown).collect()
        });
        for (job, outcome) in batch.into_iter().zip(outcomes) {
            // A caller who no longer waits has given up the answer, not the change.
            let _ = job.reply.send(outcome);
        }
    }
}

/// Commits the transactions, in order, with one write to the disk.
fn write(shared: &Shared, batch: &[&Transaction], incarnation: Incarnation) -> Vec<Outcome> {
    if let Err(poisoned) = shared.health.check() {
        return refused(batch, &poisoned);
    }
    crash_point!("store.before_write");
    let staged = shared
        .database
        .begin_write()
        .map_err(ReadError::from)
        .and_then(|write| {
            let staged = stage(&write, batch, incarnation)?;
            Ok((write, staged))
        });
    let (write, outcomes) = match staged {
        Ok(staged) => staged,
        Err(error) => return not_staged(shared, batch, &error),
    };
    let changed: Vec<&Key> = batch
        .iter()
        .zip(&outcomes)
        .filter(|(_, outcome)| outcome.is_ok())
        .flat_map(|(transaction, _)| &transaction.operations)
        .filter(|operation| rules::changes(operation))
        .map(Operation::key)
        .collect();
    if changed.is_empty() {
        // Only checks and conflicts: true of what is already durable, so there is nothing to sync.
        return match write.abort() {
            Ok(()) => outcomes,
            Err(error) => not_staged(shared, batch, &error.into()),
        };
    }
    crash_point!("store.before_sync");
    match write.commit() {
        Ok(()) => {
            crash_point!("store.after_sync");
            shared.watchers.notify(changed);
            outcomes
        }
        Err(error) => {
            close(shared, &error);
            let after_failed_sync = |outcome: Outcome| match (outcome, shared.health.check()) {
                (Ok(_), Err(poisoned)) => Err(CommitError::Unknown(Some(Box::new(poisoned)))),
                // A conflict may have been with a neighbour in the batch, of which nobody knows
                // whether it happened; but this one did not.
                (Err(_), Err(poisoned)) => Err(CommitError::Unavailable(Some(Box::new(poisoned)))),
                (_, Ok(())) => Err(CommitError::Unknown(None)),
            };
            outcomes.into_iter().map(after_failed_sync).collect()
        }
    }
}

/// Nothing of the batch was written: the transaction around it was dropped.
fn not_staged(shared: &Shared, batch: &[&Transaction], error: &ReadError) -> Vec<Outcome> {
    match error {
        ReadError::Damaged(what) => close(shared, what),
        ReadError::Database(error) => close(shared, error),
    }
    match shared.health.check() {
        Err(poisoned) => refused(batch, &poisoned),
        Ok(()) => batch
            .iter()
            .map(|_| Err(CommitError::Unavailable(None)))
            .collect(),
    }
}

/// Lets the store answer no more.
fn close(shared: &Shared, cause: &impl ToString) {
    shared.health.poison(cause);
    shared.watchers.close();
}

fn refused(batch: &[&Transaction], poisoned: &Poisoned) -> Vec<Outcome> {
    let refuse = |_| Err(CommitError::Unavailable(Some(Box::new(poisoned.clone()))));
    batch.iter().map(refuse).collect()
}

/// Writes the batch into an open transaction of the database. An error here means that nothing of
/// the batch will happen.
fn stage(
    write: &WriteTransaction,
    batch: &[&Transaction],
    incarnation: Incarnation,
) -> Result<Vec<Outcome>, ReadError> {
    let mut rows = write.open_table(ROWS)?;
    let mut meta = write.open_table(META)?;
    let before = Totals::read(&meta)?;
    let mut totals = before;
    let mut outcomes = Vec::with_capacity(batch.len());
    for transaction in batch {
        outcomes.push(match first_conflict(&rows, transaction)? {
            Some(conflict) => Err(conflict),
            None => Ok(apply(&mut rows, transaction, incarnation, &mut totals)?),
        });
    }
    if totals != before {
        totals.write(&mut meta)?;
    }
    crash_point!("store.staged");
    Ok(outcomes)
}

type Rows<'a> = Table<'a, &'static str, &'static [u8]>;

fn first_conflict(
    rows: &Rows<'_>,
    transaction: &Transaction,
) -> Result<Option<CommitError>, ReadError> {
    for operation in &transaction.operations {
        let key = operation.key();
        let row = rows.get(key.as_str())?;
        let row = row
            .map(|bytes| file::decode(key.as_str(), bytes.value()))
            .transpose()?;
        if let Err(conflict) = rules::check(operation, row.as_ref().map(|row| &row.version)) {
            let key = key.clone();
            return Ok(Some(CommitError::Conflict { key, conflict }));
        }
    }
    Ok(None)
}

fn apply(
    rows: &mut Rows<'_>,
    transaction: &Transaction,
    incarnation: Incarnation,
    totals: &mut Totals,
) -> Result<Committed, ReadError> {
    if transaction.operations.iter().any(rules::changes) {
        totals.mark += 1;
    }
    let version = incarnation.version(totals.mark);
    let mut versions = Vec::new();
    for operation in &transaction.operations {
        match operation {
            Operation::CheckAbsent(_) | Operation::CheckVersion(..) => {}
            Operation::Create(key, value) | Operation::Update(key, value, _) => {
                let row = file::encode(key, &version, value);
                let replaced = rows.insert(key.as_str(), row.as_slice())?;
                totals.rows += u64::from(replaced.is_none());
                versions.push((key.clone(), version.clone()));
            }
            Operation::Delete(key, _) => {
                let removed = rows.remove(key.as_str())?;
                totals.rows = totals.rows.saturating_sub(u64::from(removed.is_some()));
            }
        }
    }
    Ok(Committed { versions })
}
