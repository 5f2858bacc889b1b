//! Every trap of etcd and its client library, named after it.
#![allow(clippy::unwrap_used, reason = "a test may stop at any error")]

mod common;

use common::etcd::{self, Etcd, Setup};
use common::proxy::{Mode, Proxy};
use common::{key, open, until};
use netloom_core::RemoteStoreConfig;
use netloom_core::store::{CommitError, Key, Liveness, Operation, Store, StoreError, Transaction};
use netloom_types::HostId;
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
    let etcd = Etcd::start(Setup::members(1)).await;
    let proxy = Proxy::before(etcd.port(0)).await;
    let store = open(&etcd::config(&[proxy.port])).await;
    let direct = open(&etcd.config()).await;
    let at = key("a");
    let before = etcd.calls(0, "Txn").await;
    proxy.set(Mode::Swallow);
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
    assert_eq!(etcd.calls(0, "Txn").await, before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_outcome_when_the_answer_does_not_come_in_time() {
    let etcd = Etcd::start(Setup::members(1)).await;
    let proxy = Proxy::before(etcd.port(0)).await;
    let store = open(&impatient(etcd::config(&[proxy.port]))).await;
    let before = etcd.calls(0, "Txn").await;
    proxy.set(Mode::Swallow);
    let outcome = store.commit(create(&key("a"))).await;
    assert!(
        matches!(outcome, Err(CommitError::Unknown(_))),
        "{outcome:?}"
    );
    proxy.set(Mode::Pass);
    assert!(store.get(&key("a")).await.unwrap().is_some());
    assert_eq!(etcd.calls(0, "Txn").await, before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_cut_off_is_unknown_and_is_never_sent_later() {
    let etcd = Etcd::start(Setup::members(1)).await;
    let proxy = Proxy::before(etcd.port(0)).await;
    let store = open(&etcd::config(&[proxy.port])).await;
    let before = etcd.calls(0, "Txn").await;
    proxy.set(Mode::CutBefore);
    let outcome = store.commit(create(&key("a"))).await;
    assert!(
        matches!(outcome, Err(CommitError::Unknown(_))),
        "{outcome:?}"
    );
    proxy.set(Mode::Pass);
    assert!(store.get(&key("a")).await.unwrap().is_none());
    assert_eq!(etcd.calls(0, "Txn").await, before);
}

/// What never left the host is not unknown: the caller may do something else instead.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_no_unknown_outcome() {
    let mut etcd = Etcd::start(Setup::members(1)).await;
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
    etcd.restart(0).await;
    assert!(store.get(&key("a")).await.unwrap().is_none());
    store.commit(create(&key("a"))).await.unwrap();
}

/// A connection that ended while nobody looked costs no unknown outcome: the server had restarted,
/// and the change goes out once, over a new one.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_that_ended_is_made_anew_before_anything_is_sent() {
    let mut etcd = Etcd::start(Setup::members(1)).await;
    let proxy = Proxy::before(etcd.port(0)).await;
    let store = open(&etcd::config(&[proxy.port])).await;
    etcd.restart(0).await;
    assert!(store.get(&key("a")).await.unwrap().is_none());
    let made = proxy.connections();
    etcd.restart(0).await;
    let outcome = store.commit(create(&key("a"))).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(proxy.connections(), made + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_hangs_neither_operations_nor_watches() {
    let etcd = Etcd::start(Setup::members(1)).await;
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
    let etcd = Etcd::start(Setup::members(3)).await;
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
        etcd.answers(member).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn compaction_under_a_watch_breaks_it_loudly() {
    let etcd = Etcd::start(Setup::members(1)).await;
    let proxy = Proxy::before(etcd.port(0)).await;
    let far = open(&etcd::config(&[proxy.port])).await;
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
    let mut client = etcd.client(0).await.unwrap();
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
    let mut etcd = Etcd::start(Setup::members(1)).await;
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
    let etcd = Etcd::start(Setup::members(1)).await;
    let store = open(&etcd.config()).await;
    let host = HostId::new("host-a").unwrap();
    assert_eq!(store.alive().await.unwrap(), []);
    store.announce(&host).await.unwrap();
    assert_eq!(store.alive().await.unwrap(), [host.clone()]);
    let mut client = etcd.client(0).await.unwrap();
    let leases = client.leases().await.unwrap();
    assert_eq!(leases.leases().len(), 1);
    client.lease_revoke(leases.leases()[0].id()).await.unwrap();
    assert_eq!(store.alive().await.unwrap(), []);
    store.announce(&host).await.unwrap();
    assert_eq!(store.alive().await.unwrap(), [host.clone()]);
    // A lease that lives, without its key: a renewal that succeeds proves nothing.
    client.delete("netloom/alive/host-a", None).await.unwrap();
    store.announce(&host).await.unwrap();
    assert_eq!(store.alive().await.unwrap(), [host.clone()]);
    // Saying it again costs no change.
    let before = store.mark();
    store.announce(&host).await.unwrap();
    assert!(store.get(&key("a")).await.unwrap().is_none());
    assert_eq!(store.mark(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ran_out_is_renewed_with_the_password_of_now() {
    let dir = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(Setup::members(1)).await;
    etcd.require_login("root", "first").await;
    let password_file = dir.path().join("password");
    std::fs::write(&password_file, "first\n").unwrap();
    let mut config = etcd.config();
    config.login = netloom_core::Login::Password {
        user: "root".into(),
        password_file: password_file.clone(),
    };
    let store = open(&config).await;
    store.commit(create(&key("a"))).await.unwrap();
    let options = etcd_client::ConnectOptions::new().with_user("root", "first");
    let url = format!("http://127.0.0.1:{}", etcd.port(0));
    let mut root = etcd_client::Client::connect([url], Some(options))
        .await
        .unwrap();
    // A change of the password ends all tokens of the user.
    root.user_change_password("root", "second").await.unwrap();
    std::fs::write(&password_file, "second").unwrap();
    let before = etcd.calls(0, "Txn").await;
    store.commit(create(&key("b"))).await.unwrap();
    assert_eq!(
        etcd.calls(0, "Txn").await,
        before + 2,
        "refused once, then done"
    );
    assert!(store.get(&key("b")).await.unwrap().is_some());
    let mut watch = store.watch(&key("dir")).await.unwrap();
    store.commit(create(&key("dir/a"))).await.unwrap();
    watch.changed().await.unwrap();
    // A password that is no longer right is told as such.
    let options = etcd_client::ConnectOptions::new().with_user("root", "second");
    let url = format!("http://127.0.0.1:{}", etcd.port(0));
    let mut root = etcd_client::Client::connect([url], Some(options))
        .await
        .unwrap();
    root.user_change_password("root", "third").await.unwrap();
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
    let setup = Setup::members(1).with("--max-request-bytes").with("65536");
    let etcd = Etcd::start(setup).await;
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
    let etcd = Etcd::start(Setup::members(1)).await;
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

fn is_wrong_epoch<T: std::fmt::Debug>(outcome: Result<T, StoreError>) {
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
    is_wrong_epoch(store.identity().await);
    is_wrong_epoch(store.list(&key("a")).await);
    is_wrong_epoch(store.reaches(1).await);
    let outcome = store.commit(create(&key("z"))).await;
    assert!(
        matches!(outcome, Err(CommitError::WrongEpoch(_))),
        "{outcome:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_put_back_from_a_copy_is_found_out() {
    let mut etcd = Etcd::start(Setup::members(1)).await;
    let store = open(&etcd.config()).await;
    store.commit(create(&key("a"))).await.unwrap();
    let identity = store.identity().await.unwrap();
    etcd.kill(0);
    let copy = tempfile::tempdir().unwrap();
    common::copy_dir(&etcd.data(0), copy.path());
    etcd.restart(0).await;
    for n in 0..10 {
        store.commit(create(&key(&format!("b/{n}")))).await.unwrap();
    }
    let mark = store.mark();
    etcd.kill(0);
    std::fs::remove_dir_all(etcd.data(0)).unwrap();
    common::copy_dir(copy.path(), &etcd.data(0));
    etcd.restart(0).await;
    everything_says_wrong_epoch(&store).await;
    // What a process sees that was not running meanwhile.
    let later = open(&etcd.config()).await;
    assert_eq!(later.identity().await.unwrap(), identity);
    assert!(later.mark() < mark);
    is_wrong_epoch(later.reaches(mark).await);
    is_wrong_epoch(later.get(&key("a")).await.map(|_| ()));
    let healthy = open(&etcd.config()).await;
    healthy.reaches(healthy.mark()).await.unwrap();
    healthy.reaches(healthy.mark() + 1).await.unwrap_err();
}

/// Set up again with the same words, etcd gives the same cluster id to an empty store.
#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_store_is_found_out_even_when_it_has_come_further() {
    let mut etcd = Etcd::start(Setup::members(1)).await;
    let store = open(&etcd.config()).await;
    let identity = store.identity().await.unwrap();
    store.commit(create(&key("a"))).await.unwrap();
    etcd.kill(0);
    std::fs::remove_dir_all(etcd.data(0)).unwrap();
    etcd.restart(0).await;
    let mut client = etcd.client(0).await.unwrap();
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
    let etcd = Etcd::start(Setup::members(1)).await;
    let other = Etcd::start(Setup::members(1)).await;
    let proxy = Proxy::before(etcd.port(0)).await;
    let store = open(&etcd::config(&[proxy.port])).await;
    store.commit(create(&key("a"))).await.unwrap();
    proxy.lead_to(other.port(0));
    everything_says_wrong_epoch(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_read_anew_for_every_connection() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("1"), dir.path().join("2"));
    std::fs::create_dir_all(&first).unwrap();
    std::fs::create_dir_all(&second).unwrap();
    let (old, new) = (common::certs::all(&first), common::certs::all(&second));
    let mut setup = Setup::members(1);
    setup.tls = Some(old.clone());
    let mut etcd = Etcd::start(setup).await;
    let config = etcd.config();
    let store = open(&config).await;
    store.commit(create(&key("a"))).await.unwrap();
    // The server gets another authority's certificate and trusts only that one from now on.
    etcd.setup().tls = Some(new.clone());
    etcd.restart(0).await;
    let refused = store.get(&key("a")).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    for (from, to) in [
        (&new.ca, &old.ca),
        (&new.client.cert, &old.client.cert),
        (&new.client.key, &old.client.key),
    ] {
        std::fs::copy(from, to).unwrap();
    }
    assert!(store.get(&key("a")).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_certificate_is_taken_up_while_the_connection_lives() {
    let dir = tempfile::tempdir().unwrap();
    let certs = common::certs::all(dir.path());
    let mut setup = Setup::members(1);
    setup.tls = Some(certs.clone());
    let etcd = Etcd::start(setup).await;
    let proxy = Proxy::before(etcd.port(0)).await;
    let mut config = etcd.config();
    config.url.endpoints[0].port = proxy.port;
    let store = open(&config).await;
    store.commit(create(&key("a"))).await.unwrap();
    let made = proxy.connections();
    for (from, to) in [
        (&certs.server.cert, &certs.client.cert),
        (&certs.server.key, &certs.client.key),
    ] {
        std::fs::copy(from, to).unwrap();
    }
    until("a new connection is made", || async {
        assert!(store.get(&key("a")).await.unwrap().is_some());
        proxy.connections() > made
    })
    .await;
    assert!(store.get(&key("a")).await.unwrap().is_some());
}
