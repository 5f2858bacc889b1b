//! The public suite, unchanged, against real servers.
#![allow(clippy::unwrap_used, reason = "a test may stop at any error")]

mod common;

use common::{Counters, single, suite, three};
use netloom_store::conformance::Suite;

async fn keeps_the_contract(suite: Suite) {
    let violations = suite.run().await;
    assert!(violations.is_empty(), "{violations:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_server_keeps_the_contract() {
    let server = single();
    keeps_the_contract(suite(server.url(), "a")).await;
    keeps_the_contract(suite(server.url(), "b").with_seed(4711)).await;
}

/// Every operation of a case goes to another server than the one before.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_servers_keep_the_contract_and_lose_no_count_when_the_leader_dies() {
    let mut servers = three();
    let config = servers.url();
    keeps_the_contract(suite(config.clone(), "before")).await;

    let counters = Counters::start(&config, 100).await;
    let leader = servers.leader().unwrap();
    counters.progress(20).await;
    servers.kill(leader).unwrap();
    counters.progress(20).await;
    assert!(
        counters.is_busy(),
        "they were done before they could notice"
    );
    counters.settle().await;

    servers.restart(leader).unwrap();
    keeps_the_contract(suite(config, "after")).await;
}
