//! Counters that hosts raise while connections break and servers die: none is lost or doubled.

mod common;

use common::counters::{WRITERS, Workload};
use common::etcd::{Etcd, single, three};
use common::{key, open, open_impatient};
use netloom_core::RemoteStoreConfig;
use netloom_core::store::Store;
use netloom_lab::proxy::Mode;
use std::sync::Arc;
use std::time::Duration;

async fn hosts(config: &RemoteStoreConfig) -> Vec<Arc<dyn Store>> {
    let mut stores: Vec<Arc<dyn Store>> = Vec::new();
    for _ in 0..WRITERS {
        // A shorter time than a plugin call has, so that hangs do not make the test long.
        stores.push(open_impatient(config).await);
    }
    stores
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn counters_survive_connections_that_break_in_every_way() {
    let etcd = Etcd::start(&single());
    let (proxy, config) = etcd.proxy().await;
    let stores = hosts(&config).await;
    let work = Workload::begin(&stores, key("counter")).await;
    let ways = [
        Mode::CutBefore,
        Mode::HalfOpen,
        Mode::Refuse,
        Mode::BlackHole,
        Mode::Stall,
        Mode::CutAfter,
        Mode::Delay {
            least: Duration::from_millis(5),
            jitter: Duration::from_millis(20),
        },
        Mode::Trickle(10_000),
    ];
    for (round, mode) in ways.into_iter().cycle().take(6 * ways.len()).enumerate() {
        work.goes_on_for(20).await;
        proxy.set(mode);
        if round % 2 == 0 {
            proxy.cut();
        }
        // How long the trouble lasts: by turns less and more than an operation's time.
        let lasts = if round % 3 == 0 { 1500 } else { 60 };
        tokio::time::sleep(Duration::from_millis(lasts)).await;
        proxy.set(Mode::Pass);
    }
    work.goes_on_for(20).await;
    let direct = open(&etcd.config()).await;
    work.none_was_lost_or_doubled(direct.as_ref()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn counters_survive_the_death_of_the_only_server() {
    let mut etcd = Etcd::start(&single());
    let stores = hosts(&etcd.config()).await;
    let work = Workload::begin(&stores, key("counter")).await;
    for _ in 0..5 {
        work.goes_on_for(50).await;
        etcd.kill(0);
        etcd.restart(0);
    }
    work.goes_on_for(50).await;
    work.none_was_lost_or_doubled(stores[0].as_ref()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn counters_survive_frozen_and_dying_members() {
    let mut etcd = Etcd::start(&three());
    let stores = hosts(&etcd.config()).await;
    let work = Workload::begin(&stores, key("counter")).await;
    for _ in 0..2 {
        let leader = etcd.leader();
        etcd.pause(leader);
        work.goes_on_for(50).await;
        etcd.resume(leader);
        work.goes_on_for(50).await;
        let leader = etcd.leader();
        etcd.kill(leader);
        work.goes_on_for(50).await;
        etcd.restart(leader);
        work.goes_on_for(50).await;
    }
    work.none_was_lost_or_doubled(stores[0].as_ref()).await;
}
