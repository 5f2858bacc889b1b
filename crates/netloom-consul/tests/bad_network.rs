//! The contract over a network that is slow, and the outcomes over one that is cut.

mod support;

use netloom_core::store::{CommitError, Store, StoreError};
use netloom_lab::proxy::Mode;
use netloom_lab::servers::Shape;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::counters::{Met, count};
use support::servers::{consul, keeps_the_contract, proxied, shared, start, store};
use support::{create, key, until};

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept_over_a_network_that_delays() {
    contract_over(Mode::Delay {
        least: Duration::from_millis(1),
        jitter: Duration::from_millis(2),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept_over_a_network_that_trickles() {
    contract_over(Mode::Trickle(2 << 20)).await;
}

async fn contract_over(mode: Mode) {
    let servers = start(&consul(Shape::Single));
    let proxy = proxied(&servers).await;
    let mut config = servers.url_by(&[proxy.address()]);
    // The suite takes no "unavailable" for an answer.
    config.timeout = Duration::from_secs(60);
    let store = shared(&config).await;
    proxy.set(mode);
    keeps_the_contract(store).await;
    let faults = proxy.faults();
    assert!(faults.delayed + faults.trickled > 0, "{faults:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_connections_lose_and_double_no_increment() {
    let servers = start(&consul(Shape::Single));
    let proxy = proxied(&servers).await;
    let store = shared(&servers.url_by(&[proxy.address()])).await;
    let met = Arc::new(Met::default());
    let writers = count(store, key("counter"), 50, Arc::clone(&met));
    let cutting = async {
        let mut modes = [Mode::CutAfter, Mode::CutBefore].into_iter().cycle();
        loop {
            // As many cuts as the writers can get ahead of.
            let far = met.happened.load(Ordering::Relaxed) + 5;
            while proxy.mode() != Mode::Pass || met.happened.load(Ordering::Relaxed) < far {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            proxy.once(modes.next().unwrap());
        }
    };
    tokio::select! {
        () = writers => {}
        () = cutting => {}
    }
    let faults = proxy.faults();
    assert!(
        faults.cut_before > 10 && faults.cut_after > 10,
        "{faults:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outcome_after_a_cut_connection_is_unknown() {
    let servers = start(&consul(Shape::Single));
    let proxy = proxied(&servers).await;
    let mut config = servers.url_by(&[proxy.address()]);
    // What is swallowed must time out.
    config.timeout = Duration::from_secs(1);
    let (store, direct) = (shared(&config).await, store(&servers).await);
    let warm = key("warm");
    for (mode, name, happened) in [
        (Mode::CutAfter, "after", true),
        (Mode::CutBefore, "before", false),
        (Mode::HalfOpen, "half-open", true),
        (Mode::BlackHole, "black-hole", false),
    ] {
        proxy.set(Mode::Pass);
        until("the connection is warm", async || {
            store.get(&warm).await.is_ok()
        })
        .await;
        proxy.set(mode);
        let outcome = store.commit(create(name)).await;
        assert!(
            matches!(outcome, Err(CommitError::Unknown(_))),
            "{name}: {outcome:?}"
        );
        let is_there = async || direct.get(&key(name)).await.unwrap().is_some();
        if happened {
            // A busy server may be at it still when the caller has given up.
            until(name, is_there).await;
        } else {
            assert!(!is_there().await, "{name}");
        }
    }
    proxy.set(Mode::Refuse);
    let read = store.get(&warm).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
}
