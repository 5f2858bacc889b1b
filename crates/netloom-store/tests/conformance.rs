//! Every store of this crate keeps the contract, alone and wrapped.
#![allow(clippy::unwrap_used, reason = "a test may stop at any error")]

use netloom_core::store::{KEY_BYTES_MAX, Key, Store, TRANSACTION_OPS_MAX};
use netloom_store::conformance::{Limits, Suite};
use netloom_store::{
    CountingStore, EmbeddedStore, FaultRates, FaultStore, FencedStore, MemoryStore, PrefixStore,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Fresh embedded stores in a directory that lives as long as the factory.
fn embedded() -> impl Fn() -> Arc<dyn Store> {
    let dir = tempfile::tempdir().unwrap();
    let count = AtomicU32::new(0);
    move || {
        let name = format!("{}.redb", count.fetch_add(1, Ordering::Relaxed));
        Arc::new(EmbeddedStore::open(dir.path().join(name)).unwrap())
    }
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

async fn keeps_the_contract(suite: Suite) {
    let violations = suite.run().await;
    assert!(violations.is_empty(), "{violations:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_memory_store_keeps_the_contract() {
    let fresh = || async { Arc::new(MemoryStore::new()) as _ };
    keeps_the_contract(Suite::new(fresh)).await;
    keeps_the_contract(Suite::new(fresh).with_seed(4711)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_embedded_store_keeps_the_contract() {
    let fresh = embedded();
    keeps_the_contract(Suite::new(move || std::future::ready(fresh()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_prefix_keeps_the_contract_beside_others() {
    // One store below all directories: a leak from one into another would show.
    let shared = Arc::new(MemoryStore::new());
    let count = Arc::new(AtomicU32::new(0));
    let limits = Limits {
        key_bytes: KEY_BYTES_MAX - "cluster/00/".len(),
        operations: TRANSACTION_OPS_MAX,
    };
    let suite = Suite::new(move || {
        let n = count.fetch_add(1, Ordering::Relaxed);
        let directory = key(&format!("cluster/{n:02}"));
        std::future::ready(Arc::new(PrefixStore::new(shared.clone(), directory)) as _)
    });
    keeps_the_contract(suite.with_limits(limits)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fenced_store_keeps_the_contract() {
    let fresh = embedded();
    let suite = Suite::new(move || {
        let inner = fresh();
        async move {
            let epoch = key("netloom-epoch");
            FencedStore::initialise(inner.as_ref(), &epoch)
                .await
                .unwrap();
            Arc::new(FencedStore::join(inner, epoch).await.unwrap()) as _
        }
    });
    let limits = Limits {
        key_bytes: KEY_BYTES_MAX,
        operations: TRANSACTION_OPS_MAX - 1,
    };
    keeps_the_contract(suite.with_limits(limits)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_wrappers_together_keep_the_contract_when_no_fault_is_due() {
    let suite = Suite::new(|| async {
        let memory = Arc::new(MemoryStore::new());
        let faulty = Arc::new(FaultStore::new(memory, FaultRates::default(), 1));
        let counting = Arc::new(CountingStore::new(faulty));
        let prefixed = Arc::new(PrefixStore::new(counting, key("c")));
        let epoch = key("epoch");
        FencedStore::initialise(prefixed.as_ref(), &epoch)
            .await
            .unwrap();
        Arc::new(FencedStore::join(prefixed, epoch).await.unwrap()) as _
    });
    let limits = Limits {
        key_bytes: KEY_BYTES_MAX - "c/".len(),
        operations: TRANSACTION_OPS_MAX - 1,
    };
    keeps_the_contract(suite.with_limits(limits)).await;
}
