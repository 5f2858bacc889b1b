//! Networks that are slow, break, or swallow everything.
#![allow(clippy::unwrap_used, reason = "a test may stop at any error")]

mod common;

use common::{Counters, create, key, open, single, suite, until};
use netloom_core::RemoteStoreConfig;
use netloom_core::store::{CommitError, Operation, Store, StoreError, Transaction};
use netloom_lab::proxy::{Mode, Proxy};
use netloom_lab::servers::StoreServer;
use std::time::Duration;

/// One server, and the way to it.
async fn behind_a_proxy() -> (StoreServer, Proxy, RemoteStoreConfig) {
    let server = single();
    let address = server.endpoints().pop().unwrap();
    let proxy = Proxy::start(address, 7).await.unwrap();
    let config = server.url_by(&[proxy.address()]);
    (server, proxy, config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_network_that_delays_keeps_the_contract() {
    keeps_the_contract(Mode::Delay {
        least: Duration::from_millis(1),
        jitter: Duration::from_millis(2),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_network_that_trickles_keeps_the_contract() {
    keeps_the_contract(Mode::Trickle(1 << 20)).await;
}

async fn keeps_the_contract(mode: Mode) {
    let (_server, proxy, config) = behind_a_proxy().await;
    proxy.set(mode);
    let violations = suite(config, "slow").run().await;
    assert!(violations.is_empty(), "{violations:#?}");
    let faults = proxy.faults();
    assert!(faults.delayed + faults.trickled > 0, "{faults:?}");
}

/// The library does not send the change again: if it did, the second copy would be refused, and the
/// outcome would be called a conflict.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_cut_off_from_its_answer_is_unknown_and_not_sent_again() {
    let (_server, proxy, config) = behind_a_proxy().await;
    let store = open(&config).await;
    let at = key("a");
    let mut version = create(&store, &at, b"0").await;
    let mut attempts = 0;
    for (mode, happens) in [(Mode::CutAfter, true), (Mode::CutBefore, false)] {
        let mut unknown = 0;
        while unknown < 5 {
            attempts += 1_u64;
            let value = attempts.to_be_bytes().to_vec();
            proxy.once(mode);
            let update = Operation::Update(at.clone(), value.clone(), version.clone());
            let outcome = store.commit(Transaction::new([update])).await;
            let after = store.get(&at).await.unwrap().unwrap();
            let happened = after.version != version;
            match outcome {
                // A ping came first and was cut in its place.
                Ok(_) => assert!(happened),
                Err(CommitError::Unknown(_)) => {
                    assert_eq!(happened, happens, "{mode:?}");
                    unknown += 1;
                }
                other => panic!("{mode:?}: {other:?}"),
            }
            assert_eq!(after.value == value, happened);
            version = after.version;
        }
    }
    let faults = proxy.faults();
    assert!(
        faults.cut_after >= 5 && faults.cut_before >= 5,
        "{faults:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn counts_are_neither_lost_nor_doubled_while_connections_are_cut() {
    const CUTS: u64 = 40;
    let (_server, proxy, config) = behind_a_proxy().await;
    let counters = Counters::start(&config, 60).await;
    let cuts = || proxy.faults().cut_before + proxy.faults().cut_after;
    for cut in 1..=CUTS {
        let mode = [Mode::CutBefore, Mode::CutAfter][usize::from(cut % 2 == 0)];
        proxy.once(mode);
        until("a connection is cut", || async { cuts() >= cut }).await;
    }
    assert!(counters.is_busy(), "they were done too early");
    counters.settle().await;
}

/// The server forgets its watches with a connection; one that goes on as if nothing had been would
/// never tell of anything again.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_is_never_deaf_after_its_connection_was_cut() {
    let (server, proxy, config) = behind_a_proxy().await;
    let near = open(&server.url()).await;
    let far = open(&config).await;
    create(&near, &key("dir/a"), b"x").await;
    for cut in 1..=3 {
        let mut watch = far.watch(&key("dir")).await.unwrap();
        proxy.once(Mode::CutBefore);
        until("the connection is cut", || async {
            proxy.faults().cut_before >= cut
        })
        .await;
        // It is connected again, in the same session.
        far.get(&key("dir/a")).await.unwrap().unwrap();
        let told = tokio::spawn(async move {
            // A word about the past may be there still; what ends this is the break, or a word
            // for each change.
            for _ in 0..100 {
                if watch.changed().await.is_err() {
                    return;
                }
            }
        });
        for n in 0..200 {
            create(&near, &key(&format!("dir/{cut}-{n}")), b"y").await;
            if told.is_finished() {
                break;
            }
        }
        let told = tokio::time::timeout(Duration::from_secs(20), told).await;
        told.expect("the watch is deaf").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_swallows_everything_ends_every_wait() {
    let (_server, proxy, config) = behind_a_proxy().await;
    let store = open(&config).await;
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
