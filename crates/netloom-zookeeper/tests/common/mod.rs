//! Real servers, and the few words that the tests say often.
#![allow(dead_code, unused_imports, reason = "each test uses a part")]
#![allow(clippy::indexing_slicing, reason = "a test may stop at any error")]
#![allow(clippy::unwrap_used, reason = "a test may stop at any error")]

mod counting;
mod turns;

pub(crate) use counting::Counters;

use netloom_core::store::{Committed, Key, Operation, Store, Transaction, Version};
use netloom_core::store::{KEY_BYTES_MAX, TRANSACTION_OPS_MAX};
use netloom_core::{RemoteStoreConfig, StoreKind, StoreTransport};
use netloom_lab::servers::{Shape, StoreServer};
use netloom_store::PrefixStore;
use netloom_store::conformance::{Limits, Suite};
use netloom_zookeeper::ZooKeeperStore;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use zookeeper_client::Client;

/// One server.
pub(crate) fn single() -> StoreServer {
    StoreServer::start(StoreKind::ZooKeeper, Shape::Single).unwrap()
}

/// Three servers that are one store.
pub(crate) fn three() -> StoreServer {
    StoreServer::start(StoreKind::ZooKeeper, Shape::Three).unwrap()
}

pub(crate) fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

pub(crate) async fn open(config: &RemoteStoreConfig) -> ZooKeeperStore {
    ZooKeeperStore::open(config).await.unwrap()
}

/// The same with the patience of a test for what must succeed.
pub(crate) fn patient(config: RemoteStoreConfig) -> RemoteStoreConfig {
    RemoteStoreConfig {
        timeout: Duration::from_secs(60),
        ..config
    }
}

/// A client that knows nothing of the contract.
pub(crate) async fn raw(config: &RemoteStoreConfig) -> Client {
    assert_eq!(config.url.transport, StoreTransport::Plain);
    let servers: Vec<_> = config
        .url
        .endpoints
        .iter()
        .map(ToString::to_string)
        .collect();
    Client::connect(&servers.join(",")).await.unwrap()
}

pub(crate) async fn committed(
    store: &dyn Store,
    operations: impl IntoIterator<Item = Operation>,
) -> Committed {
    store.commit(Transaction::new(operations)).await.unwrap()
}

async fn written(store: &dyn Store, operation: Operation) -> Version {
    let mut versions = committed(store, [operation]).await.versions;
    versions.pop().unwrap().1
}

pub(crate) async fn create(store: &dyn Store, key: &Key, value: &[u8]) -> Version {
    written(store, Operation::Create(key.clone(), value.to_vec())).await
}

pub(crate) async fn update(
    store: &dyn Store,
    key: &Key,
    value: &[u8],
    version: &Version,
) -> Version {
    let update = Operation::Update(key.clone(), value.to_vec(), version.clone());
    written(store, update).await
}

pub(crate) async fn delete(store: &dyn Store, key: &Key, version: &Version) {
    committed(store, [Operation::Delete(key.clone(), version.clone())]).await;
}

/// Asks again and again until it is so, for a minute at most: a hang made visible.
pub(crate) async fn until<F, Fut>(what: &str, mut holds: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let asking = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(60), asking).await;
    assert!(outcome.is_ok(), "a minute went by, and still not: {what}");
}

/// A configuration that names only one of the servers.
pub(crate) fn only(config: &RemoteStoreConfig, member: usize) -> RemoteStoreConfig {
    let mut config = config.clone();
    config.url.endpoints = vec![config.url.endpoints[member].clone()];
    config
}

/// The suite on fresh directories of this store, each with a session of its own, or, with several
/// servers, with one on each of them, which take turns.
pub(crate) fn suite(config: RemoteStoreConfig, directory: &'static str) -> Suite {
    // The suite takes no "unknown" for an answer.
    let config = patient(config);
    let count = AtomicU32::new(0);
    let longest = format!("{directory}/00/").len();
    let limits = Limits {
        key_bytes: KEY_BYTES_MAX - longest,
        operations: TRANSACTION_OPS_MAX,
    };
    let suite = Suite::new(move || {
        let at = key(&format!(
            "{directory}/{:02}",
            count.fetch_add(1, Ordering::Relaxed)
        ));
        let config = config.clone();
        async move {
            let mut stores = Vec::new();
            for member in 0..config.url.endpoints.len() {
                stores.push(open(&only(&config, member)).await);
            }
            Arc::new(PrefixStore::new(Arc::new(turns::Turns::new(stores)), at)) as _
        }
    });
    suite.with_limits(limits)
}
