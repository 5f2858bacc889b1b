//! A host that uses up its claims at once claims ahead, so that nobody waits for the store; one that
//! does not leaves the addresses to others.
#![allow(
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking"
)]

mod common;

use common::exact;
use common::machine::{Machine, initialised, pass, take};
use netloom_core::Ipam;
use std::time::Duration;

/// The most that one claim brings.
const CLAIM: u32 = 1024;

/// How many addresses a host has left without its store after it handed out a few more than one claim
/// of them, with so much time between two.
async fn left(between: Duration) -> u32 {
    let store = initialised().await;
    let (one, two) = (Machine::new("h1", &store), Machine::new("h2", &store));
    let (first, _second) = (one.start().await, two.start().await);
    pass(60).await;
    let pool = first.request_pool(exact("10.9.0.0/16")).await.unwrap().id;
    let mut taken = 0;
    while taken < CLAIM + 10 {
        taken += 1;
        take(&first, &pool, taken).await.unwrap();
        one.host.clock.advance(between);
    }
    // The background has its turn.
    tokio::time::sleep(Duration::from_millis(10)).await;
    store.go_away();
    let before = taken;
    while take(&first, &pool, taken).await.is_ok() {
        taken += 1;
    }
    taken - before
}

#[tokio::test(start_paused = true)]
async fn who_is_in_haste_claims_before_it_needs() {
    let left = left(Duration::ZERO).await;
    assert!(left > CLAIM, "{left}");
}

#[tokio::test(start_paused = true)]
async fn who_is_not_leaves_it_to_others() {
    let left = left(Duration::from_secs(2)).await;
    assert!(left < CLAIM, "{left}");
}
