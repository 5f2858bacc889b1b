//! One test per trap of ZooKeeper's, each on a real server.
#![allow(clippy::unwrap_used, reason = "a test may stop at any error")]

mod common;

use common::{committed, create, delete, key, open, patient, raw, single, update};
use netloom_core::store::{
    CommitError, Conflict, Key, Operation, Store, Transaction, VALUE_BYTES_MAX, Version,
};
use netloom_zookeeper::ZooKeeperStore;
use zookeeper_client::{Acls, CreateMode};

async fn conflict(store: &ZooKeeperStore, operation: Operation) -> Conflict {
    match store.commit(Transaction::new([operation])).await {
        Err(CommitError::Conflict { conflict, .. }) => conflict,
        other => panic!("expected a conflict, got {other:?}"),
    }
}

/// ZooKeeper's own version is the same for both lives of the key; ours is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_restarts_after_delete_and_create_is_another_one() {
    let server = single();
    let (store, client) = (open(&patient(server.url())).await, raw(&server.url()).await);
    let at = key("a/b");
    let old = create(&store, &at, b"first").await;
    let stat_old = client.check_stat("/a/b").await.unwrap().unwrap();
    delete(&store, &at, &old).await;
    let new = create(&store, &at, b"second").await;
    let stat_new = client.check_stat("/a/b").await.unwrap().unwrap();
    assert_eq!(stat_old.version, stat_new.version, "the trap is not there");
    assert_ne!(stat_old.czxid, stat_new.czxid);
    assert_ne!(old, new);
    for late in [
        Operation::Update(at.clone(), b"late".to_vec(), old.clone()),
        Operation::Delete(at.clone(), old.clone()),
        Operation::CheckVersion(at.clone(), old.clone()),
    ] {
        assert_eq!(conflict(&store, late).await, Conflict::VersionDiffers);
    }
    assert_eq!(store.get(&at).await.unwrap().unwrap().value, b"second");
}

/// A key that has others below it cannot be removed from ZooKeeper: what stays is no value, and
/// goes on counting.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_key_with_others_below_it_is_absent_and_its_versions_go_on() {
    let server = single();
    let (store, client) = (open(&patient(server.url())).await, raw(&server.url()).await);
    let (upper, lower) = (key("a/b"), key("a/b/c"));
    let mut seen = vec![create(&store, &upper, b"").await];
    let below = create(&store, &lower, b"below").await;
    delete(&store, &upper, &seen[0]).await;
    assert_eq!(store.get(&upper).await.unwrap(), None);
    committed(&store, [Operation::CheckAbsent(upper.clone())]).await;
    let listed = store.list(&key("a")).await.unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    // Now that nothing lies below it any more, it must still not start again.
    delete(&store, &lower, &below).await;
    for _ in 0..3 {
        let again = create(&store, &upper, b"again").await;
        assert!(!seen.contains(&again));
        seen.push(again.clone());
        delete(&store, &upper, &again).await;
    }
    let stat = client.check_stat("/a/b").await.unwrap().unwrap();
    assert_eq!(
        stat.version, 8,
        "the node was deleted and created in between"
    );
    for old in seen {
        let late = Operation::CheckVersion(upper.clone(), old);
        assert_eq!(conflict(&store, late).await, Conflict::Absent);
    }
}

/// -1 means "any version" to ZooKeeper.
#[tokio::test(flavor = "multi_thread")]
async fn minus_one_is_sent_to_nobody() {
    let server = single();
    let store = open(&patient(server.url())).await;
    let at = key("a");
    let version = create(&store, &at, b"kept").await;
    // The right life, with -1 in the place of the count: four bytes at the end.
    let mut bytes = version.as_bytes().to_vec();
    let count = bytes.len() - 4;
    bytes[count..].copy_from_slice(&(-1_i32).to_be_bytes());
    let any = Version::from_bytes(bytes);
    for late in [
        Operation::Update(at.clone(), b"late".to_vec(), any.clone()),
        Operation::Delete(at.clone(), any.clone()),
        Operation::CheckVersion(at.clone(), any),
    ] {
        assert_eq!(conflict(&store, late).await, Conflict::VersionDiffers);
    }
    assert_eq!(store.get(&at).await.unwrap().unwrap().value, b"kept");
    update(&store, &at, b"changed", &version).await;
}

/// A request of more than 1 MiB makes the server hang up, and an answer may be that large.
#[tokio::test(flavor = "multi_thread")]
async fn the_packet_limit_is_never_met() {
    let server = single();
    let (store, client) = (open(&patient(server.url())).await, raw(&server.url()).await);
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let large = client.create("/large", &vec![0; 1 << 20], &options).await;
    assert!(large.is_err(), "the trap is not there");
    let values = [VALUE_BYTES_MAX + 1, (1 << 20) + 1];
    for bytes in values {
        let outcome = Operation::Create(key("large"), vec![0; bytes]);
        let outcome = store.commit(Transaction::new([outcome])).await;
        assert!(matches!(outcome, Err(CommitError::TooLarge)), "{outcome:?}");
    }
    // A directory whose names alone are more than 1 MiB is listed whole.
    let (name, count) = ("n".repeat(180), 6400);
    let keys: Vec<Key> = (0..count)
        .map(|n| key(&format!("d/{n:06}{name}")))
        .collect();
    for some in keys.chunks(16) {
        let creates = some
            .iter()
            .map(|key| Operation::Create(key.clone(), vec![]));
        committed(&store, creates).await;
    }
    let listed = store.list(&key("d")).await.unwrap();
    assert!(listed.iter().map(|(key, _)| key).eq(&keys));
}

/// Nodes of operators and of other programs are no values, and are not written over.
#[tokio::test(flavor = "multi_thread")]
async fn data_of_strangers_is_neither_read_nor_overwritten() {
    let server = single();
    let (store, client) = (open(&patient(server.url())).await, raw(&server.url()).await);
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    client.create("/a", b"by hand", &options).await.unwrap();
    client.create("/Upper", b"no key", &options).await.unwrap();
    let read = store.get(&key("a")).await;
    assert!(
        matches!(read, Err(netloom_core::store::StoreError::Corrupt(_))),
        "{read:?}"
    );
    let create_there = Operation::Create(key("a"), vec![]);
    assert_eq!(conflict(&store, create_there).await, Conflict::Exists);
    // It is a directory like any other.
    create(&store, &key("a/b"), b"below").await;
    assert_eq!(store.list(&key("a")).await.unwrap().len(), 1);
}

/// The store does not keep a directory for every key that ever was.
#[tokio::test(flavor = "multi_thread")]
async fn directories_that_deletes_leave_empty_are_removed() {
    let server = single();
    let (store, client) = (open(&patient(server.url())).await, raw(&server.url()).await);
    for n in 0..20 {
        let at = key(&format!("refs/{n}/deep/leaf"));
        let version = create(&store, &at, b"x").await;
        delete(&store, &at, &version).await;
    }
    common::until("the directories are gone", || async {
        client.check_stat("/refs").await.unwrap().is_none()
    })
    .await;
}
