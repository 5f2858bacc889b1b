//! The public suite of the contract, unchanged, on real servers.
#![allow(clippy::unwrap_used, reason = "a test may stop at any error")]

mod common;

use common::counters::{WRITERS, Workload};
use common::etcd::{Etcd, single, three_calm};
use common::{keeps_the_contract, key, open};
use netloom_core::Login;
use netloom_core::store::{Store, StoreError};
use netloom_etcd::EtcdStore;
use netloom_lab::proxy::Mode;
use netloom_lab::servers::EtcdVersion;
use std::sync::Arc;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_single_server_keeps_the_contract() {
    let etcd = Etcd::start(&single());
    keeps_the_contract(open(&etcd.config()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_of_the_3_5_line_keeps_the_contract() {
    let etcd = Etcd::start(&single().etcd(EtcdVersion::Sid35));
    let store = open(&etcd.config()).await;
    let version = store.server_version().await.unwrap();
    assert!(version.starts_with("3.5."), "{version}");
    keeps_the_contract(store).await;
}

/// The leader dies while hosts write; nothing is lost or doubled, the rest go on, and the cluster
/// without it keeps the whole contract.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_servers_keep_the_contract_when_the_leader_is_killed() {
    let mut etcd = Etcd::start(&three_calm());
    let mut stores: Vec<Arc<dyn Store>> = Vec::new();
    for _ in 0..WRITERS {
        stores.push(open(&etcd.config()).await);
    }
    let work = Workload::begin(&stores, key("counter")).await;
    work.goes_on_for(100).await;
    let leader = etcd.leader();
    etcd.kill(leader);
    work.goes_on_for(200).await;
    work.none_was_lost_or_doubled(stores[0].as_ref()).await;
    keeps_the_contract(stores[0].clone()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tls_with_a_client_certificate_and_a_login_keeps_the_contract() {
    let etcd = Etcd::start(&single().tls().login());
    let good = etcd.config();
    keeps_the_contract(open(&good).await).await;
    let mut nobody = good.clone();
    nobody.login = Login::Nobody;
    let refused = EtcdStore::open(&nobody).await;
    assert!(matches!(refused, Err(StoreError::Denied(_))), "{refused:?}");
    let Login::Password { user, .. } = &good.login else {
        panic!("the lab has a user for etcd");
    };
    let other = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(other.path(), "not the password").unwrap();
    let mut wrong = good.clone();
    wrong.login = Login::Password {
        user: user.clone(),
        password_file: other.path().to_owned(),
    };
    let refused = EtcdStore::open(&wrong).await;
    assert!(matches!(refused, Err(StoreError::Denied(_))), "{refused:?}");
    let mut bare = good.clone();
    bare.tls.identity = None;
    let refused = EtcdStore::open(&bare).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn slow_networks_keep_the_contract() {
    let etcd = Etcd::start(&single());
    let (proxy, config) = etcd.proxy().await;
    let store = open(&config).await;
    proxy.set(Mode::Delay {
        least: Duration::from_micros(100),
        jitter: Duration::from_millis(1),
    });
    keeps_the_contract(store.clone()).await;
    proxy.set(Mode::Trickle(500_000));
    keeps_the_contract(store).await;
}
