//! Declaring a host gone for ever: a person's word, and the only one that takes addresses from it.

use super::commit::RangeError;
use super::heal::unknown_host;
use super::look::Width;
use crate::manager::AddressManager;
use crate::pools::contended;
use crate::ranges::StoredChunk;
use crate::records::{HealRecord, HostRecord, HostState, PoolState, Record};
use crate::registry::{CONFLICTS_MAX, StoredPool};
use crate::space::{Keys, PoolKey, Reference};
use netloom_core::store::{Key, Operation, Transaction};
use netloom_core::{AddressSpace, Forgotten, IpamError};
use netloom_types::Subnet;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

impl AddressManager {
    /// Marks the host first, so that nothing that it does is taken any more; then takes its runs
    /// out, chunk by chunk. May be done again after a crash.
    pub(super) async fn forget_host(&self, host: &str) -> Result<Forgotten, IpamError> {
        self.mark_forgotten(host).await?;
        self.withdraw_wants(host).await?;
        let mut freed: BTreeMap<Subnet, u64> = BTreeMap::new();
        for stored in self.registry.pools(AddressSpace::Global).await? {
            let count = self.free_pool(&stored, host).await?;
            if count > 0 {
                freed.insert(stored.key.subnet, count);
            }
            let pool = stored.key;
            let own = stored.references.iter();
            for (nonce, _) in own.filter(|(_, r)| r.record.host == host) {
                let nonce = *nonce;
                self.drop_reference(Reference { pool, nonce }).await?;
            }
        }
        self.clear_traces(host).await;
        Ok(Forgotten {
            freed: freed.into_iter().collect(),
        })
    }

    async fn mark_forgotten(&self, host: &str) -> Result<(), IpamError> {
        let unknown = || IpamError::NotFound(format!("no host {host} is on record"));
        let key = Keys::host_key(host).ok_or_else(unknown)?;
        for _ in 0..CONFLICTS_MAX {
            let known = self.registry.read::<HostRecord>(&key).await?;
            let heal = self.registry.read::<HealRecord>(&Keys::heal()).await?;
            let waited_for = heal
                .as_ref()
                .is_some_and(|heal| heal.record.waiting.iter().any(|w| w == host));
            let operation = self.member.operation();
            let mut writes = Vec::new();
            match known {
                None if !waited_for => return Err(unknown()),
                None => {
                    let record = HostRecord {
                        operation: operation.clone(),
                        state: HostState::Forgotten,
                        ..unknown_host(host)
                    };
                    writes.push(Operation::Create(key.clone(), record.encode()));
                }
                Some(known) if known.record.state == HostState::Forgotten => {}
                Some(known) => {
                    let record = HostRecord {
                        operation: operation.clone(),
                        state: HostState::Forgotten,
                        ..known.record
                    };
                    writes.push(Operation::Update(
                        key.clone(),
                        record.encode(),
                        known.version,
                    ));
                }
            }
            if let Some(heal) = heal.filter(|_| waited_for) {
                let mut record = heal.record;
                record.operation.clone_from(&operation);
                record.waiting.retain(|waiting| waiting != host);
                writes.push(Operation::Update(
                    Keys::heal(),
                    record.encode(),
                    heal.version,
                ));
            }
            if writes.is_empty() {
                return Ok(());
            }
            match self.heal_commit(&operation, writes).await {
                Ok(()) => {
                    let deadline = Instant::now() + LOOK_TIME;
                    let look = self.member.look(Width::All, deadline).await?;
                    self.mirror.keep_hosts(&look.hosts).await?;
                    self.member.settle(look);
                    return Ok(());
                }
                Err(RangeError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(contended())
    }

    /// Frees what a pool's chunks name of a host; gives how many addresses that were.
    async fn free_pool(&self, stored: &StoredPool, host: &str) -> Result<u64, IpamError> {
        if stored.pool.record.state == PoolState::Released {
            return Ok(0);
        }
        let generation = stored.pool.record.generation;
        let mut freed = 0;
        for chunk in self.registry.chunks(stored.key, generation).await? {
            if chunk.chunk.of(host).next().is_some() {
                freed += self.free_chunk(stored.key, generation, chunk, host).await?;
            }
        }
        Ok(freed)
    }

    async fn free_chunk(
        &self,
        pool: PoolKey,
        generation: u64,
        mut stored: StoredChunk,
        host: &str,
    ) -> Result<u64, IpamError> {
        for _ in 0..CONFLICTS_MAX {
            let freed = stored.chunk.forget(host, self.clock.now().0);
            if freed == 0 {
                return Ok(0);
            }
            let operation = self.member.operation();
            let write = self.registry.write_chunk(&stored, generation, &operation);
            match self.heal_commit(&operation, vec![write]).await {
                Ok(()) => return Ok(u64::from(freed)),
                Err(RangeError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
            stored = self.registry.chunk(pool, generation, stored.number).await?;
        }
        Err(contended())
    }

    /// An offer that answers a want checks that it is there: with the want gone, none can come to the
    /// host after its runs were freed.
    async fn withdraw_wants(&self, host: &str) -> Result<(), IpamError> {
        for (_, key, want) in self.registry.wants().await? {
            if want.record.host == host {
                let delete = Operation::Delete(key, want.version);
                let operation = self.member.operation();
                match self.heal_commit(&operation, vec![delete]).await {
                    Ok(()) => {}
                    Err(RangeError::Conflict) => return Err(contended()),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// What a forgotten host said and was told. Nothing depends on it being gone.
    async fn clear_traces(&self, host: &str) {
        let keys = &self.registry.keys;
        let mut all: Vec<Key> = Keys::status_key(host).into_iter().collect();
        if let Ok(answers) = self.registry.store.list(&keys.answers(host, None)).await {
            all.extend(answers.into_iter().map(|(key, _)| key));
        }
        for key in all {
            if let Ok(Some(row)) = self.registry.store.get(&key).await {
                let delete = Operation::Delete(key, row.version);
                drop(self.registry.store.commit(Transaction::new([delete])).await);
            }
        }
    }
}

/// One look at the hosts.
const LOOK_TIME: Duration = Duration::from_secs(3);
