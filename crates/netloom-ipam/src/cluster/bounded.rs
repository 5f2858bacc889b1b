//! A shared store that never keeps a caller waiting for long.

use async_trait::async_trait;
use netloom_core::store::{
    CommitError, Committed, Key, Store, StoreError, StoreIdentity, Transaction, Versioned, Watch,
};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Another store whose every answer comes in time, if only as an error.
#[derive(Debug)]
pub(super) struct Bounded {
    inner: Arc<dyn Store>,
}

impl Bounded {
    pub(super) fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner }
    }
}

async fn read<T>(
    time: Duration,
    call: impl Future<Output = Result<T, StoreError>> + Send,
) -> Result<T, StoreError> {
    match timeout(time, call).await {
        Ok(outcome) => outcome,
        Err(_) => Err(StoreError::Unavailable(Some("it took too long".into()))),
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Bounded {
    async fn identity(&self) -> Result<StoreIdentity, StoreError> {
        read(READ_TIME, self.inner.identity()).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        read(READ_TIME, self.inner.get(key)).await
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<(Key, Versioned)>, StoreError> {
        read(LIST_TIME, self.inner.list(prefix)).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        match timeout(COMMIT_TIME, self.inner.commit(transaction)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(CommitError::Unknown(Some("it took too long".into()))),
        }
    }

    async fn watch(&self, prefix: &Key) -> Result<Box<dyn Watch>, StoreError> {
        read(LIST_TIME, self.inner.watch(prefix)).await
    }
}

/// A plugin call is answered within five seconds, and asks more than one thing.
const READ_TIME: Duration = Duration::from_secs(2);
/// As many as there are hosts.
const LIST_TIME: Duration = Duration::from_secs(4);
const COMMIT_TIME: Duration = Duration::from_secs(3);
