//! A host that leaves its own store for a shared one, and is cut off on the way.
#![allow(
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking"
)]

mod common;

use common::TestStore;
use common::machine::{Machine, Process, initialised, loner, network, pass, take};
use common::store::Fault;
use netloom_core::{ClusterAdmin, Ipam, Standing};
use netloom_types::PoolId;

/// What stands in the shared store of the host's own one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Brought {
    Nothing,
    Copy,
}

/// What becomes of the process that was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    GoesOn,
    Dies,
}

/// The network is removed after the move broke off, wherever that was: its subnet is free, and its host
/// goes on.
#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_a_network_that_is_removed_after_a_move_broke_off() {
    for brought in [Brought::Nothing, Brought::Copy] {
        for then in [Then::GoesOn, Then::Dies] {
            for fault in [Fault::DoneAndAway, Fault::LostAndAway] {
                for commits in 0..10 {
                    println!("{brought:?} {then:?} {fault:?} after {commits} commits");
                    breaks_off(brought, then, fault, commits).await;
                }
            }
        }
    }
}

async fn breaks_off(brought: Brought, then: Then, fault: Fault, commits: u64) {
    let store = initialised().await;
    let (mut machine, pool, given) = loner("h1", "10.9.0.0/24", 1).await;
    if brought == Brought::Copy {
        copy(&machine.mirror, &store);
    }
    machine.host.store = store.clone();
    store.fail_after(commits, [fault]);
    let mut host = machine.start().await;
    store.come_back();
    store.clear_faults();
    if then == Then::Dies {
        drop(host);
        host = machine.start().await;
    }
    for ip in given {
        host.release_address(&pool, ip).await.unwrap();
    }
    remove(&host, &pool).await;
    pass(300).await;
    assert_eq!(host.cluster().await.standing, Standing::Joined);
    let other = Machine::new("h2", &store).start().await;
    let wide = network(&other, "10.9.0.0/16").await.id;
    take(&other, &wide, 1).await.unwrap();
    pass(300).await;
    drop(host);
    let host = machine.start().await;
    pass(300).await;
    assert_eq!(host.cluster().await.standing, Standing::Joined);
    assert_eq!(netloom_ipam::store_check(&store).await.unwrap(), []);
}

/// As Docker does: again, until it is done.
async fn remove(host: &Process, pool: &PoolId) {
    for _ in 0..20 {
        match host.release_pool(pool).await {
            Ok(()) => return,
            Err(error) => println!("{error}"),
        }
        pass(5).await;
    }
    panic!("the network cannot be removed");
}

fn copy(from: &TestStore, to: &TestStore) {
    for (key, value) in from.values() {
        let is_of_pools = ["pools/", "references/", "chunks/"];
        if is_of_pools.iter().any(|of| key.starts_with(of)) {
            to.put(&key, value);
        }
    }
}
