//! Counters that several writers raise while the store is troubled: none may be lost or doubled.

use netloom_core::store::{CommitError, Key, Operation, Store, Transaction, Version};
use netloom_store::{Trace, commit_resolving_unknown};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::task::JoinHandle;

pub const WRITERS: usize = 4;

/// The total, and how many of it each writer made: the writer's number is the trace of its change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counter {
    pub total: u64,
    pub by: [u64; WRITERS],
}

impl Counter {
    fn to_bytes(self) -> Vec<u8> {
        let words = std::iter::once(self.total).chain(self.by);
        words.flat_map(u64::to_be_bytes).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let mut words = bytes
            .chunks_exact(8)
            .map(|word| u64::from_be_bytes(word.try_into().unwrap()));
        let total = words.next().unwrap();
        let by: Vec<u64> = words.collect();
        let by = by.try_into().unwrap();
        Self { total, by }
    }
}

/// Reads until the store answers: trouble is what these tests make, and it ends.
pub async fn read(store: &dyn Store, key: &Key) -> (Counter, Version) {
    loop {
        if let Ok(row) = store.get(key).await {
            let row = row.expect("the counter is never deleted");
            return (Counter::from_bytes(&row.value), row.version);
        }
    }
}

/// What the workload met.
#[derive(Debug, Default)]
pub struct Met {
    pub done: AtomicUsize,
    pub conflicts: AtomicUsize,
    pub unavailable: AtomicUsize,
    pub unknown: AtomicUsize,
}

async fn raise(store: &dyn Store, key: &Key, writer: usize, met: &Met) {
    let count = |what: &AtomicUsize| what.fetch_add(1, Ordering::Relaxed);
    loop {
        let (mut counter, version) = read(store, key).await;
        counter.total += 1;
        counter.by[writer] += 1;
        let number = counter.by[writer];
        let update = Operation::Update(key.clone(), counter.to_bytes(), version);
        let transaction = Transaction::new([update]);
        let mut in_doubt = false;
        loop {
            let outcome = commit_resolving_unknown(store, transaction.clone(), |value| {
                let now = Counter::from_bytes(value.expect("the counter is never deleted"));
                if now.by[writer] >= number {
                    Trace::Happened
                } else {
                    Trace::DidNotHappen
                }
            });
            match outcome.await {
                Ok(_) => {
                    count(&met.done);
                    return;
                }
                // The same one again: a copy of it may still be under way.
                Err(CommitError::Unknown(_)) => {
                    count(&met.unknown);
                    in_doubt = true;
                }
                // An earlier copy may be what it conflicts with. The record moved on, so that
                // none of them can happen any more.
                Err(CommitError::Conflict { .. }) if in_doubt => {
                    let (now, _) = read(store, key).await;
                    if now.by[writer] >= number {
                        count(&met.done);
                        return;
                    }
                    break;
                }
                Err(CommitError::Conflict { .. }) => {
                    count(&met.conflicts);
                    break;
                }
                Err(CommitError::Unavailable(_)) if in_doubt => {}
                Err(CommitError::Unavailable(_)) => {
                    count(&met.unavailable);
                    break;
                }
                Err(other) => panic!("a counter met {other:?}"),
            };
        }
    }
}

/// Writers that raise a counter until they are told to stop, each through a store of its own, as
/// hosts do.
pub struct Workload {
    key: Key,
    pub met: Arc<Met>,
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<u64>>,
}

impl Workload {
    pub async fn begin(stores: &[Arc<dyn Store>], key: Key) -> Self {
        let create = Operation::Create(key.clone(), Counter::default().to_bytes());
        let create = Transaction::new([create]);
        // The store may give up before a busy server answers, and then finds its own counter.
        super::until("the counter is there", || async {
            let outcome = stores[0].commit(create.clone()).await;
            matches!(outcome, Ok(_) | Err(CommitError::Conflict { .. }))
        })
        .await;
        let (met, stop) = (Arc::<Met>::default(), Arc::<AtomicBool>::default());
        let writers = stores.iter().cloned().enumerate().map(|(writer, store)| {
            let (key, met, stop) = (key.clone(), met.clone(), stop.clone());
            tokio::spawn(async move {
                let mut acknowledged = 0;
                while !stop.load(Ordering::Relaxed) {
                    raise(store.as_ref(), &key, writer, &met).await;
                    acknowledged += 1;
                }
                acknowledged
            })
        });
        let writers = writers.collect();
        Self {
            key,
            met,
            stop,
            writers,
        }
    }

    /// Waits until `count` more were acknowledged.
    pub async fn goes_on_for(&self, count: usize) {
        let wanted = self.met.done.load(Ordering::Relaxed) + count;
        super::until("the workload goes on", || async {
            self.met.done.load(Ordering::Relaxed) >= wanted
        })
        .await;
    }

    /// Ends the work, and holds the counter against what was acknowledged.
    pub async fn none_was_lost_or_doubled(self, store: &dyn Store) {
        self.stop.store(true, Ordering::Relaxed);
        let mut wanted = Counter::default();
        for (writer, work) in self.writers.into_iter().enumerate() {
            wanted.by[writer] = work.await.unwrap();
        }
        wanted.total = wanted.by.iter().sum();
        let (counter, _) = read(store, &self.key).await;
        assert_eq!(counter, wanted, "after {:?}", self.met);
    }
}
