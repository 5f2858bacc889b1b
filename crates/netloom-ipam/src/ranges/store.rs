//! Chunks, wants and answers as the store has them.

use super::{RangeError, chunk_of};
use crate::chunk::Chunk;
use crate::manager::AddressManager;
use crate::records::{AnswerRecord, ChunkRecord, HostRecord, HostState, WantRecord};
use crate::registry::{Registry, Stored, damaged, decode, unreadable, write};
use crate::space::{Keys, PoolKey};
use netloom_core::IpamError;
use netloom_core::store::{Key, Operation, Transaction, Version};
use netloom_types::{HostId, Subnet};

/// A chunk as the store has it; no version while it has no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredChunk {
    pub(crate) pool: PoolKey,
    pub(crate) number: u128,
    pub(crate) chunk: Chunk,
    pub(crate) version: Option<Version>,
}

impl StoredChunk {
    fn absent(pool: PoolKey, number: u128) -> Self {
        Self {
            pool,
            number,
            chunk: Chunk::new(0),
            version: None,
        }
    }
}

impl Registry {
    /// The chunk of an address, or of a number, in one life of its pool.
    pub(crate) async fn chunk(
        &self,
        pool: PoolKey,
        generation: u64,
        number: u128,
    ) -> Result<StoredChunk, IpamError> {
        let key = self.keys.chunk(pool, number);
        match self.read::<ChunkRecord>(&key).await? {
            None => Ok(StoredChunk::absent(pool, number)),
            Some(stored) => read_chunk(pool, generation, number, &key, stored),
        }
    }

    pub(crate) async fn chunk_at(
        &self,
        pool: PoolKey,
        generation: u64,
        index: u128,
    ) -> Result<StoredChunk, IpamError> {
        self.chunk(pool, generation, chunk_of(index)).await
    }

    /// All chunks that have a record, in order.
    pub(crate) async fn chunks(
        &self,
        pool: PoolKey,
        generation: u64,
    ) -> Result<Vec<StoredChunk>, IpamError> {
        let listed = self.store.list(&self.keys.chunks(pool)).await;
        let mut chunks = Vec::new();
        for (key, value) in listed.map_err(unreadable)? {
            let number = Keys::chunk_of(&key).ok_or_else(|| damaged(&key, "names no chunk"))?;
            let stored = decode::<ChunkRecord>(&key, &value.value, value.version)?;
            chunks.push(read_chunk(pool, generation, number, &key, stored)?);
        }
        chunks.sort_by_key(|chunk| chunk.number);
        Ok(chunks)
    }

    /// What writes a chunk in place of what was read.
    pub(crate) fn write_chunk(
        &self,
        stored: &StoredChunk,
        generation: u64,
        operation: &str,
    ) -> Operation {
        let record = ChunkRecord::new(operation.to_owned(), generation, &stored.chunk);
        let key = self.keys.chunk(stored.pool, stored.number);
        write(key, &record, stored.version.clone())
    }

    /// All wants of all hosts. Those that cannot be read are nobody's: their asker will see that
    /// nobody answers.
    pub(crate) async fn wants(&self) -> Result<Vec<(Subnet, Key, Stored<WantRecord>)>, IpamError> {
        let listed = self.store.list(&self.keys.wants()).await;
        let listed = listed.map_err(unreadable)?.into_iter();
        let read = listed.filter_map(|(key, value)| {
            let subnet = Keys::wanted_subnet(&key)?;
            let stored = decode(&key, &value.value, value.version).ok()?;
            Some((subnet, key, stored))
        });
        Ok(read.collect())
    }

    /// What this host was answered in one pool.
    pub(crate) async fn answers(
        &self,
        subnet: Subnet,
    ) -> Result<Vec<(Key, Stored<AnswerRecord>)>, IpamError> {
        let below = self.keys.answers(self.host(), Some(subnet));
        let listed = self.store.list(&below).await.map_err(unreadable)?;
        let read = listed.into_iter().map(|(key, value)| {
            let stored = decode(&key, &value.value, value.version)?;
            Ok((key, stored))
        });
        read.collect()
    }

    /// Writes or deletes a record by which hosts talk. No safety rests on it.
    pub(crate) async fn talk(
        &self,
        operations: impl IntoIterator<Item = Operation>,
    ) -> Result<(), IpamError> {
        let sent = self.store.commit(Transaction::new(operations)).await;
        sent.map(drop).map_err(|error| IpamError::Unavailable {
            what: "the store did not take a message to another host; try again".to_owned(),
            source: Some(error.into()),
        })
    }
}

fn read_chunk(
    pool: PoolKey,
    generation: u64,
    number: u128,
    key: &Key,
    stored: Stored<ChunkRecord>,
) -> Result<StoredChunk, IpamError> {
    if stored.record.generation > generation {
        // The pool was given up by all and made again; the book will follow.
        return Err(crate::pools::contended());
    }
    let chunk = stored.record.chunk(generation);
    Ok(StoredChunk {
        pool,
        number,
        chunk: chunk.map_err(|why| damaged(key, &why))?,
        version: Some(stored.version),
    })
}

impl AddressManager {
    /// Commits a change of hands.
    pub(crate) async fn commit_range(
        &self,
        operation: &str,
        operations: Vec<Operation>,
    ) -> Result<(), RangeError> {
        self.member.commit(operation, operations).await
    }

    /// Hosts that share the store, this one included.
    pub(crate) fn hosts_count(&self) -> u128 {
        u128::try_from(self.member.members_count()).unwrap_or(1)
    }

    /// Whether the store is this host's own.
    pub(crate) fn is_alone(&self) -> bool {
        self.member.is_alone()
    }

    /// What a host had free of a pool by its last word.
    pub(crate) fn hinted_free(&self, host: &str, pool: PoolKey) -> Option<u64> {
        let host = HostId::new(host).ok()?;
        self.member.hinted_free(&host, pool.subnet)
    }

    /// The check that a host is on record while it is given something: of one that was forgotten
    /// nobody would ever take it back.
    pub(crate) async fn membership_check(&self, host: &str) -> Result<Operation, RangeError> {
        let gone = || {
            RangeError::Refused(IpamError::NotFound(format!(
                "host {host} is no member and is given nothing"
            )))
        };
        let key = self.registry.keys.host_of(host).ok_or_else(gone)?;
        let known = self.registry.read::<HostRecord>(&key).await;
        let known = known.map_err(RangeError::Unknown)?;
        let known = known.filter(|known| known.record.state == HostState::Member);
        let version = known.ok_or_else(gone)?.version;
        Ok(Operation::CheckVersion(key, version))
    }
}
