//! The public suite, unchanged, against real servers.
#![allow(clippy::unwrap_used, reason = "a test may stop at any error")]

mod common;

use common::{Counters, Ensemble, Single, suite};
use netloom_store::conformance::Suite;

async fn keeps_the_contract(suite: Suite) {
    let violations = suite.run().await;
    assert!(violations.is_empty(), "{violations:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_server_keeps_the_contract() {
    let server = Single::start().await;
    keeps_the_contract(suite(server.config(), "a")).await;
    keeps_the_contract(suite(server.config(), "b").with_seed(4711)).await;
}

/// Every operation of a case goes to another server than the one before.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_servers_keep_the_contract_and_lose_no_count_when_the_leader_dies() {
    let mut servers = Ensemble::three().await;
    let config = servers.config();
    keeps_the_contract(suite(config.clone(), "before")).await;

    let counters = Counters::start(&config, 100).await;
    let leader = servers.leader().await;
    counters.progress(20).await;
    servers.kill(leader);
    counters.progress(20).await;
    assert!(
        counters.is_busy(),
        "they were done before they could notice"
    );
    counters.settle().await;

    servers.restart(leader);
    servers.until_answering(leader).await;
    keeps_the_contract(suite(config, "after")).await;
}
