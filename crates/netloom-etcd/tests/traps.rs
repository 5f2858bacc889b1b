//! Every trap of etcd and its client library, named after it.
#![allow(clippy::unwrap_used, reason = "a test may stop at any error")]

mod common;

use common::etcd::{Etcd, single, three};
use common::{answered, create, key, open, open_impatient, until};
use netloom_core::store::{CommitError, Liveness, Operation, Store, StoreError, Transaction};
use netloom_lab::proxy::Mode;
use netloom_types::HostId;
use std::slice;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn unknown_outcome_after_a_cut_connection_and_the_library_sends_nothing_again() {
    let etcd = Etcd::start(&single());
    let (proxy, config) = etcd.proxy().await;
    let store = open(&config).await;
    let direct = open(&etcd.config()).await;
    let at = key("a");
    let before = etcd.calls("Txn").await;
    proxy.set(Mode::HalfOpen);
    let commit = {
        let (store, create) = (store.clone(), create(&at));
        tokio::spawn(async move { store.commit(create).await })
    };
    // Once a part of the answer is lost, the connection cannot go on as if nothing had been.
    until("the change happens and its answer is lost", || async {
        direct.get(&at).await.unwrap().is_some() && proxy.faults().unanswered > 0
    })
    .await;
    proxy.set(Mode::Pass);
    let outcome = commit.await.unwrap();
    assert!(
        matches!(outcome, Err(CommitError::Unknown(_))),
        "{outcome:?}"
    );
    // Over a new connection, on which a copy would have gone before it.
    assert!(store.get(&at).await.unwrap().is_some());
    assert_eq!(etcd.calls("Txn").await, before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_outcome_when_the_answer_does_not_come_in_time() {
    let etcd = Etcd::start(&single());
    let (proxy, config) = etcd.proxy().await;
    let store = open_impatient(&config).await;
    let before = etcd.calls("Txn").await;
    proxy.set(Mode::HalfOpen);
    let outcome = store.commit(create(&key("a"))).await;
    assert!(
        matches!(outcome, Err(CommitError::Unknown(_))),
        "{outcome:?}"
    );
    proxy.set(Mode::Pass);
    until("the change shows", || async {
        matches!(store.get(&key("a")).await, Ok(Some(_)))
    })
    .await;
    assert_eq!(etcd.calls("Txn").await, before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_cut_off_is_unknown_and_is_never_sent_later() {
    let etcd = Etcd::start(&single());
    let (proxy, config) = etcd.proxy().await;
    let store = open(&config).await;
    let before = etcd.calls("Txn").await;
    proxy.set(Mode::CutBefore);
    let outcome = store.commit(create(&key("a"))).await;
    assert!(
        matches!(outcome, Err(CommitError::Unknown(_))),
        "{outcome:?}"
    );
    proxy.set(Mode::Pass);
    assert!(store.get(&key("a")).await.unwrap().is_none());
    assert_eq!(etcd.calls("Txn").await, before);
}

/// What never left the host is not unknown: the caller may do something else instead.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_no_unknown_outcome() {
    let mut etcd = Etcd::start(&single());
    let store = open(&etcd.config()).await;
    etcd.kill(0);
    // The first commit may find a connection that nobody has hung up yet.
    until("the dead connection is noticed", || async {
        let outcome = store.commit(create(&key("a"))).await;
        assert!(matches!(
            outcome,
            Err(CommitError::Unavailable(_) | CommitError::Unknown(_))
        ));
        matches!(outcome, Err(CommitError::Unavailable(_)))
    })
    .await;
    for _ in 0..20 {
        let outcome = store.commit(create(&key("a"))).await;
        assert!(
            matches!(outcome, Err(CommitError::Unavailable(_))),
            "{outcome:?}"
        );
    }
    let read = store.get(&key("a")).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    etcd.restart(0);
    assert!(store.get(&key("a")).await.unwrap().is_none());
    store.commit(create(&key("a"))).await.unwrap();
}

/// A connection that ended while nobody looked costs no unknown outcome: the server had restarted,
/// and the change goes out once, over a new one.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_that_ended_is_made_anew_before_anything_is_sent() {
    let mut etcd = Etcd::start(&single());
    let (proxy, config) = etcd.proxy().await;
    let store = open(&config).await;
    etcd.restart(0);
    assert!(store.get(&key("a")).await.unwrap().is_none());
    let made = proxy.faults().connections;
    etcd.restart(0);
    let outcome = store.commit(create(&key("a"))).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(proxy.faults().connections, made + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_hangs_neither_operations_nor_watches() {
    let (etcd, dir) = (Etcd::start(&single()), key("dir"));
    let store = open_impatient(&etcd.config()).await;
    let mut watch = answered("a watch opens", || store.watch(&dir)).await;
    etcd.pause(0);
    let outcome = store.commit(create(&key("a"))).await;
    assert!(
        matches!(outcome, Err(CommitError::Unknown(_))),
        "{outcome:?}"
    );
    let read = store.get(&key("a")).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    let broke = tokio::time::timeout(Duration::from_secs(60), watch.changed()).await;
    assert!(
        matches!(broke, Ok(Err(StoreError::Unavailable(_)))),
        "{broke:?}"
    );
    let opened = store.watch(&key("dir")).await.err();
    assert!(
        matches!(opened, Some(StoreError::Unavailable(_))),
        "{opened:?}"
    );
    etcd.resume(0);
    until("it answers again", || async {
        store.get(&key("a")).await.is_ok()
    })
    .await;
    answered("a watch opens again", || store.watch(&dir)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_member_is_left_for_another() {
    let mut etcd = Etcd::start(&three());
    let mut config = etcd.config();
    // Less than the patience of the test: a frozen member takes half of it before the next one's
    // turn comes, and the leader may be among the frozen.
    config.timeout = Duration::from_secs(20);
    let store = open(&config).await;
    let at = key("a");
    store.commit(create(&at)).await.unwrap();
    for member in 0..3 {
        etcd.pause(member);
        assert!(store.get(&at).await.unwrap().is_some());
        etcd.resume(member);
        etcd.server.await_answer(member).unwrap();
    }
}

/// It answers, and would keep a watch open for ever that hears of nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_without_a_leader_serves_nothing_and_ends_its_watches() {
    let mut etcd = Etcd::start(&three());
    let alone = etcd.server.url_by(&etcd.server.endpoints()[2..]);
    let store = open_impatient(&alone).await;
    let patient = open(&etcd.config()).await;
    patient.commit(create(&key("a"))).await.unwrap();
    let (dir, late) = (key("dir"), key("b"));
    let mut watch = answered("a watch opens", || store.watch(&dir)).await;
    etcd.kill(0);
    etcd.kill(1);
    let broke = tokio::time::timeout(Duration::from_secs(60), watch.changed()).await;
    assert!(
        matches!(broke, Ok(Err(StoreError::Unavailable(_)))),
        "{broke:?}"
    );
    let opened = store.watch(&key("dir")).await.err();
    assert!(
        matches!(opened, Some(StoreError::Unavailable(_))),
        "{opened:?}"
    );
    let read = store.get(&key("a")).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    let outcome = store.commit(create(&late)).await;
    assert!(
        matches!(outcome, Err(CommitError::Unavailable(_))),
        "{outcome:?}"
    );
    // Two of three that come back at once: each waits for the other.
    etcd.server.start_all().unwrap();
    until("there is a leader", || async {
        store.get(&key("a")).await.is_ok()
    })
    .await;
    let read = answered("it serves reads", || store.get(&late)).await;
    assert!(read.is_none(), "{read:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn compaction_under_a_watch_breaks_it_loudly() {
    let etcd = Etcd::start(&single());
    let (proxy, config) = etcd.proxy().await;
    let far = open(&config).await;
    let near = open(&etcd.config()).await;
    let mut watch = far.watch(&key("dir")).await.unwrap();
    // A listener that is too slow, until the server lets it fall behind.
    proxy.set(Mode::Stall);
    let writers: Vec<_> = (0..16)
        .map(|writer| {
            let near = near.clone();
            tokio::spawn(async move {
                for n in 0..60 {
                    let at = key(&format!("dir/{writer}-{n}"));
                    let create = Operation::Create(at, vec![7; 60 * 1024]);
                    near.commit(Transaction::new([create])).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let now = i64::try_from(near.mark()).unwrap();
    let mut client = etcd.client(None).await;
    client.compact(now, None).await.unwrap();
    proxy.set(Mode::Pass);
    let broke = loop {
        let word = tokio::time::timeout(Duration::from_secs(60), watch.changed()).await;
        match word.expect("the watch says something") {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    let StoreError::Unavailable(Some(reason)) = &broke else {
        panic!("{broke:?}");
    };
    assert!(reason.to_string().contains("compacted"), "{reason}");
    // What every user of a watch does next.
    let mut watch = far.watch(&key("dir")).await.unwrap();
    assert_eq!(far.list(&key("dir")).await.unwrap().len(), 16 * 60);
    near.commit(create(&key("dir/new"))).await.unwrap();
    watch.changed().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_dies_with_its_member() {
    let mut etcd = Etcd::start(&single());
    let store = open(&etcd.config()).await;
    let mut watch = store.watch(&key("dir")).await.unwrap();
    etcd.kill(0);
    let broke = tokio::time::timeout(Duration::from_secs(60), watch.changed()).await;
    assert!(
        matches!(broke, Ok(Err(StoreError::Unavailable(_)))),
        "{broke:?}"
    );
    let again = watch.changed().await;
    assert!(
        matches!(again, Err(StoreError::Unavailable(_))),
        "{again:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_lease_is_never_used_again() {
    let etcd = Etcd::start(&single());
    let store = open(&etcd.config()).await;
    let host = HostId::new("host-a").unwrap();
    assert_eq!(store.alive().await.unwrap(), []);
    store.announce(&host).await.unwrap();
    assert_eq!(store.alive().await.unwrap(), slice::from_ref(&host));
    let mut client = etcd.client(None).await;
    let leases = client.leases().await.unwrap();
    assert_eq!(leases.leases().len(), 1);
    client.lease_revoke(leases.leases()[0].id()).await.unwrap();
    assert_eq!(store.alive().await.unwrap(), []);
    store.announce(&host).await.unwrap();
    assert_eq!(store.alive().await.unwrap(), slice::from_ref(&host));
    // A lease that lives, without its key: a renewal that succeeds proves nothing.
    client.delete("netloom/alive/host-a", None).await.unwrap();
    store.announce(&host).await.unwrap();
    assert_eq!(store.alive().await.unwrap(), slice::from_ref(&host));
    // Saying it again costs no change.
    let before = store.mark();
    store.announce(&host).await.unwrap();
    assert!(store.get(&key("a")).await.unwrap().is_none());
    assert_eq!(store.mark(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_too_large_for_the_server_is_too_large() {
    let etcd = Etcd::start(&single().setting("--max-request-bytes=65536"));
    let store = open(&etcd.config()).await;
    // Beyond etcd's own limit, and beyond that of its transport.
    for values in [2, 4] {
        let creates = (0..values).map(|n| {
            let at = key(&format!("large/{n}"));
            Operation::Create(at, vec![1; 60 * 1024])
        });
        let outcome = store.commit(Transaction::new(creates)).await;
        assert!(matches!(outcome, Err(CommitError::TooLarge)), "{outcome:?}");
    }
    assert!(store.list(&key("large")).await.unwrap().is_empty());
    store.commit(create(&key("a"))).await.unwrap();
}

/// A page of the largest values is larger than what the library takes in one message by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_long_list_of_large_values_comes_in_pages() {
    let etcd = Etcd::start(&single());
    let store = open(&etcd.config()).await;
    for first in (0..300).step_by(4) {
        let creates = (first..first + 4).map(|n| {
            let at = key(&format!("dir/{n:03}"));
            Operation::Create(at, vec![1; 63 * 1024])
        });
        store.commit(Transaction::new(creates)).await.unwrap();
    }
    let listed = store.list(&key("dir")).await.unwrap();
    let names: Vec<_> = listed.iter().map(|(at, _)| at.to_string()).collect();
    let wanted: Vec<_> = (0..300).map(|n| format!("dir/{n:03}")).collect();
    assert_eq!(names, wanted);
}
