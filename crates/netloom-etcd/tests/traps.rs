//! Every trap of etcd and its client library, named after it.
#![allow(clippy::unwrap_used, reason = "a test may stop at any error")]

mod common;

use common::etcd::{Etcd, single, three};
use common::{key, open, until};
use netloom_core::store::{CommitError, Key, Liveness, Operation, Store, StoreError, Transaction};
use netloom_core::{Login, RemoteStoreConfig};
use netloom_lab::proxy::{Mode, Proxy};
use netloom_types::HostId;
use std::path::Path;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

fn create(at: &Key) -> Transaction {
    Transaction::new([Operation::Create(at.clone(), b"value".to_vec())])
}

/// Hangs are part of these tests; they need not be long.
fn impatient(mut config: RemoteStoreConfig) -> RemoteStoreConfig {
    config.timeout = Duration::from_secs(1);
    config
}

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
    until("the change happens", || async {
        direct.get(&at).await.unwrap().is_some()
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
    let store = open(&impatient(config)).await;
    let before = etcd.calls("Txn").await;
    proxy.set(Mode::HalfOpen);
    let outcome = store.commit(create(&key("a"))).await;
    assert!(
        matches!(outcome, Err(CommitError::Unknown(_))),
        "{outcome:?}"
    );
    proxy.set(Mode::Pass);
    assert!(store.get(&key("a")).await.unwrap().is_some());
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
    let store = open(&impatient(etcd.config())).await;
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
    let etcd = Etcd::start(&single());
    let store = open(&impatient(etcd.config())).await;
    let mut watch = store.watch(&key("dir")).await.unwrap();
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
    store.watch(&key("dir")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_member_is_left_for_another() {
    let mut etcd = Etcd::start(&three());
    let mut config = etcd.config();
    // The leader may be among the frozen: an election takes its time.
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
async fn a_token_that_ran_out_is_renewed_with_the_password_of_now() {
    let etcd = Etcd::start(&single().login());
    let config = etcd.config();
    let Login::Password {
        user,
        password_file,
    } = &config.login
    else {
        panic!("the lab has a user for etcd");
    };
    let store = open(&config).await;
    store.commit(create(&key("a"))).await.unwrap();
    let password = std::fs::read_to_string(password_file).unwrap();
    let mut root = etcd.client(Some(("root", password.trim()))).await;
    // A change of the password ends all tokens of the user.
    root.user_change_password(user, "second").await.unwrap();
    std::fs::write(password_file, "second").unwrap();
    let before = etcd.calls("Txn").await;
    store.commit(create(&key("b"))).await.unwrap();
    assert_eq!(
        etcd.calls("Txn").await,
        before + 2,
        "refused once, then done"
    );
    assert!(store.get(&key("b")).await.unwrap().is_some());
    let mut watch = store.watch(&key("dir")).await.unwrap();
    store.commit(create(&key("dir/a"))).await.unwrap();
    watch.changed().await.unwrap();
    // A password that is no longer right is told as such.
    root.user_change_password(user, "third").await.unwrap();
    let outcome = store.commit(create(&key("c"))).await;
    assert!(
        matches!(outcome, Err(CommitError::Denied(_))),
        "{outcome:?}"
    );
    let read = store.get(&key("c")).await;
    assert!(matches!(read, Err(StoreError::Denied(_))), "{read:?}");
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

fn is_wrong_epoch<T: std::fmt::Debug>(outcome: &Result<T, StoreError>) {
    assert!(
        matches!(outcome, Err(StoreError::WrongEpoch(_))),
        "{outcome:?}"
    );
}

async fn everything_says_wrong_epoch(store: &Arc<netloom_etcd::EtcdStore>) {
    until("the store is found out", || async {
        matches!(store.get(&key("a")).await, Err(StoreError::WrongEpoch(_)))
    })
    .await;
    is_wrong_epoch(&store.identity().await);
    is_wrong_epoch(&store.list(&key("a")).await);
    is_wrong_epoch(&store.reaches(1).await);
    let outcome = store.commit(create(&key("z"))).await;
    assert!(
        matches!(outcome, Err(CommitError::WrongEpoch(_))),
        "{outcome:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_put_back_from_a_copy_is_found_out() {
    let mut etcd = Etcd::start(&single());
    let store = open(&etcd.config()).await;
    store.commit(create(&key("a"))).await.unwrap();
    let identity = store.identity().await.unwrap();
    etcd.kill(0);
    etcd.server.snapshot_data().unwrap();
    etcd.restart(0);
    for n in 0..10 {
        store.commit(create(&key(&format!("b/{n}")))).await.unwrap();
    }
    let mark = store.mark();
    etcd.kill(0);
    etcd.server.restore_data().unwrap();
    etcd.restart(0);
    everything_says_wrong_epoch(&store).await;
    // What a process sees that was not running meanwhile.
    let later = open(&etcd.config()).await;
    assert_eq!(later.identity().await.unwrap(), identity);
    assert!(later.mark() < mark);
    is_wrong_epoch(&later.reaches(mark).await);
    is_wrong_epoch(&later.get(&key("a")).await.map(|_| ()));
    let healthy = open(&etcd.config()).await;
    healthy.reaches(healthy.mark()).await.unwrap();
    healthy.reaches(healthy.mark() + 1).await.unwrap_err();
}

/// Set up again with the same words, etcd gives the same cluster id to an empty store.
#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_store_is_found_out_even_when_it_has_come_further() {
    let mut etcd = Etcd::start(&single());
    let store = open(&etcd.config()).await;
    let identity = store.identity().await.unwrap();
    store.commit(create(&key("a"))).await.unwrap();
    etcd.server.wipe().unwrap();
    etcd.restart(0);
    let mut client = etcd.client(None).await;
    for n in 0..20 {
        client
            .put("somebody/else", n.to_string(), None)
            .await
            .unwrap();
    }
    everything_says_wrong_epoch(&store).await;
    let new = open(&etcd.config()).await;
    assert_ne!(new.identity().await.unwrap(), identity);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_at_the_same_address_is_found_out() {
    let mut ours = Etcd::start(&single());
    let mut other = Etcd::start(&single());
    let both = [ours.server.endpoints(), other.server.endpoints()].concat();
    let store = open(&ours.server.url_by(&both)).await;
    store.commit(create(&key("a"))).await.unwrap();
    // Whichever it was that was opened, the other's turn comes next.
    ours.restart(0);
    other.restart(0);
    everything_says_wrong_epoch(&store).await;
}

/// A server with certificates behind a proxy, and the client's files as copies that a test may
/// change.
async fn with_certificates(dir: &Path) -> (Etcd, Proxy, RemoteStoreConfig) {
    let etcd = Etcd::start(&single().tls());
    let (proxy, mut config) = etcd.proxy().await;
    let identity = config.tls.identity.as_mut().unwrap();
    for (n, file) in [
        config.tls.ca.as_mut().unwrap(),
        &mut identity.cert,
        &mut identity.key,
    ]
    .into_iter()
    .enumerate()
    {
        let copy = dir.join(n.to_string());
        std::fs::copy(&*file, &copy).unwrap();
        *file = copy;
    }
    (etcd, proxy, config)
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_read_anew_for_every_connection() {
    let dir = tempfile::tempdir().unwrap();
    let (_etcd, proxy, config) = with_certificates(dir.path()).await;
    let store = open(&config).await;
    store.commit(create(&key("a"))).await.unwrap();
    let ca = config.tls.ca.as_ref().unwrap();
    let good = std::fs::read(ca).unwrap();
    // A certificate, but not that of the server's authority.
    std::fs::copy(&config.tls.identity.as_ref().unwrap().cert, ca).unwrap();
    proxy.cut();
    until("the connection has ended", || async {
        let read = store.get(&key("a")).await;
        matches!(read, Err(StoreError::Unavailable(_)))
    })
    .await;
    let outcome = store.commit(create(&key("b"))).await;
    assert!(
        matches!(outcome, Err(CommitError::Unavailable(_))),
        "{outcome:?}"
    );
    std::fs::write(ca, good).unwrap();
    assert!(store.get(&key("a")).await.unwrap().is_some());
    assert!(store.get(&key("b")).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_certificates_are_taken_up_while_the_connection_lives() {
    let dir = tempfile::tempdir().unwrap();
    let (_etcd, proxy, config) = with_certificates(dir.path()).await;
    let store = open(&config).await;
    store.commit(create(&key("a"))).await.unwrap();
    let made = proxy.faults().connections;
    let cert = &config.tls.identity.as_ref().unwrap().cert;
    std::fs::write(cert, std::fs::read(cert).unwrap()).unwrap();
    until("a new connection is made", || async {
        assert!(store.get(&key("a")).await.unwrap().is_some());
        proxy.faults().connections > made
    })
    .await;
    assert!(store.get(&key("a")).await.unwrap().is_some());
}
