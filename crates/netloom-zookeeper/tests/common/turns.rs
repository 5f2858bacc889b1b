//! One store, seen through several of its servers in turn.

use async_trait::async_trait;
use netloom_core::store::{
    CommitError, Committed, Key, Store, StoreError, StoreIdentity, Transaction, Versioned, Watch,
};
use netloom_zookeeper::ZooKeeperStore;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Every operation goes to another client than the one before: what one server acknowledged, the
/// next one must know.
#[derive(Debug)]
pub(crate) struct Turns {
    stores: Vec<ZooKeeperStore>,
    next: AtomicUsize,
}

impl Turns {
    pub(crate) fn new(stores: Vec<ZooKeeperStore>) -> Self {
        let next = AtomicUsize::new(0);
        Self { stores, next }
    }

    fn next(&self) -> &ZooKeeperStore {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        &self.stores[turn % self.stores.len()]
    }
}

#[async_trait]
impl Store for Turns {
    async fn identity(&self) -> Result<StoreIdentity, StoreError> {
        self.next().identity().await
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        self.next().get(key).await
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<(Key, Versioned)>, StoreError> {
        self.next().list(prefix).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        self.next().commit(transaction).await
    }

    async fn watch(&self, prefix: &Key) -> Result<Box<dyn Watch>, StoreError> {
        self.next().watch(prefix).await
    }
}
