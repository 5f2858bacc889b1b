//! Bugs put between a host and its store or disk, each of which the judgement must find.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use netloom_core::store::{
    CommitError, Committed, Key, Operation, Store, StoreError, StoreIdentity, Transaction, Version,
    Versioned, Watch,
};
use netloom_ipam::journal::{DirDisk, Disk, DiskFile};

/// One planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Flaw {
    /// Whatever version a record has, it is written over.
    BlindWrites,
    /// A conflict is told as success.
    ConflictAsSuccess,
    /// An unknown outcome is told as a refusal, as if nothing had happened; for that, answers to changes of
    /// ranges get lost. Its own record keeps such a host from harm most times: it comes to a stand.
    UnknownAsRefusal,
    /// Now and then a transaction is answered and never sent.
    LostWrite,
    /// Of a transaction, only its first half is sent.
    HalfTransaction,
    /// The disk says synced, and writes a while later.
    LateSync,
}

impl Flaw {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::BlindWrites,
        Self::ConflictAsSuccess,
        Self::UnknownAsRefusal,
        Self::LostWrite,
        Self::HalfTransaction,
        Self::LateSync,
    ];
}

/// A store with a bug in front of it.
#[derive(Debug)]
pub(super) struct FlawedStore {
    inner: Arc<dyn Store>,
    flaw: Flaw,
    commits: AtomicU64,
}

impl FlawedStore {
    pub(super) fn new(inner: Arc<dyn Store>, flaw: Flaw) -> Self {
        Self {
            inner,
            flaw,
            commits: AtomicU64::new(0),
        }
    }

    /// The same changes, whatever versions there are now.
    async fn blind(&self, transaction: Transaction) -> Result<Transaction, CommitError> {
        let mut operations = Vec::new();
        for operation in transaction.operations {
            let now = self.inner.get(operation.key()).await;
            let now = now.map_err(|_| CommitError::Unavailable(None))?;
            let version = now.map(|row| row.version);
            operations.push(match (operation, version) {
                (Operation::Create(key, value) | Operation::Update(key, value, _), None) => {
                    Operation::Create(key, value)
                }
                (
                    Operation::Create(key, value) | Operation::Update(key, value, _),
                    Some(version),
                ) => Operation::Update(key, value, version),
                (Operation::Delete(key, _), Some(version)) => Operation::Delete(key, version),
                (other, _) => other,
            });
        }
        Ok(Transaction::new(operations))
    }

    /// What a success would say.
    async fn told(&self, transaction: &Transaction) -> Committed {
        let mut versions = Vec::new();
        for operation in &transaction.operations {
            if let Operation::Create(key, _) | Operation::Update(key, ..) = operation {
                let row = self.inner.get(key).await.ok().flatten();
                let version = row.map_or_else(|| Version::from_bytes([]), |row| row.version);
                versions.push((key.clone(), version));
            }
        }
        Committed { versions }
    }
}

#[async_trait]
impl Store for FlawedStore {
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
        let counts = self.flaw != Flaw::UnknownAsRefusal || crate::changes_a_range(&transaction);
        let number = self.commits.fetch_add(u64::from(counts), Ordering::Relaxed);
        match self.flaw {
            Flaw::BlindWrites => transaction = self.blind(transaction).await?,
            Flaw::LostWrite if number % LOST_EVERY == LOST_EVERY - 1 => {
                return Ok(self.told(&transaction).await);
            }
            Flaw::HalfTransaction => {
                let half = transaction.operations.len().div_ceil(2);
                transaction.operations.truncate(half);
            }
            Flaw::LostWrite | Flaw::ConflictAsSuccess | Flaw::UnknownAsRefusal | Flaw::LateSync => {
            }
        }
        match (self.flaw, self.inner.commit(transaction.clone()).await) {
            (Flaw::ConflictAsSuccess, Err(CommitError::Conflict { .. })) => {
                Ok(self.told(&transaction).await)
            }
            (Flaw::UnknownAsRefusal, Err(CommitError::Unknown(why))) => {
                Err(CommitError::Unavailable(why))
            }
            (Flaw::UnknownAsRefusal, Ok(_))
                if counts && number % UNHEARD_EVERY == UNHEARD_EVERY - 1 =>
            {
                Err(CommitError::Unavailable(None))
            }
            (_, outcome) => outcome,
        }
    }

    async fn watch(&self, prefix: &Key) -> Result<Box<dyn Watch>, StoreError> {
        self.inner.watch(prefix).await
    }
}

/// A disk that keeps what it was given in memory, and writes it when the next piece comes.
#[derive(Debug)]
pub(super) struct LateDisk(pub(super) DirDisk);

/// What was not written yet, by offset.
#[derive(Debug)]
struct LateFile {
    file: Box<dyn DiskFile>,
    kept: Mutex<BTreeMap<u64, Vec<u8>>>,
}

impl LateFile {
    fn late(file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        let kept = Mutex::default();
        Box::new(Self { file, kept })
    }
}

impl DiskFile for LateFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= LATE_PIECES {
            for (offset, bytes) in std::mem::take(&mut *kept) {
                self.file.write_at(offset, &bytes)?;
            }
        }
        kept.insert(offset, bytes.to_vec());
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Disk for LateDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.0.read(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.0.open(name).map(LateFile::late)
    }

    fn create(&self, name: &str, len: usize) -> io::Result<Box<dyn DiskFile>> {
        self.0.create(name, len).map(LateFile::late)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.0.replace(name, bytes)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
}

/// Of so many transactions, one is not sent.
const LOST_EVERY: u64 = 20;
/// Of so many changes of ranges, one is not answered.
const UNHEARD_EVERY: u64 = 4;
/// Pieces that wait for the next one.
const LATE_PIECES: usize = 4;
