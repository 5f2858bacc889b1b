//! Every change also checks that the store is still in the epoch that this host joined.

use async_trait::async_trait;
use netloom_core::store::{
    CommitError, Committed, Conflict, Key, Operation, Store, StoreError, StoreIdentity,
    Transaction, Version, Versioned, Watch,
};
use std::sync::{Arc, PoisonError, RwLock};

/// What an epoch record of a store that was left for another one begins with.
const MOVED: &str = "moved:";

/// Another store, in which no change happens once the epoch is another one.
///
/// The epoch is a record of its own. Whoever sees that the store went back in time, or moves to
/// another store, changes that record; from then on every transaction of every host that joined
/// before fails with `WrongEpoch`, whatever it is about, because each checks the record's version
/// in the same commit. Reads pass: no safety rests on them.
///
/// The check takes one of the operations that a transaction may have, so 15 are left.
///
/// ```
/// use netloom_core::store::{CommitError, Key, Operation, Store, Transaction};
/// use netloom_store::{FencedStore, MemoryStore};
/// use std::sync::Arc;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let inner = Arc::new(MemoryStore::new());
/// let epoch = Key::new("epoch")?;
/// FencedStore::initialise(inner.as_ref(), &epoch).await?;
/// let here = FencedStore::join(inner.clone(), epoch.clone()).await?;
/// let there = FencedStore::join(inner, epoch).await?;
/// there.advance().await?;
/// let create = Operation::Create(Key::new("a")?, vec![]);
/// let refused = here.commit(Transaction::new([create])).await;
/// assert!(matches!(refused, Err(CommitError::WrongEpoch(_))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct FencedStore {
    inner: Arc<dyn Store>,
    key: Key,
    joined: RwLock<Epoch>,
}

#[derive(Debug, Clone)]
struct Epoch {
    number: u64,
    version: Version,
}

impl FencedStore {
    /// Writes the first epoch into a store, once in its life. No host ever does this by itself to
    /// a shared store: an empty one may be one that lost its content.
    ///
    /// # Errors
    /// A conflict `Exists` when the store has an epoch.
    pub async fn initialise(inner: &dyn Store, key: &Key) -> Result<(), CommitError> {
        let create = Operation::Create(key.clone(), b"1".to_vec());
        inner.commit(Transaction::new([create])).await.map(|_| ())
    }

    /// Joins the epoch in which `inner` is now.
    ///
    /// # Errors
    /// `WrongEpoch` when the store was never initialised or was left for another one, `Corrupt`
    /// when the record is neither, and what the read says.
    pub async fn join(inner: Arc<dyn Store>, key: Key) -> Result<Self, StoreError> {
        let row = inner.get(&key).await?.ok_or_else(|| {
            StoreError::WrongEpoch(format!(
                "the store has no epoch record {key}: initialise the cluster once, or, if it was \
                 initialised, find out who emptied the store"
            ))
        })?;
        let joined = RwLock::new(Epoch::parse(row)?);
        Ok(Self { inner, key, joined })
    }

    /// The number of the epoch that was joined.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.joined().number
    }

    /// Begins the next epoch, and joins it: every other host must join again.
    ///
    /// # Errors
    /// `WrongEpoch` when another host was first, and what a commit says.
    pub async fn advance(&self) -> Result<(), CommitError> {
        let Epoch { number, version } = self.joined();
        let number = number.checked_add(1).ok_or(CommitError::Invalid(
            "there is no epoch after the last number",
        ))?;
        let value = number.to_string().into_bytes();
        let update = Operation::Update(self.key.clone(), value, version);
        let outcome = self.inner.commit(Transaction::new([update])).await;
        let committed = outcome.map_err(|error| self.wrong_epoch(error))?;
        if let Some((_, version)) = committed.versions.into_iter().next() {
            let mut joined = self.joined.write().unwrap_or_else(PoisonError::into_inner);
            *joined = Epoch { number, version };
        }
        Ok(())
    }

    fn joined(&self) -> Epoch {
        // One assignment replaces it, so it is whole even after a panic.
        let joined = self.joined.read().unwrap_or_else(PoisonError::into_inner);
        joined.clone()
    }

    /// A backend that cannot tell which key differed may name another one although the epoch
    /// differs too. Then the caller sees a conflict, reads, tries again, and meets the epoch.
    fn wrong_epoch(&self, error: CommitError) -> CommitError {
        match error {
            CommitError::Conflict { key, conflict } if key == self.key => {
                let what = match conflict {
                    Conflict::Absent => "its epoch record is gone",
                    Conflict::Exists | Conflict::VersionDiffers => "another epoch has begun",
                };
                CommitError::WrongEpoch(format!(
                    "this host joined epoch {}, and {what}: join again and assert what it owns",
                    self.epoch()
                ))
            }
            other => other,
        }
    }
}

impl Epoch {
    fn parse(row: Versioned) -> Result<Self, StoreError> {
        let Versioned { value, version } = row;
        let text = String::from_utf8_lossy(&value);
        if let Some(url) = text.strip_prefix(MOVED) {
            return Err(StoreError::WrongEpoch(format!(
                "the cluster moved to the store {url:?}: configure that one"
            )));
        }
        match text.parse() {
            Ok(number) => Ok(Self { number, version }),
            Err(_) => Err(StoreError::Corrupt(format!(
                "the epoch record holds {text:?}, which is no number"
            ))),
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for FencedStore {
    async fn identity(&self) -> Result<StoreIdentity, StoreError> {
        self.inner.identity().await
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        self.inner.get(key).await
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<(Key, Versioned)>, StoreError> {
        self.inner.list(prefix).await
    }

    async fn commit(&self, mut transaction: Transaction) -> Result<Committed, CommitError> {
        // Before the check is added, so that an empty transaction is still refused.
        transaction.validate()?;
        let check = Operation::CheckVersion(self.key.clone(), self.joined().version);
        transaction.operations.insert(0, check);
        let outcome = self.inner.commit(transaction).await;
        outcome.map_err(|error| self.wrong_epoch(error))
    }

    async fn watch(&self, prefix: &Key) -> Result<Box<dyn Watch>, StoreError> {
        self.inner.watch(prefix).await
    }
}
