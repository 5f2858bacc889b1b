//! How often a store is asked.

use async_trait::async_trait;
use netloom_core::store::{
    CommitError, Committed, Key, Store, StoreError, StoreIdentity, Transaction, Versioned, Watch,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts what goes to another store: for metrics, and for tests that something costs no store
/// traffic.
#[derive(Debug)]
pub struct CountingStore {
    inner: Arc<dyn Store>,
    identities: AtomicU64,
    gets: AtomicU64,
    lists: AtomicU64,
    commits: AtomicU64,
    conflicts: AtomicU64,
    failures: AtomicU64,
    watches: AtomicU64,
}

/// What was counted since the store was wrapped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Questions for the identity.
    pub identities: u64,
    /// Reads of one key.
    pub gets: u64,
    /// Reads of a directory.
    pub lists: u64,
    /// Transactions, whatever became of them.
    pub commits: u64,
    /// Transactions that ended in a conflict.
    pub conflicts: u64,
    /// Transactions, reads and watches that failed otherwise.
    pub failures: u64,
    /// Watches opened.
    pub watches: u64,
}

impl CountingStore {
    /// Counts what goes to `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            inner,
            identities: zero(),
            gets: zero(),
            lists: zero(),
            commits: zero(),
            conflicts: zero(),
            failures: zero(),
            watches: zero(),
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        // The counts are independent of each other, and order nothing.
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            identities: read(&self.identities),
            gets: read(&self.gets),
            lists: read(&self.lists),
            commits: read(&self.commits),
            conflicts: read(&self.conflicts),
            failures: read(&self.failures),
            watches: read(&self.watches),
        }
    }

    fn one<T>(&self, what: &AtomicU64, result: Result<T, StoreError>) -> Result<T, StoreError> {
        what.fetch_add(1, Ordering::Relaxed);
        if result.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        result
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for CountingStore {
    async fn identity(&self) -> Result<StoreIdentity, StoreError> {
        self.one(&self.identities, self.inner.identity().await)
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        self.one(&self.gets, self.inner.get(key).await)
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<(Key, Versioned)>, StoreError> {
        self.one(&self.lists, self.inner.list(prefix).await)
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        let outcome = self.inner.commit(transaction).await;
        match &outcome {
            Ok(_) => {}
            Err(CommitError::Conflict { .. }) => {
                self.conflicts.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
            }
        }
        outcome
    }

    async fn watch(&self, prefix: &Key) -> Result<Box<dyn Watch>, StoreError> {
        self.one(&self.watches, self.inner.watch(prefix).await)
    }
}
