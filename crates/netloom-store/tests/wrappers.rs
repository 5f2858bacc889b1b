//! The wrappers' own promises, and unknown outcomes resolved under faults.
#![allow(clippy::unwrap_used, reason = "a test may stop at any error")]

use netloom_core::store::{
    CommitError, Conflict, Key, Operation, Store, StoreError, Transaction, Version,
};
use netloom_store::{
    CountingStore, Counts, DELAY_MAX, Fault, FaultRates, FaultStore, FencedStore, MemoryStore,
    PrefixStore, Trace, commit_resolving_unknown,
};
use std::sync::Arc;
use std::time::Duration;

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn create(text: &str) -> Transaction {
    Transaction::new([Operation::Create(key(text), text.as_bytes().to_vec())])
}

fn healthy() -> FaultStore {
    FaultStore::new(Arc::new(MemoryStore::new()), FaultRates::default(), 1)
}

#[tokio::test]
async fn two_prefixes_of_one_store_never_meet() {
    let memory = Arc::new(MemoryStore::new());
    let here = PrefixStore::new(memory.clone(), key("a"));
    let there = PrefixStore::new(memory.clone(), key("a-b"));
    here.commit(create("x/y")).await.unwrap();
    there.commit(create("x/y")).await.unwrap();
    assert_ne!(
        here.identity().await.unwrap(),
        there.identity().await.unwrap()
    );
    assert!(memory.get(&key("a/x/y")).await.unwrap().is_some());
    let refused = here.commit(create("x/y")).await.unwrap_err();
    let CommitError::Conflict { key: named, .. } = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(named, key("x/y"), "the conflict names the user's own key");
    let long = Key::new("x".repeat(199)).unwrap();
    assert_eq!(here.get(&long).await.unwrap(), None);
    let refused = here.commit(create(long.as_str())).await;
    assert!(matches!(refused, Err(CommitError::TooLarge)));
}

#[tokio::test]
async fn counts_tell_what_was_asked() {
    let faulty = Arc::new(healthy());
    let store = CountingStore::new(faulty.clone());
    store.commit(create("a")).await.unwrap();
    store.commit(create("a")).await.unwrap_err();
    store.get(&key("a")).await.unwrap();
    store.list(&key("a")).await.unwrap();
    store.watch(&key("a")).await.unwrap();
    faulty.order(Fault::Unavailable);
    store.identity().await.unwrap_err();
    let wanted = Counts {
        identities: 1,
        gets: 1,
        lists: 1,
        commits: 2,
        conflicts: 1,
        failures: 1,
        watches: 1,
    };
    assert_eq!(store.counts(), wanted);
}

#[tokio::test]
async fn an_ordered_fault_comes_once_and_does_what_its_name_says() {
    let store = healthy();
    for (n, fault) in [
        Fault::Unavailable,
        Fault::Denied,
        Fault::UnknownBefore,
        Fault::UnknownAfter,
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("k{n}");
        store.order(fault);
        let error = store.commit(create(&name)).await.unwrap_err();
        let as_named = match fault {
            Fault::Unavailable => matches!(error, CommitError::Unavailable(_)),
            Fault::Denied => matches!(error, CommitError::Denied(_)),
            _ => matches!(error, CommitError::Unknown(_)),
        };
        assert!(as_named, "{fault:?} gave {error:?}");
        let there = store.get(&key(&name)).await.unwrap().is_some();
        assert_eq!(there, fault == Fault::UnknownAfter, "{fault:?}");
    }
    store.order(Fault::UnknownAfter);
    assert!(matches!(
        store.get(&key("k0")).await,
        Err(StoreError::Unavailable(_))
    ));
    store.order(Fault::Denied);
    assert!(matches!(
        store.list(&key("k0")).await,
        Err(StoreError::Denied(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn delays_pass_by_the_test_clock() {
    let store = healthy();
    store.order(Fault::Delayed(Duration::from_secs(3600)));
    let before = tokio::time::Instant::now();
    store.commit(create("a")).await.unwrap();
    assert_eq!(before.elapsed().as_secs(), 3600);
    store.set_rates(FaultRates {
        delayed: 1000,
        ..FaultRates::default()
    });
    let before = tokio::time::Instant::now();
    store.get(&key("a")).await.unwrap();
    assert!(before.elapsed() <= DELAY_MAX);
}

#[tokio::test]
async fn a_watch_breaks_by_the_same_plan() {
    let store = healthy();
    let mut watch = store.watch(&key("a")).await.unwrap();
    store.commit(create("a/b")).await.unwrap();
    store.order(Fault::Unavailable);
    assert!(matches!(
        watch.changed().await,
        Err(StoreError::Unavailable(_))
    ));
}

#[tokio::test]
async fn the_same_seed_gives_the_same_faults() {
    let rates = FaultRates {
        unavailable: 300,
        denied: 300,
        ..FaultRates::default()
    };
    let run = async |seed| {
        let store = FaultStore::new(Arc::new(MemoryStore::new()), rates, seed);
        let mut results = Vec::new();
        for _ in 0..200 {
            results.push(
                store
                    .get(&key("a"))
                    .await
                    .map_err(|error| error.to_string()),
            );
        }
        results
    };
    assert_eq!(run(1).await, run(1).await);
    assert_ne!(run(1).await, run(2).await);
    let failed = run(1).await.iter().filter(|result| result.is_err()).count();
    assert!(
        (80..160).contains(&failed),
        "{failed} of 200 calls failed, about 120 should"
    );
}

#[tokio::test]
async fn only_one_host_begins_the_next_epoch_and_the_other_is_fenced() {
    let memory = Arc::new(MemoryStore::new());
    let epoch = key("epoch");
    let refused = FencedStore::join(memory.clone(), epoch.clone()).await;
    assert!(
        matches!(refused, Err(StoreError::WrongEpoch(_))),
        "{refused:?}"
    );
    FencedStore::initialise(memory.as_ref(), &epoch)
        .await
        .unwrap();
    let again = FencedStore::initialise(memory.as_ref(), &epoch).await;
    let exists = matches!(
        again,
        Err(CommitError::Conflict {
            conflict: Conflict::Exists,
            ..
        })
    );
    assert!(exists, "{again:?}");
    let here = FencedStore::join(memory.clone(), epoch.clone())
        .await
        .unwrap();
    let there = FencedStore::join(memory.clone(), epoch.clone())
        .await
        .unwrap();
    here.commit(create("a")).await.unwrap();
    here.advance().await.unwrap();
    assert_eq!((here.epoch(), there.epoch()), (2, 1));
    assert!(matches!(
        there.advance().await,
        Err(CommitError::WrongEpoch(_))
    ));
    let refused = there.commit(create("b")).await.unwrap_err();
    assert!(matches!(&refused, CommitError::WrongEpoch(what) if what.contains("join again")));
    here.commit(create("b")).await.unwrap();
    // An own conflict is still a conflict.
    let refused = here.commit(create("b")).await.unwrap_err();
    assert!(
        matches!(refused, CommitError::Conflict { .. }),
        "{refused:?}"
    );
    let rejoined = FencedStore::join(memory, epoch).await.unwrap();
    rejoined.commit(create("c")).await.unwrap();
}

#[tokio::test]
async fn a_store_that_was_left_or_emptied_takes_no_change() {
    let memory = Arc::new(MemoryStore::new());
    let epoch = key("epoch");
    FencedStore::initialise(memory.as_ref(), &epoch)
        .await
        .unwrap();
    let here = FencedStore::join(memory.clone(), epoch.clone())
        .await
        .unwrap();
    let version = memory.get(&epoch).await.unwrap().unwrap().version;
    let moved = Operation::Update(epoch.clone(), b"moved:etcd://b".to_vec(), version);
    let moved = memory.commit(Transaction::new([moved])).await.unwrap();
    assert!(matches!(
        here.commit(create("a")).await,
        Err(CommitError::WrongEpoch(_))
    ));
    let refused = FencedStore::join(memory.clone(), epoch.clone())
        .await
        .unwrap_err();
    assert!(matches!(&refused, StoreError::WrongEpoch(what) if what.contains("etcd://b")));
    let gone = Operation::Delete(epoch.clone(), moved.versions[0].1.clone());
    memory.commit(Transaction::new([gone])).await.unwrap();
    assert!(matches!(
        here.commit(create("a")).await,
        Err(CommitError::WrongEpoch(_))
    ));
    memory
        .commit(Transaction::new([Operation::Create(
            epoch.clone(),
            b"1?".to_vec(),
        )]))
        .await
        .unwrap();
    let refused = FencedStore::join(memory, epoch).await;
    assert!(
        matches!(refused, Err(StoreError::Corrupt(_))),
        "{refused:?}"
    );
}

/// A record that keeps the ids of all operations that ever changed it, so that each leaves a trace.
fn trace_of(id: &str) -> impl FnMut(Option<&[u8]>) -> Trace + Send {
    let id = format!("{id};");
    move |value| {
        let text = String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
        if text.contains(&id) {
            Trace::Happened
        } else {
            Trace::DidNotHappen
        }
    }
}

fn append(at: &Key, id: &str, now: Option<(Vec<u8>, Version)>) -> Transaction {
    let (mut value, version) = now.unzip();
    let value = {
        let mut value = value.take().unwrap_or_default();
        value.extend_from_slice(format!("{id};").as_bytes());
        value
    };
    Transaction::new([match version {
        None => Operation::Create(at.clone(), value),
        Some(version) => Operation::Update(at.clone(), value, version),
    }])
}

/// How a caller commits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Resolving,
    /// Takes an unknown outcome for a failure, as careless clients do.
    Careless,
}

/// Several callers change one record through a store that loses answers. Returns what they were
/// told that is not true: committed operations are in the record once, refused ones are not.
async fn untruths(seed: u64, way: Way) -> Vec<String> {
    let memory = Arc::new(MemoryStore::new());
    let rates = FaultRates {
        unavailable: 60,
        unknown_before: 150,
        unknown_after: 150,
        ..FaultRates::default()
    };
    let at = key("record");
    let caller = async |caller: u64| {
        let store = FaultStore::new(memory.clone(), rates, seed * 10 + caller);
        let mut told = Vec::new();
        for n in 0..15 {
            let id = format!("{caller}-{n}");
            let Ok(now) = store.get(&at).await else {
                continue;
            };
            tokio::task::yield_now().await;
            let transaction = append(&at, &id, now.map(|row| (row.value, row.version)));
            let outcome = match way {
                Way::Resolving => {
                    commit_resolving_unknown(&store, transaction, trace_of(&id)).await
                }
                Way::Careless => store
                    .commit(transaction)
                    .await
                    .map_err(|error| match error {
                        CommitError::Unknown(source) => CommitError::Unavailable(source),
                        other => other,
                    }),
            };
            told.push((id, outcome));
        }
        told
    };
    let (mut told, more) = tokio::join!(caller(1), caller(2));
    told.extend(more);
    let record = memory.get(&at).await.unwrap().unwrap().value;
    let record = String::from_utf8(record).unwrap();
    let untrue = told.into_iter().filter_map(|(id, outcome)| {
        let times = record.split(';').filter(|part| *part == id).count();
        let possible = match outcome {
            Ok(_) => 1..=1,
            Err(CommitError::Unknown(_)) => 0..=1,
            Err(_) => 0..=0,
        };
        let text = format!("seed {seed}: {id} was told {outcome:?}, and is there {times} times");
        (!possible.contains(&times)).then_some(text)
    });
    untrue.collect()
}

#[tokio::test]
async fn what_is_told_after_unknown_outcomes_is_true() {
    for seed in 0..60 {
        let untrue = untruths(seed, Way::Resolving).await;
        assert!(untrue.is_empty(), "{untrue:#?}");
    }
}

/// The test above can fail.
#[tokio::test]
async fn taking_an_unknown_outcome_for_a_failure_is_found_out() {
    let mut untrue = Vec::new();
    for seed in 0..10 {
        untrue.extend(untruths(seed, Way::Careless).await);
    }
    assert!(!untrue.is_empty());
}

#[tokio::test]
async fn a_lost_answer_is_found_again_with_its_version() {
    let store = healthy();
    let at = key("a");
    for fault in [Fault::UnknownBefore, Fault::UnknownAfter] {
        let now = store
            .get(&at)
            .await
            .unwrap()
            .map(|row| (row.value, row.version));
        store.order(fault);
        let id = format!("{fault:?}");
        let transaction = append(&at, &id, now);
        let committed = commit_resolving_unknown(&store, transaction, trace_of(&id)).await;
        let version = store.get(&at).await.unwrap().unwrap().version;
        assert_eq!(committed.unwrap().versions, [(at.clone(), version)]);
    }
}

#[tokio::test]
async fn a_refusal_after_a_lost_answer_stays_unknown() {
    let store = healthy();
    store.order(Fault::UnknownBefore);
    store.order(Fault::Delayed(Duration::ZERO)); // the read in between
    store.order(Fault::Unavailable);
    // The second try certainly did not happen, but nobody has heard of the first.
    let outcome = commit_resolving_unknown(&store, append(&key("a"), "id", None), trace_of("id"));
    let outcome = outcome.await.unwrap_err();
    assert!(matches!(outcome, CommitError::Unknown(_)), "{outcome:?}");
    store.order(Fault::Denied);
    // Without any lost answer, a refusal is a refusal.
    let outcome = commit_resolving_unknown(&store, append(&key("a"), "id", None), trace_of("id"));
    let outcome = outcome.await.unwrap_err();
    assert!(matches!(outcome, CommitError::Denied(_)), "{outcome:?}");
}

#[tokio::test]
async fn a_wiped_trace_stays_unknown_and_a_foreign_change_is_a_conflict() {
    for (trace, wanted) in [
        (Trace::Erased, None),
        (Trace::DidNotHappen, Some(Conflict::VersionDiffers)),
    ] {
        let memory = Arc::new(MemoryStore::new());
        let committed = memory.commit(create("a")).await.unwrap();
        let stale = committed.versions[0].1.clone();
        let other = append(&key("a"), "other", Some((vec![], stale.clone())));
        memory.commit(other).await.unwrap();
        let store = FaultStore::new(memory, FaultRates::default(), 1);
        store.order(Fault::UnknownBefore);
        let transaction = append(&key("a"), "id", Some((vec![], stale)));
        let outcome = commit_resolving_unknown(&store, transaction, move |_| trace).await;
        match (outcome.unwrap_err(), wanted) {
            (CommitError::Unknown(_), None) => {}
            (CommitError::Conflict { conflict, .. }, Some(wanted)) => assert_eq!(conflict, wanted),
            (other, _) => panic!("{trace:?} gave {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_repeated_call_recognises_the_copy_of_an_earlier_one() {
    let store = healthy();
    let call = || commit_resolving_unknown(&store, append(&key("a"), "id", None), trace_of("id"));
    // It happened, its answer was lost, and then the store was away for a while.
    store.order(Fault::UnknownAfter);
    store.order(Fault::Unavailable);
    let outcome = call().await.unwrap_err();
    assert!(matches!(outcome, CommitError::Unknown(_)), "{outcome:?}");
    let committed = call().await.unwrap();
    assert_eq!(committed.versions.len(), 1);
}
