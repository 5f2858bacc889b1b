//! The durable store of one host: one file, one process.

mod committer;
mod file;
mod health;

use crate::sighting::Sighting;
use crate::watchers::Watchers;
use async_trait::async_trait;
use committer::Committer;
use file::{Meta, ReadError};
use health::Health;
use netloom_core::store::{
    CommitError, Committed, Key, Store, StoreError, StoreIdentity, Transaction, Versioned, Watch,
};
use redb::ReadableDatabase;
use std::path::Path;
use std::sync::Arc;

pub use file::OpenError;

/// A store in one file, durable and crash-safe.
///
/// A committed transaction survives the death of the process and of the machine; one that was not
/// acknowledged has happened wholly or not at all. Transactions of many callers share one write to
/// the disk; a caller who is alone does not wait for others.
///
/// One process at a time: a second one gets [`OpenError::InUse`]. After a disk error the store
/// answers `Unavailable` until it is opened again, because nobody can tell what the disk kept.
///
/// ```
/// use netloom_core::store::{Key, Store};
/// use netloom_store::{EmbeddedStore, OpenError};
///
/// # let dir = tempfile::tempdir()?;
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let path = dir.path().join("store.redb");
/// let store = EmbeddedStore::open(&path)?;
/// assert_eq!(store.get(&Key::new("networks/blue")?).await?, None);
/// assert!(matches!(EmbeddedStore::open(&path), Err(OpenError::InUse { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    committer: Committer,
}

/// What the callers and the committer's thread share.
#[derive(Debug)]
struct Shared {
    database: redb::Database,
    identity: StoreIdentity,
    health: Health,
    watchers: Watchers,
}

impl EmbeddedStore {
    /// Opens the store at `path`, and makes it there if nothing is. The directory must exist.
    ///
    /// It reads the disk: not for an async task that others wait for.
    ///
    /// # Errors
    /// See [`OpenError`]; each says what to do.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let (database, meta) = file::open(path)?;
        Self::start(database, meta).map_err(|source| OpenError::Io {
            path: path.to_owned(),
            source,
        })
    }

    fn start(database: redb::Database, meta: Meta) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            database,
            identity: meta.identity,
            health: Health::default(),
            watchers: Watchers::default(),
        });
        let committer = Committer::start(Arc::clone(&shared))?;
        Ok(Self { shared, committer })
    }

    /// Which store this is, and how many changes were ever committed to it: to be kept elsewhere
    /// and compared after the next opening.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn sighting(&self) -> Result<Sighting, StoreError> {
        let file::Totals { mark, .. } = self.shared.read(file::read_totals)?;
        Ok(Sighting {
            identity: self.shared.identity.clone(),
            mark,
        })
    }
}

impl Shared {
    /// Reads from the latest committed state.
    fn read<T>(
        &self,
        what: impl FnOnce(&redb::ReadTransaction) -> Result<T, ReadError>,
    ) -> Result<T, StoreError> {
        self.health
            .check()
            .map_err(|poisoned| StoreError::Unavailable(Some(Box::new(poisoned))))?;
        let read = file::contained(|| what(&self.database.begin_read()?));
        let read = read.unwrap_or_else(|panic| Err(ReadError::Damaged(panic)));
        read.map_err(|error| match error {
            ReadError::Damaged(what) => StoreError::Corrupt(what),
            ReadError::Database(redb::Error::Corrupted(what)) => StoreError::Corrupt(what),
            ReadError::Database(error) => {
                self.health.poison(&error);
                self.watchers.close();
                StoreError::Unavailable(Some(Box::new(error)))
            }
        })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for EmbeddedStore {
    async fn identity(&self) -> Result<StoreIdentity, StoreError> {
        Ok(self.shared.identity.clone())
    }

    /// Runs on the caller's thread: one key is one walk through pages that are nearly always
    /// cached, and a hop to another thread would cost many times that.
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        self.shared.read(|read| file::read_row(read, key))
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<(Key, Versioned)>, StoreError> {
        let shared = Arc::clone(&self.shared);
        let prefix = prefix.clone();
        let listed = tokio::task::spawn_blocking(move || {
            shared.read(|read| file::read_rows_below(read, &prefix))
        });
        listed
            .await
            .unwrap_or_else(|ended| Err(StoreError::Unavailable(Some(Box::new(ended)))))
    }

    /// A caller who stops waiting leaves the outcome open: the transaction may still happen.
    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        transaction.validate()?;
        self.committer.commit(transaction).await
    }

    async fn watch(&self, prefix: &Key) -> Result<Box<dyn Watch>, StoreError> {
        let watch = self.shared.watchers.open(prefix);
        // Asked after the watch is on the list: a poisoning in between closes it.
        match self.shared.health.check() {
            Ok(()) => Ok(watch),
            Err(poisoned) => Err(StoreError::Unavailable(Some(Box::new(poisoned)))),
        }
    }
}

#[cfg(test)]
mod tests;
