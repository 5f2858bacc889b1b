//! The watch's traps.

mod support;

use netloom_core::store::{Store, StoreError};
use std::sync::Arc;
use support::{Fake, Reply, answer, key, says};
use tokio::sync::Notify;

/// Answers the check for the right to read, and then these.
fn indexes(list: &'static [(u16, u64)]) -> impl Fn(&support::Seen, usize) -> Reply {
    move |seen, number| {
        assert!(!seen.line.contains("index=0"), "{}", seen.line);
        match list.get(number.wrapping_sub(1)) {
            _ if number == 0 => Reply::Bytes(answer(404, 5, "")),
            Some((status, index)) => Reply::Bytes(answer(*status, *index, "[]")),
            None => Reply::Silence,
        }
    }
}

#[tokio::test]
async fn an_index_that_goes_backwards_wakes_the_watch_and_starts_it_again() {
    let fake = Fake::start(indexes(&[(200, 10), (200, 7), (200, 7), (200, 8)])).await;
    let store = fake.store().await;
    let mut watch = store.watch(&key("a")).await.unwrap();
    watch.changed().await.unwrap();
    watch.changed().await.unwrap();
    watch.changed().await.unwrap();
    let lines = fake.lines();
    let asked: Vec<_> = lines[1..]
        .iter()
        .map(|line| line.split_once("&index=").map(|(_, rest)| rest))
        .collect();
    assert_eq!(
        asked,
        [None, Some("10&wait=20s"), None, Some("7&wait=20s")],
        "{lines:?}"
    );
}

#[tokio::test]
async fn an_answer_without_change_does_not_wake_the_watch() {
    let fake = Fake::start(indexes(&[(404, 10), (404, 10), (404, 10), (200, 11)])).await;
    let store = fake.store().await;
    let mut watch = store.watch(&key("a")).await.unwrap();
    watch.changed().await.unwrap();
    assert_eq!(fake.lines().len(), 5);
}

#[tokio::test]
async fn an_answer_without_an_index_breaks_the_watch() {
    let fake = Fake::start(indexes(&[(200, 10), (200, 0), (200, 10)])).await;
    let store = fake.store().await;
    let mut watch = store.watch(&key("a")).await.unwrap();
    let broken = watch.changed().await;
    assert!(
        matches!(broken, Err(StoreError::Unavailable(_))),
        "{broken:?}"
    );
    // Whoever goes on all the same has missed something.
    watch.changed().await.unwrap();
}

#[tokio::test]
async fn a_server_that_restarts_breaks_the_watch() {
    let fake = Fake::start(|_, number| match number {
        0 | 1 => Reply::Bytes(answer(404, 5, "")),
        _ => Reply::Close,
    })
    .await;
    let store = fake.store().await;
    let mut watch = store.watch(&key("a")).await.unwrap();
    let broken = watch.changed().await;
    assert!(
        matches!(broken, Err(StoreError::Unavailable(_))),
        "{broken:?}"
    );
}

/// On simulated time, which stands still until the server holds the question.
#[tokio::test]
async fn a_frozen_server_does_not_hang_the_watch() {
    let asked = Arc::new(Notify::new());
    let tell = Arc::clone(&asked);
    let fake = Fake::start(move |_, number| match number {
        0 | 1 => Reply::Bytes(answer(404, 5, "")),
        _ => {
            tell.notify_one();
            Reply::Silence
        }
    })
    .await;
    let store = fake.store().await;
    let mut watch = store.watch(&key("a")).await.unwrap();
    let waiting = tokio::spawn(async move { watch.changed().await });
    asked.notified().await;
    tokio::time::pause();
    let broken = waiting.await.unwrap();
    assert!(
        matches!(broken, Err(StoreError::Unavailable(_))),
        "{broken:?}"
    );
}

#[tokio::test]
async fn a_directory_that_may_not_be_read_is_not_watched_in_vain() {
    let fake = Fake::start(|_, _| says(403, "Permission denied")).await;
    let watch = fake.store().await.watch(&key("a")).await;
    assert!(matches!(watch, Err(StoreError::Denied(_))));
}
