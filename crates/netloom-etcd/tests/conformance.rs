//! The public suite of the contract, unchanged, on real servers.
#![allow(clippy::unwrap_used, reason = "a test may stop at any error")]

mod common;

use common::counters::{WRITERS, Workload};
use common::etcd::{self, Etcd, Setup};
use common::proxy::{Mode, Proxy};
use common::{keeps_the_contract, key, open};
use netloom_core::Login;
use netloom_core::store::Store;
use std::sync::Arc;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_single_server_keeps_the_contract() {
    let etcd = Etcd::start(Setup::members(1)).await;
    keeps_the_contract(open(&etcd.config()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_of_the_3_5_line_keeps_the_contract() {
    let Some(binary) = etcd::newer_binary() else {
        eprintln!("SKIPPED: there is no etcd of the 3.5 line; name one in NETLOOM_ETCD_3_5");
        return;
    };
    let mut setup = Setup::members(1);
    setup.binary = binary;
    let etcd = Etcd::start(setup).await;
    let store = open(&etcd.config()).await;
    let version = store.server_version().await.unwrap();
    assert!(version.starts_with("3.5."), "{version}");
    keeps_the_contract(store).await;
}

/// The leader dies while hosts write; nothing is lost or doubled, the rest go on, and the cluster
/// without it keeps the whole contract.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_servers_keep_the_contract_when_the_leader_is_killed() {
    let mut etcd = Etcd::start(Setup::members(3)).await;
    let mut stores: Vec<Arc<dyn Store>> = Vec::new();
    for _ in 0..WRITERS {
        stores.push(open(&etcd.config()).await);
    }
    let work = Workload::begin(&stores, key("counter")).await;
    work.goes_on_for(100).await;
    let leader = etcd.leader().await;
    etcd.kill(leader);
    work.goes_on_for(200).await;
    work.none_was_lost_or_doubled(stores[0].as_ref()).await;
    keeps_the_contract(stores[0].clone()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tls_with_a_client_certificate_and_a_login_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = Setup::members(1);
    setup.tls = Some(common::certs::all(dir.path()));
    let etcd = Etcd::start(setup).await;
    etcd.require_login("root", "secret of root").await;
    let password_file = dir.path().join("password");
    std::fs::write(&password_file, "secret of root\n").unwrap();
    let mut config = etcd.config();
    let without = netloom_etcd::EtcdStore::open(&config).await;
    assert!(without.is_err(), "it opened without a login");
    config.login = Login::Password {
        user: "root".into(),
        password_file: password_file.clone(),
    };
    keeps_the_contract(open(&config).await).await;
    std::fs::write(&password_file, "another").unwrap();
    let wrong = netloom_etcd::EtcdStore::open(&config).await;
    assert!(
        matches!(wrong, Err(netloom_core::store::StoreError::Denied(_))),
        "{wrong:?}"
    );
    config.tls.identity = None;
    let bare = netloom_etcd::EtcdStore::open(&config).await;
    assert!(bare.is_err(), "it opened without a certificate");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn slow_networks_keep_the_contract() {
    let etcd = Etcd::start(Setup::members(1)).await;
    let proxy = Proxy::before(etcd.port(0)).await;
    let store = open(&etcd::config(&[proxy.port])).await;
    proxy.set(Mode::Delay(Duration::from_millis(1)));
    keeps_the_contract(store.clone()).await;
    proxy.set(Mode::Trickle(4096));
    keeps_the_contract(store).await;
}
