//! Many callers count up one key while the store fails, and none of their counts may be lost or
//! made twice.
#![allow(clippy::unwrap_used, reason = "a test may stop at any error")]

use super::{create, key, open, patient, until};
use netloom_core::RemoteStoreConfig;
use netloom_core::store::{CommitError, Key, Operation, Store, Transaction};
use netloom_store::{Trace, commit_resolving_unknown};
use netloom_zookeeper::ZooKeeperStore;

const CALLERS: usize = 8;

/// How often each caller has counted.
type Record = [u64; CALLERS];

fn read(value: &[u8]) -> Record {
    let (counts, rest) = value.as_chunks::<8>();
    assert!(rest.is_empty());
    let counts: Vec<_> = counts
        .iter()
        .map(|bytes| u64::from_be_bytes(*bytes))
        .collect();
    counts.try_into().unwrap()
}

fn write(record: Record) -> Vec<u8> {
    record
        .iter()
        .flat_map(|count| count.to_be_bytes())
        .collect()
}

/// Callers at work.
pub(crate) struct Counters {
    config: RemoteStoreConfig,
    reader: ZooKeeperStore,
    callers: Vec<tokio::task::JoinHandle<u32>>,
    rounds: u64,
}

impl Counters {
    /// Starts them; each has a session of its own.
    pub(crate) async fn start(config: &RemoteStoreConfig, rounds: u64) -> Self {
        let reader = open(config).await;
        let at = key("counters");
        let patient = patient(config.clone());
        create(&open(&patient).await, &at, &write([0; CALLERS])).await;
        let mut callers = Vec::new();
        for caller in 0..CALLERS {
            let store = open(config).await;
            let at = at.clone();
            callers.push(tokio::spawn(async move {
                let mut unknown = 0;
                for round in 1..=rounds {
                    unknown += count(&store, &at, (caller, round)).await;
                }
                unknown
            }));
        }
        Self {
            config: patient,
            reader,
            callers,
            rounds,
        }
    }

    async fn sum(&self) -> u64 {
        let row = self.reader.get(&key("counters")).await;
        row.ok()
            .flatten()
            .map_or(0, |row| read(&row.value).iter().sum())
    }

    /// Until this many more have been counted.
    pub(crate) async fn progress(&self, more: u64) {
        let begin = self.sum().await;
        until("the callers count", || async {
            self.sum().await >= begin + more
        })
        .await;
    }

    /// Whether somebody still counts.
    pub(crate) fn is_busy(&self) -> bool {
        self.callers.iter().any(|caller| !caller.is_finished())
    }

    /// Waits for all and checks the sum; returns how many outcomes were unknown for a while.
    pub(crate) async fn settle(self) -> u32 {
        let mut unknown = 0;
        for caller in self.callers {
            unknown += caller.await.unwrap();
        }
        // Not by the reader, whose short time suits only who asks again.
        let store = open(&self.config).await;
        let row = store.get(&key("counters")).await.unwrap().unwrap();
        assert_eq!(read(&row.value), [self.rounds; CALLERS]);
        unknown
    }
}

/// One more, whatever becomes of the single tries.
async fn count(store: &ZooKeeperStore, at: &Key, (caller, round): (usize, u64)) -> u32 {
    let mut unknown = 0;
    let mut in_doubt: Option<Transaction> = None;
    loop {
        let transaction = match in_doubt.take() {
            Some(transaction) => transaction,
            None => match store.get(at).await {
                Ok(row) => {
                    let row = row.unwrap();
                    let mut record = read(&row.value);
                    assert_eq!(record[caller], round - 1, "lost, or counted twice");
                    record[caller] = round;
                    Transaction::new([Operation::Update(at.clone(), write(record), row.version)])
                }
                Err(_) => continue,
            },
        };
        // Nobody else changes this caller's count, so a record that changed tells all.
        let trace = |value: Option<&[u8]>| match value.map(read) {
            Some(record) if record[caller] == round => Trace::Happened,
            _ => Trace::DidNotHappen,
        };
        match commit_resolving_unknown(store, transaction.clone(), trace).await {
            Ok(_) => return unknown,
            Err(CommitError::Unknown(_)) => {
                unknown += 1;
                in_doubt = Some(transaction);
            }
            Err(CommitError::Conflict { .. } | CommitError::Unavailable(_)) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
}
