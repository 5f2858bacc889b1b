//! Counts the transactions that a store took.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use netloom_core::store::{
    CommitError, Committed, Key, Store, StoreError, StoreIdentity, Transaction, Versioned, Watch,
};

/// A store, and how many of its transactions were answered with success, and how many not.
#[derive(Debug)]
pub(super) struct Counted {
    inner: Arc<dyn Store>,
    taken: AtomicU64,
    lost: AtomicU64,
}

impl Counted {
    pub(super) fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            taken: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    /// Transactions that were taken, and those that met a conflict or had no answer.
    pub(super) fn counts(&self) -> (u64, u64) {
        // They order nothing.
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.taken), read(&self.lost))
    }
}

#[async_trait]
impl Store for Counted {
    async fn identity(&self) -> Result<StoreIdentity, StoreError> {
        self.inner.identity().await
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        self.inner.get(key).await
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<(Key, Versioned)>, StoreError> {
        self.inner.list(prefix).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        let done = self.inner.commit(transaction).await;
        let count = if done.is_ok() {
            &self.taken
        } else {
            &self.lost
        };
        count.fetch_add(1, Ordering::Relaxed);
        done
    }

    async fn watch(&self, prefix: &Key) -> Result<Box<dyn Watch>, StoreError> {
        self.inner.watch(prefix).await
    }
}
