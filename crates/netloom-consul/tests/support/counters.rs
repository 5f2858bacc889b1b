//! Many writers count in one record while the store is ill; no increment may be lost or doubled.

use netloom_core::store::{
    CommitError, Conflict, Key, Operation, Store, StoreError, Transaction, Versioned,
};
use netloom_store::{Trace, commit_resolving_unknown};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const WRITERS: usize = 6;
/// Between tries at a store that is away, so that the tries do not take its processor.
const AFTER_TROUBLE: Duration = Duration::from_millis(20);

/// How far each writer has come, in one record: a copy of a write that arrives late or twice
/// shows there, also after others have written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counts(pub(crate) Vec<u64>);

impl Counts {
    fn parse(bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).unwrap();
        Self(
            text.split(' ')
                .map(|count| count.parse().unwrap())
                .collect(),
        )
    }

    fn bytes(&self) -> Vec<u8> {
        let counts: Vec<_> = self.0.iter().map(u64::to_string).collect();
        counts.join(" ").into_bytes()
    }
}

/// What a run met.
#[derive(Debug, Default)]
pub(crate) struct Met {
    pub(crate) happened: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) unavailable: AtomicU64,
}

/// Counts `rounds` times with each writer, and checks the record at the end.
pub(crate) async fn count(store: Arc<dyn Store>, at: Key, rounds: u64, met: Arc<Met>) {
    let zero = Counts(vec![0; WRITERS]);
    let create = Transaction::new([Operation::Create(at.clone(), zero.bytes())]);
    loop {
        match store.commit(create.clone()).await {
            Ok(_)
            | Err(CommitError::Conflict {
                conflict: Conflict::Exists,
                ..
            }) => break,
            Err(CommitError::Unknown(_) | CommitError::Unavailable(_)) => {
                tokio::time::sleep(AFTER_TROUBLE).await;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (store, at, met) = (Arc::clone(&store), at.clone(), Arc::clone(&met));
            tokio::spawn(async move {
                for round in 1..=rounds {
                    increment(&*store, &at, (writer, round), &met).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let row = read(&*store, &at).await;
    assert_eq!(Counts::parse(&row.value), Counts(vec![rounds; WRITERS]));
}

async fn increment(store: &dyn Store, at: &Key, (writer, round): (usize, u64), met: &Met) {
    loop {
        let row = read(store, at).await;
        let mut counts = Counts::parse(&row.value);
        // An earlier try of ours, whose outcome was unknown, may have happened after all.
        if counts.0[writer] == round {
            return;
        }
        assert_eq!(counts.0[writer], round - 1, "writer {writer} in {row:?}");
        counts.0[writer] = round;
        let update = Operation::Update(at.clone(), counts.bytes(), row.version);
        let outcome = commit_resolving_unknown(store, Transaction::new([update]), |value| {
            let now = value.map(|value| Counts::parse(value).0[writer]);
            assert!(
                now <= Some(round),
                "writer {writer} is ahead of itself: {now:?}"
            );
            if now == Some(round) {
                Trace::Happened
            } else {
                Trace::DidNotHappen
            }
        })
        .await;
        match outcome {
            Ok(_) => {
                met.happened.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Err(CommitError::Conflict {
                conflict: Conflict::VersionDiffers,
                ..
            }) => {}
            Err(CommitError::Unknown(_)) => {
                met.unknown.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(AFTER_TROUBLE).await;
            }
            Err(CommitError::Unavailable(_)) => {
                met.unavailable.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(AFTER_TROUBLE).await;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

async fn read(store: &dyn Store, at: &Key) -> Versioned {
    loop {
        match store.get(at).await {
            Ok(row) => return row.unwrap(),
            Err(StoreError::Unavailable(_)) => tokio::time::sleep(AFTER_TROUBLE).await,
            Err(other) => panic!("{other:?}"),
        }
    }
}
