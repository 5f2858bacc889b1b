//! The contract on real servers: healthy, over TLS, killed, frozen.

mod support;

use netloom_core::store::{CommitError, Store, StoreError};
use netloom_core::{ClientIdentity, Login};
use netloom_lab::servers::Shape;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::counters::{Met, count};
use support::servers::{consul, keeps_the_contract, shared, start, store, three_calm};
use support::{create, key, open};
use tokio::task::block_in_place;

#[tokio::test(flavor = "multi_thread")]
async fn one_server_keeps_the_contract() {
    let servers = start(&consul(Shape::Single));
    keeps_the_contract(store(&servers).await).await;
}

/// The leader is killed twice, and frozen once, under writers; then the whole contract again.
#[tokio::test(flavor = "multi_thread")]
async fn three_servers_lose_no_increment_when_the_leader_goes() {
    const ROUNDS: u64 = 100;
    let mut servers = start(&three_calm());
    // The daemon's own time for an operation: what meets a frozen leader shall not wait for long.
    let hosts = shared(&servers.url()).await;
    let met = Arc::new(Met::default());
    for run in 0..3 {
        let before = met.happened.load(Ordering::Relaxed);
        let writers = tokio::spawn(count(
            Arc::clone(&hosts) as _,
            key(&format!("counters/{run}")),
            ROUNDS,
            Arc::clone(&met),
        ));
        // In the middle: after some increments, and long before the last.
        while met.happened.load(Ordering::Relaxed) < before + 50 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(!writers.is_finished());
        let leader = block_in_place(|| servers.leader()).unwrap();
        if run == 2 {
            servers.pause(leader).unwrap();
        } else {
            servers.kill(leader).unwrap();
        }
        writers.await.unwrap();
        if run == 2 {
            servers.resume(leader).unwrap();
        }
        block_in_place(|| servers.start_all()).unwrap();
    }
    keeps_the_contract(store(&servers).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept_over_tls_with_certificate_and_token() {
    let servers = start(&consul(Shape::Single).tls().login());
    keeps_the_contract(store(&servers).await).await;
}

/// Neither an empty list nor a conflict: both are what Consul says to whom it does not let in.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_token_is_denied() {
    let servers = start(&consul(Shape::Single).login());
    let mut config = servers.url();
    config.login = Login::Nobody;
    let stranger = open(&config).await;
    let read = stranger.get(&key("a")).await;
    assert!(matches!(read, Err(StoreError::Denied(_))), "{read:?}");
    let listed = stranger.list(&key("a")).await;
    assert!(matches!(listed, Err(StoreError::Denied(_))), "{listed:?}");
    let watch = stranger.watch(&key("a")).await;
    assert!(matches!(watch, Err(StoreError::Denied(_))));
    let outcome = stranger.commit(create("a")).await;
    assert!(
        matches!(outcome, Err(CommitError::Denied(_))),
        "{outcome:?}"
    );
    let identity = stranger.identity().await;
    assert!(matches!(identity, Err(StoreError::Denied(_))));
}

/// Certificate and token are replaced in their files while the store is open.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_tokens_are_read_anew() {
    let servers = start(&consul(Shape::Single).tls().login());
    let right = servers.url();
    let files = tempfile::tempdir().unwrap();
    let place = |name: &str| files.path().join(name);
    let (Login::Token { token_file }, Some(identity)) = (&right.login, &right.tls.identity) else {
        unreachable!("the lab was asked for both")
    };

    // A certificate of somebody whom the server does not know.
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(place("cert"), other.cert.pem()).unwrap();
    std::fs::write(place("key"), other.signing_key.serialize_pem()).unwrap();
    std::fs::write(place("token"), "no-such-token\n").unwrap();
    let mut config = right.clone();
    config.tls.identity = Some(ClientIdentity {
        cert: place("cert"),
        key: place("key"),
    });
    config.login = Login::Token {
        token_file: place("token"),
    };
    let store = shared(&config).await;
    let read = store.get(&key("a")).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");

    std::fs::copy(&identity.cert, place("cert")).unwrap();
    std::fs::copy(&identity.key, place("key")).unwrap();
    let read = store.get(&key("a")).await;
    assert!(matches!(read, Err(StoreError::Denied(_))), "{read:?}");
    let outcome = store.commit(create("a")).await;
    assert!(
        matches!(outcome, Err(CommitError::Denied(_))),
        "{outcome:?}"
    );

    // Over the connection that is there.
    std::fs::copy(token_file, place("token")).unwrap();
    store.commit(create("a")).await.unwrap();
    assert!(store.get(&key("a")).await.unwrap().is_some());

    // A server that shows a certificate of nobody we trust is no server of ours.
    let mut config = right;
    config.tls.ca = Some(place("ca"));
    std::fs::write(place("ca"), other.cert.pem()).unwrap();
    let outcome = open(&config).await.commit(create("b")).await;
    assert!(
        matches!(outcome, Err(CommitError::Unavailable(_))),
        "{outcome:?}"
    );
}
