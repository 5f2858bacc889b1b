//! Servers that freeze, die, forget and come back.
#![allow(clippy::unwrap_used, reason = "a test may stop at any error")]

mod common;

use common::{Ensemble, Single, create, key, only, open, raw, until};
use netloom_core::store::{CommitError, Key, Liveness, Operation, Store, StoreError, Transaction};
use netloom_types::HostId;
use netloom_zookeeper::ZooKeeperStore;

/// Why a read behind a `sync` is not enough: the leader answers it without asking anybody. A leader
/// whose followers have gone on with another one would hand out what it last knew.
#[tokio::test(flavor = "multi_thread")]
async fn sync_is_answered_by_a_leader_without_followers_and_a_read_is_not() {
    let servers = Ensemble::three().await;
    let leader = servers.leader().await;
    let config = only(&servers.config(), leader);
    let (store, client) = (open(&config).await, raw(&config).await);
    let at = key("a");
    create(&store, &at, b"x").await;
    let followers: Vec<_> = (0..3).filter(|member| *member != leader).collect();
    for follower in &followers {
        servers.pause(*follower);
    }
    client.sync("/a").await.expect("the trap is not there");
    client.get_data("/a").await.expect("the trap is not there");
    let read = store.get(&at).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    for follower in followers {
        servers.resume(follower);
    }
    until("reads work again", || async {
        store.get(&at).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_expires_is_followed_by_another_one() {
    let server = Single::start().await;
    let store = open(&server.config()).await;
    let host: HostId = "host-a".parse().unwrap();
    store.announce(&host).await.unwrap();
    let directory = key("dir");
    create(&store, &key("dir/a"), b"").await;
    let mut watch = store.watch(&directory).await.unwrap();
    server.0.pause(0);
    // Frozen for longer than the session lives: the watch must not keep silent about it.
    let broken = async { while watch.changed().await.is_ok() {} };
    let broken = tokio::time::timeout(std::time::Duration::from_secs(60), broken).await;
    assert!(broken.is_ok(), "the watch of a dead session says nothing");
    let read = store.get(&key("dir/a")).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    server.0.resume(0);

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
    let mut server = Single::start().await;
    let store = open(&server.config()).await;
    create(&store, &key("d/before"), b"").await;
    server.0.kill(0);
    let mut refused = Vec::new();
    for n in 0..10 {
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
    server.0.restart(0);
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
    let mut server = Single::start().await;
    let config = server.config();
    let store = open(&config).await;
    let at = key("a");
    create(&store, &at, b"x").await;
    let before = store.identity().await.unwrap();
    server.0.kill(0);
    std::fs::remove_dir_all(server.0.data(0)).unwrap();
    std::fs::create_dir(server.0.data(0)).unwrap();
    server.0.restart(0);
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
    let mut server = Single::start().await;
    let config = server.config();
    let store = open(&config).await;
    let at = key("a");
    let mut version = create(&store, &at, b"0").await;
    let identity = store.identity().await.unwrap();
    server.0.kill(0);
    let copy = server.0.dir().join("copy");
    copy_files(&server.0.data(0), &copy);
    server.0.restart(0);
    until("the store is back", || async {
        store.get(&at).await.is_ok()
    })
    .await;
    for n in 0..20 {
        version = common::update(&store, &at, &[n], &version).await;
    }
    let mark = store.mark();
    server.0.kill(0);
    std::fs::remove_dir_all(server.0.data(0)).unwrap();
    copy_files(&copy, &server.0.data(0));
    server.0.restart(0);
    until("it is noticed", || is_another_epoch(&store, &at)).await;
    // A run that begins now sees the same store with a mark behind the one that was seen.
    let anew = open(&config).await;
    assert_eq!(anew.identity().await.unwrap(), identity);
    assert!(anew.mark() < mark);
}

fn copy_files(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_files(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_alive_as_long_as_their_sessions() {
    let server = Single::start().await;
    let hosts: Vec<HostId> = ["host-a", "host-b"]
        .map(|host| host.parse().unwrap())
        .into();
    let (here, there) = (open(&server.config()).await, open(&server.config()).await);
    assert!(here.alive().await.unwrap().is_empty());
    for _ in 0..2 {
        here.announce(&hosts[0]).await.unwrap();
        there.announce(&hosts[1]).await.unwrap();
    }
    assert_eq!(here.alive().await.unwrap(), hosts);
    // A host that restarts at once takes over what its last session left.
    let again = open(&server.config()).await;
    again.announce(&hosts[1]).await.unwrap();
    drop(there);
    until("the old session is closed", || async {
        raw(&server.config())
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
