//! A change is sent once, whatever becomes of connections and servers.

mod support;

use netloom_core::store::{CommitError, Store, StoreError};
use std::collections::HashMap;
use std::sync::Arc;
use support::{Fake, Reply, answer, committed, config, create, key, open, row, says};
use tokio::sync::Notify;

#[tokio::test]
async fn the_client_sends_a_change_only_once_when_the_answer_is_lost() {
    let lossy = Fake::start(|_, _| Reply::Close).await;
    let other = Fake::start(|seen, _| committed(seen, 7)).await;
    let store = open(&config(&[&lossy.address, &other.address])).await;
    let outcome = store.commit(create("a")).await;
    assert!(
        matches!(outcome, Err(CommitError::Unknown(_))),
        "{outcome:?}"
    );
    assert_eq!((lossy.seen().len(), other.seen().len()), (1, 0));
    // The next one starts with the server that may be better.
    store.commit(create("b")).await.unwrap();
    assert_eq!((lossy.seen().len(), other.seen().len()), (1, 1));
}

/// The race that makes client libraries re-send: the server closes a connection at the moment at
/// which the next request is written to it.
#[tokio::test]
async fn the_client_sends_a_change_only_once_over_connections_that_die() {
    let fake = Fake::start(|seen, _| match committed(seen, 7) {
        Reply::Bytes(answer) => Reply::BytesAndClose(answer),
        other => other,
    })
    .await;
    let store = fake.store().await;
    let mut happened = 0;
    for n in 0..100 {
        match store.commit(create(&format!("k{n}"))).await {
            Ok(_) => happened += 1,
            Err(CommitError::Unknown(_)) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    let mut copies: HashMap<String, u32> = HashMap::new();
    for seen in fake.seen() {
        *copies.entry(seen.body).or_default() += 1;
    }
    assert!(copies.values().all(|copies| *copies == 1), "{copies:?}");
    assert!(copies.len() >= happened && happened > 0);
}

#[tokio::test]
async fn a_refused_connection_is_no_unknown_outcome() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = listener.local_addr().unwrap().to_string();
    drop(listener);
    let outcome = open(&config(&[&gone])).await.commit(create("a")).await;
    assert!(
        matches!(outcome, Err(CommitError::Unavailable(_))),
        "{outcome:?}"
    );
    let other = Fake::start(|seen, _| committed(seen, 7)).await;
    let store = open(&config(&[&gone, &other.address])).await;
    store.commit(create("a")).await.unwrap();
    assert_eq!(other.seen().len(), 1);
}

#[tokio::test]
async fn a_server_without_a_leader_is_left_for_the_next() {
    let lost = Fake::start(|_, _| says(500, "No cluster leader")).await;
    let other = Fake::start(|seen, _| committed(seen, 7)).await;
    let store = open(&config(&[&lost.address, &other.address])).await;
    store.commit(create("a")).await.unwrap();
    assert_eq!((lost.seen().len(), other.seen().len()), (1, 1));
}

#[tokio::test]
async fn a_read_goes_on_to_the_next_server() {
    let body = format!("[{}]", row("a", "\"AA==\"", 7, 0));
    let good = Fake::start(move |_, _| says(200, &body)).await;
    for bad in [
        Fake::start(|_, _| Reply::Close).await,
        Fake::start(|_, _| Reply::Silence).await,
        Fake::start(|_, _| says(500, "rpc error making call: EOF")).await,
    ] {
        let store = open(&config(&[&bad.address, &good.address])).await;
        let read = store.get(&key("a")).await.unwrap().unwrap();
        assert_eq!(read.value, [0]);
        assert_eq!(bad.seen().len(), 1);
    }
}

/// A connection that was used before and went silent: the next operations take new ones. On
/// simulated time, which stands still until the server holds the question.
#[tokio::test]
async fn a_silent_connection_takes_its_idle_neighbours_along() {
    let asked = Arc::new(Notify::new());
    let tell = Arc::clone(&asked);
    let fake = Fake::start(move |_, number| match number {
        1 => {
            tell.notify_one();
            Reply::Silence
        }
        _ => Reply::Bytes(answer(404, 5, "")),
    })
    .await;
    let store = Arc::new(fake.store().await);
    store.get(&key("a")).await.unwrap();
    let reader = Arc::clone(&store);
    let waiting = tokio::spawn(async move { reader.get(&key("a")).await });
    asked.notified().await;
    tokio::time::pause();
    let read = waiting.await.unwrap();
    tokio::time::resume();
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    store.get(&key("a")).await.unwrap();
}

/// A token is replaced while the daemon runs.
#[tokio::test]
async fn a_token_changed_in_its_file_gets_its_try() {
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("token");
    std::fs::write(&file, "old\n").unwrap();
    let fake = Fake::start(|seen, _| {
        if seen.head.contains("x-consul-token: new") {
            return committed(seen, 7);
        }
        assert!(seen.head.contains("x-consul-token: old"), "{}", seen.head);
        says(403, "ACL not found")
    })
    .await;
    let store = open(&support::config_with_token(&fake.address, &file)).await;
    let outcome = store.commit(create("a")).await;
    assert!(
        matches!(outcome, Err(CommitError::Denied(_))),
        "{outcome:?}"
    );
    std::fs::write(&file, "new\n").unwrap();
    store.commit(create("a")).await.unwrap();
    assert!(!format!("{store:?}").contains("new"), "the token shows");
}
