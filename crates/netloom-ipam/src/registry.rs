//! The store's side: pools, references and chunks, changed by compare-and-swap alone.

use crate::cluster::{Member, RangeError};
use crate::records::{PoolRecord, PoolState, Record, ReferenceRecord, SpaceRecord, VERSION};
use crate::space::{Keys, PoolKey, Reference};
use netloom_core::store::{Key, Operation, Store, StoreError, Version};
use netloom_core::{AddressSpace, IpamError};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A record and its version.
#[derive(Debug, Clone)]
pub(crate) struct Stored<R> {
    pub(crate) record: R,
    pub(crate) version: Version,
}

/// A pool as the store has it.
#[derive(Debug, Clone)]
pub(crate) struct StoredPool {
    pub(crate) key: PoolKey,
    pub(crate) pool: Stored<PoolRecord>,
    pub(crate) references: BTreeMap<u64, Stored<ReferenceRecord>>,
}

/// A change of one pool that happens as a whole.
#[derive(Debug)]
pub(crate) struct PoolChange {
    pub(crate) key: PoolKey,
    /// The pool's record to be, and the version that it replaces.
    pub(crate) pool: (PoolRecord, Option<Version>),
    /// What happens to one of its references.
    pub(crate) reference: ReferenceChange,
    /// What happens to chunks of it in the same commit: gateways and auxiliary addresses.
    pub(crate) chunks: Vec<Operation>,
}

#[derive(Debug)]
pub(crate) enum ReferenceChange {
    Create(u64, ReferenceRecord),
    Update(u64, ReferenceRecord, Version),
    Delete(u64, Version),
}

/// Why a change is not known to have happened.
#[derive(Debug)]
pub(crate) enum ChangeError {
    /// Somebody else changed it first: read again and decide anew.
    Conflict,
    /// The store did not take it, or did not say.
    Failed(IpamError),
}

#[derive(Debug)]
pub(crate) struct Registry {
    member: Arc<Member>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keys: Keys,
}

impl Registry {
    pub(crate) fn new(member: Arc<Member>, store: Arc<dyn Store>) -> Result<Self, IpamError> {
        Ok(Self {
            keys: Keys::new(member.host())?,
            store,
            member,
        })
    }

    pub(crate) fn host(&self) -> &str {
        self.member.host().as_str()
    }

    /// A new text for the `operation` field of the records of one change.
    pub(crate) fn operation(&self) -> String {
        self.member.operation()
    }

    pub(crate) async fn pools(&self, space: AddressSpace) -> Result<Vec<StoredPool>, IpamError> {
        self.pools_in(&*self.store, space).await
    }

    /// The pools that a store holds: this one, or the mirror of it.
    pub(crate) async fn pools_in(
        &self,
        store: &dyn Store,
        space: AddressSpace,
    ) -> Result<Vec<StoredPool>, IpamError> {
        let listed = store.list(&self.keys.pools(space)).await;
        let mut pools = Vec::new();
        for (key, value) in listed.map_err(unreadable)? {
            let subnet =
                Keys::subnet_of(&key).ok_or_else(|| damaged(&key, "does not name a subnet"))?;
            let pool = decode::<PoolRecord>(&key, &value.value, value.version)?;
            let key = PoolKey { space, subnet };
            let references = self.references(store, key).await?;
            pools.push(StoredPool {
                key,
                pool,
                references,
            });
        }
        Ok(pools)
    }

    pub(crate) async fn pool(&self, key: PoolKey) -> Result<Option<StoredPool>, IpamError> {
        let name = self.keys.pool(key);
        let Some(value) = self.store.get(&name).await.map_err(unreadable)? else {
            return Ok(None);
        };
        Ok(Some(StoredPool {
            key,
            pool: decode(&name, &value.value, value.version)?,
            references: self.references(&*self.store, key).await?,
        }))
    }

    async fn references(
        &self,
        store: &dyn Store,
        key: PoolKey,
    ) -> Result<BTreeMap<u64, Stored<ReferenceRecord>>, IpamError> {
        let listed = store.list(&self.keys.references(key)).await;
        let mut references = BTreeMap::new();
        for (name, value) in listed.map_err(unreadable)? {
            let nonce =
                Keys::nonce_of(&name).ok_or_else(|| damaged(&name, "does not name a reference"))?;
            references.insert(nonce, decode(&name, &value.value, value.version)?);
        }
        Ok(references)
    }

    /// Makes a change of one pool happen.
    pub(crate) async fn change(&self, change: PoolChange) -> Result<(), ChangeError> {
        let PoolChange {
            key,
            pool: (record, replaces),
            reference,
            chunks,
        } = change;
        let operation = record.operation.clone();
        let probe = self.keys.pool(key);
        let mut operations = vec![write(probe.clone(), &record, replaces)];
        operations.extend(chunks);
        let name = |nonce| self.keys.reference(Reference { pool: key, nonce });
        operations.push(match reference {
            ReferenceChange::Create(nonce, record) => write(name(nonce), &record, None),
            ReferenceChange::Update(nonce, record, version) => {
                write(name(nonce), &record, Some(version))
            }
            ReferenceChange::Delete(nonce, version) => Operation::Delete(name(nonce), version),
        });
        self.commit(&operation, operations).await
    }

    /// As [`change`](Self::change), for a pool that comes into being: fails with a conflict when
    /// another one came into being in its space since `space` was read.
    pub(crate) async fn open_pool(
        &self,
        change: PoolChange,
        space: Option<Stored<SpaceRecord>>,
    ) -> Result<(), ChangeError> {
        let PoolChange {
            key,
            pool: (record, replaces),
            reference,
            chunks: _,
        } = change;
        let operation = record.operation.clone();
        let probe = self.keys.pool(key);
        let guard = SpaceRecord {
            version: VERSION,
            operation: operation.clone(),
            generation: space.as_ref().map_or(0, |s| s.record.generation) + 1,
        };
        let mut operations = vec![
            write(self.keys.space(key.space), &guard, space.map(|s| s.version)),
            write(probe.clone(), &record, replaces),
        ];
        if let ReferenceChange::Create(nonce, record) = reference {
            let name = self.keys.reference(Reference { pool: key, nonce });
            operations.push(write(name, &record, None));
        }
        self.commit(&operation, operations).await
    }

    pub(crate) async fn space(
        &self,
        space: AddressSpace,
    ) -> Result<Option<Stored<SpaceRecord>>, IpamError> {
        self.read(&self.keys.space(space)).await
    }

    pub(crate) async fn read<R: Record>(&self, key: &Key) -> Result<Option<Stored<R>>, IpamError> {
        let found = self.store.get(key).await.map_err(unreadable)?;
        found
            .map(|value| decode(key, &value.value, value.version))
            .transpose()
    }

    /// Commits as [`Member::commit`].
    async fn commit(&self, operation: &str, operations: Vec<Operation>) -> Result<(), ChangeError> {
        let outcome = self.member.commit(operation, operations).await;
        outcome.map_err(|error| match error {
            RangeError::Conflict => ChangeError::Conflict,
            RangeError::Unknown(error) | RangeError::Refused(error) => ChangeError::Failed(error),
        })
    }
}

pub(crate) fn write<R: Record>(key: Key, record: &R, replaces: Option<Version>) -> Operation {
    match replaces {
        None => Operation::Create(key, record.encode()),
        Some(version) => Operation::Update(key, record.encode(), version),
    }
}

pub(crate) fn decode<R: Record>(
    key: &Key,
    bytes: &[u8],
    version: Version,
) -> Result<Stored<R>, IpamError> {
    let record = R::decode(bytes).map_err(|why| damaged(key, &why))?;
    Ok(Stored { record, version })
}

pub(crate) fn damaged(key: &Key, why: &str) -> IpamError {
    IpamError::Unavailable {
        what: format!("the store's record {key} {why}"),
        source: None,
    }
}

/// What is wrong with what was read, where reading itself did not fail: see [`damaged`].
pub(crate) fn damage(error: &IpamError) -> Option<&str> {
    match error {
        IpamError::Unavailable { what, source: None } => Some(what),
        _ => None,
    }
}

pub(crate) fn unreadable(error: StoreError) -> IpamError {
    IpamError::Unavailable {
        what: "the store could not be read; try again".to_owned(),
        source: Some(error.into()),
    }
}

impl StoredPool {
    pub(crate) fn is_active(&self) -> bool {
        self.pool.record.state == PoolState::Active
    }
}

/// Tries after which so much contention is an error: each lost try was another's success.
pub(crate) const CONFLICTS_MAX: u32 = 32;
