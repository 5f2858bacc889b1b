//! Which store it is, whom it lets in, and whom we trust: found out anew all the time.
#![allow(clippy::unwrap_used, reason = "a test may stop at any error")]

mod common;

use common::etcd::{Etcd, single};
use common::{create, key, open, patient, until};
use netloom_core::store::{CommitError, Store, StoreError};
use netloom_core::{Login, RemoteStoreConfig};
use netloom_lab::proxy::Proxy;
use std::path::Path;
use std::sync::Arc;

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
    let store = open(&patient(ours.server.url_by(&both))).await;
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
