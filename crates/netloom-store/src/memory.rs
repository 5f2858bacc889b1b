//! The store that ends with the process.

use crate::rules::{self, Incarnation};
use crate::sighting::Sighting;
use crate::watchers::Watchers;
use async_trait::async_trait;
use netloom_core::store::{
    CommitError, Committed, Key, Operation, Store, StoreError, StoreIdentity, Transaction,
    Versioned, Watch,
};
use netloom_core::{Ids, SystemClock};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A store in memory. Clones share the content, as several hosts share one cluster's store.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    identity: StoreIdentity,
    incarnation: Incarnation,
    content: Mutex<Content>,
    watchers: Watchers,
}

#[derive(Debug, Default)]
struct Content {
    rows: BTreeMap<Key, Versioned>,
    mark: u64,
}

impl MemoryStore {
    /// An empty store with a random identity.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                identity: StoreIdentity(format!("memory-{}", SystemClock::new().operation())),
                incarnation: Incarnation::random(),
                content: Mutex::default(),
                watchers: Watchers::default(),
            }),
        }
    }

    /// Which store this is, and how many changes were ever committed to it.
    #[must_use]
    pub fn sighting(&self) -> Sighting {
        Sighting {
            identity: self.shared.identity.clone(),
            mark: self.content().mark,
        }
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        // A transaction is checked wholly before it changes anything, and no step after that can
        // panic, so the content is whole even after a panic.
        self.shared
            .content
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Content {
    fn commit(
        &mut self,
        transaction: Transaction,
        incarnation: Incarnation,
    ) -> Result<Committed, CommitError> {
        for operation in &transaction.operations {
            let key = operation.key();
            let current = self.rows.get(key).map(|row| &row.version);
            rules::check(operation, current).map_err(|conflict| CommitError::Conflict {
                key: key.clone(),
                conflict,
            })?;
        }
        if transaction.operations.iter().any(rules::changes) {
            self.mark += 1;
        }
        let version = incarnation.version(self.mark);
        let mut versions = Vec::new();
        for operation in transaction.operations {
            match operation {
                Operation::CheckAbsent(_) | Operation::CheckVersion(..) => {}
                Operation::Create(key, value) | Operation::Update(key, value, _) => {
                    versions.push((key.clone(), version.clone()));
                    let version = version.clone();
                    self.rows.insert(key, Versioned { value, version });
                }
                Operation::Delete(key, _) => {
                    self.rows.remove(&key);
                }
            }
        }
        Ok(Committed { versions })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for MemoryStore {
    async fn identity(&self) -> Result<StoreIdentity, StoreError> {
        Ok(self.shared.identity.clone())
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        Ok(self.content().rows.get(key).cloned())
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<(Key, Versioned)>, StoreError> {
        // Keys below `a` need not follow `a` at once (`a-b` stands between `a` and `a/b`), but
        // they stand together.
        Ok(self
            .content()
            .rows
            .range((Bound::Excluded(prefix), Bound::Unbounded))
            .skip_while(|(key, _)| {
                !key.is_below(prefix) && key.as_str().starts_with(prefix.as_str())
            })
            .take_while(|(key, _)| key.is_below(prefix))
            .map(|(key, row)| (key.clone(), row.clone()))
            .collect())
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        transaction.validate()?;
        let changed: Vec<Key> = transaction
            .operations
            .iter()
            .filter(|operation| rules::changes(operation))
            .map(|operation| operation.key().clone())
            .collect();
        let committed = self
            .content()
            .commit(transaction, self.shared.incarnation)?;
        self.shared.watchers.notify(&changed);
        Ok(committed)
    }

    async fn watch(&self, prefix: &Key) -> Result<Box<dyn Watch>, StoreError> {
        Ok(self.shared.watchers.open(prefix))
    }
}
