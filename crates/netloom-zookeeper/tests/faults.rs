//! Servers that freeze, die, forget and come back.
#![allow(clippy::unwrap_used, reason = "a test may stop at any error")]

mod common;

use common::{Counters, create, key, only, open, raw, single, three, until};
use netloom_core::store::{CommitError, Key, Liveness, Operation, Store, StoreError, Transaction};
use netloom_types::HostId;
use netloom_zookeeper::ZooKeeperStore;

/// Why a read behind a `sync` is not enough: the leader answers it without asking anybody. A leader
/// whose followers have gone on with another one would hand out what it last knew.
#[tokio::test(flavor = "multi_thread")]
async fn sync_is_answered_by_a_leader_without_followers_and_a_read_is_not() {
    let servers = three();
    let leader = servers.leader().unwrap();
    let config = only(&servers.url(), leader);
    let (store, client) = (open(&config).await, raw(&config).await);
    let at = key("a");
    create(&store, &at, b"x").await;
    let followers: Vec<_> = (0..3).filter(|member| *member != leader).collect();
    for follower in &followers {
        servers.pause(*follower).unwrap();
    }
    client.sync("/a").await.expect("the trap is not there");
    client.get_data("/a").await.expect("the trap is not there");
    let read = store.get(&at).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    for follower in followers {
        servers.resume(follower).unwrap();
    }
    until("reads work again", || async {
        store.get(&at).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_expires_is_followed_by_another_one() {
    let server = single();
    let store = open(&server.url()).await;
    let host: HostId = "host-a".parse().unwrap();
    store.announce(&host).await.unwrap();
    let directory = key("dir");
    create(&store, &key("dir/a"), b"").await;
    let mut watch = store.watch(&directory).await.unwrap();
    server.pause(0).unwrap();
    // Frozen for longer than the session lives: the watch must not keep silent about it.
    let broken = async { while watch.changed().await.is_ok() {} };
    let broken = tokio::time::timeout(std::time::Duration::from_secs(60), broken).await;
    assert!(broken.is_ok(), "the watch of a dead session says nothing");
    let read = store.get(&key("dir/a")).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    server.resume(0).unwrap();

    until("reads work again", || async {
        store.get(&key("dir/a")).await.is_ok()
    })
    .await;
    let mut watch = store.watch(&directory).await.unwrap();
    create(&store, &key("dir/b"), b"").await;
    watch.changed().await.unwrap();
    store.announce(&host).await.unwrap();
    assert_eq!(store.alive().await.unwrap(), [host]);
}

/// A change is handed over only while there is a connection: what is refused never happens later.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_unavailable_never_happens() {
    let mut server = single();
    let store = open(&server.url()).await;
    create(&store, &key("d/before"), b"").await;
    server.kill(0).unwrap();
    let mut refused = Vec::new();
    for n in 0..3 {
        let at = key(&format!("d/{n}"));
        let change = Operation::Create(at.clone(), vec![]);
        match store.commit(Transaction::new([change])).await {
            Err(CommitError::Unavailable(_)) => refused.push(at),
            // The first may not have noticed yet.
            Err(CommitError::Unknown(_)) => {}
            other => panic!("{other:?}"),
        }
        if refused.len() == 2 {
            break;
        }
    }
    assert_eq!(refused.len(), 2);
    server.restart(0).unwrap();
    until("the store is back", || async {
        store.get(&key("d/before")).await.is_ok()
    })
    .await;
    create(&store, &key("d/after"), b"").await;
    for at in refused {
        assert_eq!(store.get(&at).await.unwrap(), None, "{at}");
    }
}

async fn is_another_epoch(store: &ZooKeeperStore, at: &Key) -> bool {
    matches!(store.get(at).await, Err(StoreError::WrongEpoch(_)))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_store_is_another_one() {
    let mut server = single();
    let config = server.url();
    let store = open(&config).await;
    let at = key("a");
    create(&store, &at, b"x").await;
    let before = store.identity().await.unwrap();
    server.wipe().unwrap();
    server.start_all().unwrap();
    until("it is noticed", || is_another_epoch(&store, &at)).await;
    let change = store
        .commit(Transaction::new([Operation::Create(key("b"), vec![])]))
        .await;
    assert!(
        matches!(change, Err(CommitError::WrongEpoch(_))),
        "{change:?}"
    );
    // Whoever opens it now finds a store with another name.
    let anew = open(&config).await;
    assert_ne!(anew.identity().await.unwrap(), before);
    assert_eq!(anew.get(&key("b")).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_put_back_from_a_copy_is_noticed() {
    let mut server = single();
    let config = server.url();
    let store = open(&config).await;
    let at = key("a");
    let mut version = create(&store, &at, b"0").await;
    let identity = store.identity().await.unwrap();
    server.stop_all().unwrap();
    server.snapshot_data().unwrap();
    server.start_all().unwrap();
    until("the store is back", || async {
        store.get(&at).await.is_ok()
    })
    .await;
    for n in 0..20 {
        version = common::update(&store, &at, &[n], &version).await;
    }
    let mark = store.mark();
    server.stop_all().unwrap();
    server.restore_data().unwrap();
    server.start_all().unwrap();
    until("it is noticed", || is_another_epoch(&store, &at)).await;
    // A run that begins now sees the same store with a mark behind the one that was seen.
    let anew = open(&config).await;
    assert_eq!(anew.identity().await.unwrap(), identity);
    assert!(anew.mark() < mark);
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_alive_as_long_as_their_sessions() {
    let server = single();
    let hosts: Vec<HostId> = ["host-a", "host-b"]
        .map(|host| host.parse().unwrap())
        .into();
    let (here, there) = (open(&server.url()).await, open(&server.url()).await);
    assert!(here.alive().await.unwrap().is_empty());
    for _ in 0..2 {
        here.announce(&hosts[0]).await.unwrap();
        there.announce(&hosts[1]).await.unwrap();
    }
    assert_eq!(here.alive().await.unwrap(), hosts);
    // A host that restarts at once takes over what its last session left.
    let again = open(&server.url()).await;
    again.announce(&hosts[1]).await.unwrap();
    drop(there);
    until("the old session is closed", || async {
        raw(&server.url())
            .await
            .check_stat("/netloom/@alive/host-b")
            .await
            .unwrap()
            .is_some()
    })
    .await;
    assert_eq!(here.alive().await.unwrap(), hosts);
    drop(again);
    until("the host is gone", || async {
        here.alive().await.unwrap() == hosts[..1]
    })
    .await;
}

/// The others go on without it; when it wakes, it still believes for a moment that it leads.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn counts_are_neither_lost_nor_doubled_when_the_leader_freezes_and_wakes() {
    let servers = three();
    let counters = Counters::start(&servers.url(), 100).await;
    let leader = servers.leader().unwrap();
    counters.progress(20).await;
    servers.pause(leader).unwrap();
    counters.progress(20).await;
    assert!(
        counters.is_busy(),
        "they were done before they could notice"
    );
    servers.resume(leader).unwrap();
    counters.settle().await;
}
