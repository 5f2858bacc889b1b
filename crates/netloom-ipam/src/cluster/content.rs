//! Versions that tell contents apart, too.
//!
//! A store that is put back counts on from where it was then, so that a version comes a second time, with
//! another content. No store checks contents in a commit; but a host that looks whether something is still
//! as it read it compares both by these.

use async_trait::async_trait;
use netloom_core::store::{
    CommitError, Committed, Key, Operation, Store, StoreError, StoreIdentity, Transaction, Version,
    Versioned, Watch,
};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

/// Another store, whose versions end with a digest of the content.
#[derive(Debug)]
pub(super) struct ByContent {
    inner: Arc<dyn Store>,
}

impl ByContent {
    pub(super) fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner }
    }
}

/// Whether the store takes two versions for one, although the contents differ.
pub(super) fn only_contents_differ(one: &Version, other: &Version) -> bool {
    one != other && of_store(one) == of_store(other)
}

/// Means something in this process alone.
type Digest = [u8; 8];

fn digest(value: &[u8]) -> Digest {
    let mut hasher = DefaultHasher::new();
    hasher.write(value);
    hasher.finish().to_be_bytes()
}

fn with_digest(version: &Version, digest: Digest) -> Version {
    Version::from_bytes([version.as_bytes(), &digest].concat())
}

/// What the store knows of it.
fn of_store(version: &Version) -> &[u8] {
    let bytes = version.as_bytes();
    let end = bytes.len().saturating_sub(size_of::<Digest>());
    bytes.get(..end).unwrap_or_default()
}

fn read(found: Versioned) -> Versioned {
    Versioned {
        version: with_digest(&found.version, digest(&found.value)),
        value: found.value,
    }
}

fn for_store(operation: Operation) -> Operation {
    let plain = |version: &Version| Version::from_bytes(of_store(version));
    match operation {
        Operation::CheckVersion(key, version) => Operation::CheckVersion(key, plain(&version)),
        Operation::Update(key, value, version) => Operation::Update(key, value, plain(&version)),
        Operation::Delete(key, version) => Operation::Delete(key, plain(&version)),
        other @ (Operation::CheckAbsent(_) | Operation::Create(..)) => other,
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for ByContent {
    async fn identity(&self) -> Result<StoreIdentity, StoreError> {
        self.inner.identity().await
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        Ok(self.inner.get(key).await?.map(read))
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<(Key, Versioned)>, StoreError> {
        let listed = self.inner.list(prefix).await?.into_iter();
        Ok(listed.map(|(key, found)| (key, read(found))).collect())
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        let written = transaction.operations.iter().filter_map(|operation| {
            let (Operation::Create(key, value) | Operation::Update(key, value, _)) = operation
            else {
                return None;
            };
            Some((key.clone(), digest(value)))
        });
        let written: BTreeMap<Key, Digest> = written.collect();
        let operations = transaction.operations.into_iter().map(for_store);
        let committed = self.inner.commit(Transaction::new(operations)).await?;
        let versions = committed.versions.into_iter().map(|(key, version)| {
            let digest = written.get(&key).copied().unwrap_or_default();
            (key, with_digest(&version, digest))
        });
        Ok(Committed {
            versions: versions.collect(),
        })
    }

    async fn watch(&self, prefix: &Key) -> Result<Box<dyn Watch>, StoreError> {
        self.inner.watch(prefix).await
    }
}
