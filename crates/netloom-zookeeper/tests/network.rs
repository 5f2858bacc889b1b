//! Networks that are slow, break, or swallow everything.
#![allow(clippy::unwrap_used, reason = "a test may stop at any error")]

mod common;

use common::{Counters, Mode, Proxy, create, key, open, single, suite, until};
use netloom_core::store::{CommitError, Operation, Store, StoreError, Transaction};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn slow_networks_keep_the_contract() {
    let server = single();
    let proxy = Proxy::start(&server.url().url.endpoints[0]).await;
    let config = proxy.config(&server.url());
    for (mode, directory) in [
        (Mode::Delay(Duration::from_millis(1)), "delay"),
        (Mode::Trickle(1024), "trickle"),
    ] {
        proxy.set(mode);
        let violations = suite(config.clone(), directory).run().await;
        assert!(violations.is_empty(), "{mode:?}: {violations:#?}");
    }
}

/// The library does not send the change again: if it did, the second copy would be refused, and the
/// outcome would be called a conflict.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_cut_off_from_its_answer_is_unknown_and_not_sent_again() {
    let server = single();
    let proxy = Proxy::start(&server.url().url.endpoints[0]).await;
    let store = open(&proxy.config(&server.url())).await;
    let at = key("a");
    let mut version = create(&store, &at, b"0").await;
    for (mode, happens) in [(Mode::CutAfter, true), (Mode::CutBefore, false)] {
        for round in 0..5 {
            let before = store.get(&at).await.unwrap().unwrap();
            assert_eq!(before.version, version);
            let value = vec![round; 10];
            proxy.set(mode);
            let update = Operation::Update(at.clone(), value.clone(), version.clone());
            let outcome = store.commit(Transaction::new([update])).await;
            assert!(
                matches!(outcome, Err(CommitError::Unknown(_))),
                "{mode:?}: {outcome:?}"
            );
            let after = store.get(&at).await.unwrap().unwrap();
            assert_eq!(after.value == value && after.version != version, happens);
            version = after.version;
        }
    }
    assert_eq!(proxy.cuts(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn counts_are_neither_lost_nor_doubled_while_connections_are_cut() {
    const CUTS: u32 = 40;
    let server = single();
    let proxy = Proxy::start(&server.url().url.endpoints[0]).await;
    let counters = Counters::start(&proxy.config(&server.url()), 60).await;
    for cut in 1..=CUTS {
        let mode = if cut % 2 == 0 {
            Mode::CutAfter
        } else {
            Mode::CutBefore
        };
        proxy.set(mode);
        until("a connection is cut", || async { proxy.cuts() >= cut }).await;
    }
    assert!(counters.is_busy(), "they were done too early");
    let unknown = counters.settle().await;
    assert_eq!(proxy.cuts(), CUTS);
    println!("{CUTS} cuts, {unknown} outcomes unknown even after a second look");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_swallows_everything_ends_every_wait() {
    let server = single();
    let proxy = Proxy::start(&server.url().url.endpoints[0]).await;
    let store = open(&proxy.config(&server.url())).await;
    let at = key("d/a");
    let version = create(&store, &at, b"x").await;
    proxy.set(Mode::BlackHole);
    let update = Operation::Update(at.clone(), b"y".to_vec(), version.clone());
    let change = store.commit(Transaction::new([update])).await;
    assert!(matches!(change, Err(CommitError::Unknown(_))), "{change:?}");
    let read = store.get(&at).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    let listed = store.list(&key("d")).await;
    assert!(
        matches!(listed, Err(StoreError::Unavailable(_))),
        "{listed:?}"
    );
    let watch = store.watch(&key("d")).await;
    assert!(matches!(watch, Err(StoreError::Unavailable(_))));
    proxy.set(Mode::Pass);
    until("reads work again", || async {
        store.get(&at).await.is_ok()
    })
    .await;
    assert_eq!(store.get(&at).await.unwrap().unwrap().version, version);
}
