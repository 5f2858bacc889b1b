//! Each trap of Consul, on a real server.

mod support;

use netloom_core::store::{
    CommitError, Conflict, Liveness, Operation, Store, StoreError, Transaction, Versioned,
};
use netloom_lab::servers::Shape;
use std::time::Duration;
use support::servers::{consul, must, start, store};
use support::{create, key};
use tokio::task::block_in_place;

/// Two in one: deleting an absent key by compare-and-swap succeeds in Consul, and writing what is
/// there already changes no version.
#[tokio::test(flavor = "multi_thread")]
async fn what_consul_takes_for_done_is_checked_all_the_same() {
    let servers = start(&consul(Shape::Single));
    let bare = r#"[{"KV":{"Verb":"delete-cas","Key":"none","Index":7}}]"#;
    let said = must(&servers, "PUT /v1/txn", bare).await;
    assert!(said.contains(r#""Errors":null"#), "{said}");

    let store = store(&servers).await;
    let committed = store.commit(create("a")).await.unwrap();
    let first = committed.versions[0].1.clone();
    let write = |version| {
        let same = b"value".to_vec();
        Transaction::new([Operation::Update(key("a"), same, version)])
    };
    let committed = store.commit(write(first.clone())).await.unwrap();
    let second = committed.versions[0].1.clone();
    assert_ne!(second, first);
    let conflict = async |transaction| match store.commit(transaction).await {
        Err(CommitError::Conflict { conflict, .. }) => conflict,
        other => panic!("{other:?}"),
    };
    assert_eq!(conflict(write(first)).await, Conflict::VersionDiffers);
    let delete = Transaction::new([Operation::Delete(key("a"), second)]);
    store.commit(delete.clone()).await.unwrap();
    assert_eq!(conflict(delete).await, Conflict::Absent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_server_has_another_identity() {
    let mut servers = start(&consul(Shape::Single));
    let [one, other] = [store(&servers).await, store(&servers).await];
    let (first, second) = tokio::join!(one.identity(), other.identity());
    let identity = first.unwrap();
    assert_eq!(identity, second.unwrap(), "two that came first differ");
    block_in_place(|| servers.restart(0)).unwrap();
    assert_eq!(one.identity().await.unwrap(), identity);
    block_in_place(|| servers.wipe().and_then(|()| servers.start_all())).unwrap();
    assert_ne!(store(&servers).await.identity().await.unwrap(), identity);
    // Who knew the old one may also see that it holds less.
    match one.identity().await {
        Ok(now) => assert_ne!(now, identity),
        Err(StoreError::WrongEpoch(_)) => {}
        Err(other) => panic!("{other:?}"),
    }
}

/// A server put back from a copy: its indexes go backwards, and the watch wakes.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_put_back_from_a_copy_is_another_epoch() {
    let mut servers = start(&consul(Shape::Single));
    let store_before = store(&servers).await;
    store_before.commit(create("dir/a")).await.unwrap();
    servers.stop_all().unwrap();
    servers.snapshot_data().unwrap();
    block_in_place(|| servers.start_all()).unwrap();
    // More than a restart adds to the log by itself.
    for n in 0..100 {
        let lost = create(&format!("dir/lost{n}"));
        store_before.commit(lost).await.unwrap();
    }
    let mut watch = store_before.watch(&key("dir")).await.unwrap();
    let mark = store_before.latest().await.unwrap();
    servers.stop_all().unwrap();
    servers.restore_data().unwrap();
    block_in_place(|| servers.start_all()).unwrap();

    // Either it notices the restart, or that the index is lower than the one it waits for.
    let woken = tokio::time::timeout(Duration::from_secs(60), watch.changed()).await;
    assert!(woken.is_ok(), "the watch sleeps through all that was lost");
    let outcome = store_before.commit(create("dir/b")).await;
    assert!(
        matches!(outcome, Err(CommitError::Unknown(_))),
        "{outcome:?}"
    );
    let outcome = store_before.commit(create("dir/b")).await;
    assert!(
        matches!(outcome, Err(CommitError::WrongEpoch(_))),
        "{outcome:?}"
    );
    let read = store_before.get(&key("dir/a")).await;
    assert!(matches!(read, Err(StoreError::WrongEpoch(_))), "{read:?}");
    // Whoever opens it anew sees it by the mark that was kept.
    let anew = store(&servers).await;
    anew.identity().await.unwrap();
    assert!(anew.mark() < mark);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_comes_back_when_its_session_was_ended() {
    let servers = start(&consul(Shape::Single));
    let store_of_one = store(&servers).await;
    let [one, two] = ["host-1", "host-2"].map(|name| name.parse().unwrap());
    for host in [&one, &two, &two] {
        store_of_one.announce(host).await.unwrap();
    }
    let alive = async || store_of_one.alive().await.unwrap();
    assert_eq!(alive().await, [one.clone(), two.clone()]);
    let row = must(&servers, "GET /v1/kv/netloom.alive/host-1", "").await;
    let row: serde_json::Value = serde_json::from_str(&row).unwrap();
    let session = row[0]["Session"].as_str().unwrap();
    let end = format!("PUT /v1/session/destroy/{session}");
    must(&servers, &end, "").await;
    assert_eq!(alive().await, std::slice::from_ref(&two));
    store_of_one.announce(&one).await.unwrap();
    assert_eq!(alive().await, [one.clone(), two.clone()]);
    // The same host in its next life, while the session of the old one still lives.
    store(&servers).await.announce(&one).await.unwrap();
    assert_eq!(alive().await, [one, two]);
}

/// What was committed before the server went away is there when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_told_and_survived() {
    let mut servers = start(&consul(Shape::Single));
    let store = store(&servers).await;
    store.commit(create("a")).await.unwrap();
    let mut watch = store.watch(&key("dir")).await.unwrap();
    servers.stop_all().unwrap();
    let read = store.get(&key("a")).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    assert!(watch.changed().await.is_err());
    // All connections are known to be dead by now: nothing of this can leave.
    let outcome = store.commit(create("b")).await;
    assert!(
        matches!(outcome, Err(CommitError::Unavailable(_))),
        "{outcome:?}"
    );
    block_in_place(|| servers.start_all()).unwrap();
    let Versioned { value, .. } = store.get(&key("a")).await.unwrap().unwrap();
    assert_eq!(value, b"value");
    store.commit(create("b")).await.unwrap();
    // What happened meanwhile was missed, and the watch says so.
    watch.changed().await.unwrap();
}

/// Operators may lower Consul's limits below the contract's.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_over_the_servers_limit_is_told_as_too_large() {
    let lowered = "limits { kv_max_value_size = 1000 txn_max_req_len = 4000 }";
    let options = consul(Shape::Single).setting("-hcl").setting(lowered);
    let servers = start(&options);
    let store = store(&servers).await;
    let write =
        |name: &str, bytes: usize| Transaction::new([Operation::Create(key(name), vec![0; bytes])]);
    store.commit(write("fits", 1000)).await.unwrap();
    let outcome = store.commit(write("does-not", 8000)).await;
    assert!(matches!(outcome, Err(CommitError::TooLarge)), "{outcome:?}");
    assert!(store.get(&key("does-not")).await.unwrap().is_none());
    // Within the request's limit, but not within the value's.
    let outcome = store.commit(write("does-not", 2000)).await;
    assert!(matches!(outcome, Err(CommitError::TooLarge)), "{outcome:?}");
    assert!(store.get(&key("does-not")).await.unwrap().is_none());
}
