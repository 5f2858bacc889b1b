//! A directory of another store, as a store.

use async_trait::async_trait;
use netloom_core::store::{
    CommitError, Committed, Key, Operation, Store, StoreError, StoreIdentity, Transaction,
    Versioned, Watch,
};
use std::sync::Arc;

/// Everything below one directory of another store: several users share a store and never meet.
///
/// The directory takes its share of the contract's limits: keys may be that much shorter than
/// [`KEY_BYTES_MAX`](netloom_core::store::KEY_BYTES_MAX), and it counts among a transaction's bytes.
#[derive(Debug, Clone)]
pub struct PrefixStore {
    inner: Arc<dyn Store>,
    directory: Key,
}

impl PrefixStore {
    /// The directory `directory` of `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, directory: Key) -> Self {
        Self { inner, directory }
    }

    /// The key in the inner store; `None` when it is too long to exist there.
    fn outer_to_inner(&self, key: &Key) -> Option<Key> {
        Key::new(format!("{}/{key}", self.directory)).ok()
    }

    fn inner_to_outer(&self, key: &Key) -> Option<Key> {
        let rest = key.as_str().strip_prefix(self.directory.as_str())?;
        Key::new(rest.strip_prefix('/')?).ok()
    }

    fn operation(&self, operation: Operation) -> Option<Operation> {
        let key = self.outer_to_inner(operation.key())?;
        Some(match operation {
            Operation::CheckAbsent(_) => Operation::CheckAbsent(key),
            Operation::CheckVersion(_, version) => Operation::CheckVersion(key, version),
            Operation::Create(_, value) => Operation::Create(key, value),
            Operation::Update(_, value, version) => Operation::Update(key, value, version),
            Operation::Delete(_, version) => Operation::Delete(key, version),
        })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for PrefixStore {
    async fn identity(&self) -> Result<StoreIdentity, StoreError> {
        let StoreIdentity(inner) = self.inner.identity().await?;
        Ok(StoreIdentity(format!("{inner}/{}", self.directory)))
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        match self.outer_to_inner(key) {
            Some(key) => self.inner.get(&key).await,
            None => Ok(None),
        }
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<(Key, Versioned)>, StoreError> {
        let Some(prefix) = self.outer_to_inner(prefix) else {
            return Ok(Vec::new());
        };
        let rows = self.inner.list(&prefix).await?;
        rows.into_iter()
            .map(|(key, row)| match self.inner_to_outer(&key) {
                Some(key) => Ok((key, row)),
                None => Err(StoreError::Corrupt(format!(
                    "it listed {key}, which is not below {prefix}"
                ))),
            })
            .collect()
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        transaction.validate()?;
        let operations = transaction.operations.into_iter();
        let operations: Option<Vec<_>> = operations.map(|op| self.operation(op)).collect();
        let inner = Transaction::new(operations.ok_or(CommitError::TooLarge)?);
        match self.inner.commit(inner).await {
            Ok(Committed { versions }) => Ok(Committed {
                // The inner keys are those that were given to it just now.
                versions: versions
                    .into_iter()
                    .filter_map(|(key, version)| Some((self.inner_to_outer(&key)?, version)))
                    .collect(),
            }),
            Err(CommitError::Conflict { key, conflict }) => Err(CommitError::Conflict {
                key: self.inner_to_outer(&key).unwrap_or(key),
                conflict,
            }),
            Err(other) => Err(other),
        }
    }

    /// A directory too long to have anything below it is watched as its store's own directory:
    /// waking without a reason is allowed, and an error would call a healthy store broken.
    async fn watch(&self, prefix: &Key) -> Result<Box<dyn Watch>, StoreError> {
        let prefix = self.outer_to_inner(prefix);
        self.inner
            .watch(prefix.as_ref().unwrap_or(&self.directory))
            .await
    }
}
