//! What the tests of this crate share.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests start servers, wait by the wall clock, and stop at any error; each uses a part"
)]

pub mod counters;
pub mod etcd;

use netloom_core::store::{KEY_BYTES_MAX, Key, Operation, Store, TRANSACTION_OPS_MAX, Transaction};
use netloom_core::{Ids, RemoteStoreConfig, SystemClock};
use netloom_etcd::EtcdStore;
use netloom_store::PrefixStore;
use netloom_store::conformance::{Limits, Suite};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Longer than anything takes on a busy machine: a hang made visible.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(20);

pub fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

pub fn create(at: &Key) -> Transaction {
    Transaction::new([Operation::Create(at.clone(), b"value".to_vec())])
}

pub async fn open(config: &RemoteStoreConfig) -> Arc<EtcdStore> {
    Arc::new(EtcdStore::open(config).await.unwrap())
}

/// The same with the patience of a test for what must succeed.
pub fn patient(config: RemoteStoreConfig) -> RemoteStoreConfig {
    RemoteStoreConfig {
        timeout: PATIENCE,
        ..config
    }
}

/// A store that gives up soon, since hangs need not be long; its opening may take its time.
pub async fn open_impatient(config: &RemoteStoreConfig) -> Arc<EtcdStore> {
    let config = RemoteStoreConfig {
        timeout: Duration::from_secs(1),
        ..config.clone()
    };
    Arc::new(answered("the store opens", || EtcdStore::open(&config)).await)
}

/// The suite, each case in an unused directory.
pub async fn keeps_the_contract(store: Arc<dyn Store>) {
    let run = SystemClock::new().operation();
    let run = run.short(8).to_owned();
    let count = AtomicU32::new(0);
    let limits = Limits {
        key_bytes: KEY_BYTES_MAX - "12345678-00/".len(),
        operations: TRANSACTION_OPS_MAX,
    };
    let suite = Suite::new(move || {
        let directory = key(&format!(
            "{run}-{:02}",
            count.fetch_add(1, Ordering::Relaxed)
        ));
        std::future::ready(Arc::new(PrefixStore::new(store.clone(), directory)) as _)
    });
    let violations = suite.with_limits(limits).run().await;
    assert!(violations.is_empty(), "{violations:#?}");
}

/// What a store that gives up soon says at last: a busy machine may cost it several tries.
pub async fn answered<T, E, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, E>>,
{
    let asking = async {
        loop {
            if let Ok(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    let answer = tokio::time::timeout(PATIENCE, asking).await;
    answer.unwrap_or_else(|_| panic!("never: {what}"))
}

/// Asks again and again until it is so. The time is only there to end a hang.
pub async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let asking = async {
        while !is_so().await {
            tokio::time::sleep(PAUSE).await;
        }
    };
    let asked = tokio::time::timeout(PATIENCE, asking).await;
    assert!(asked.is_ok(), "never: {what}");
}
