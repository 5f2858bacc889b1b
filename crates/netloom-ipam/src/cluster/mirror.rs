//! What this host saw last of the store, kept in a store of its own: to start from while the other
//! one is away, and to remember who is to be waited for. Nothing is handed out because of it.

use super::heal::unknown_host;
use super::peers::{Peers, States};
use crate::records::{HostRecord, HostState, LetGoRecord, Record, VERSION};
use crate::references::LetGo;
use crate::registry::{StoredPool, damaged, unreadable};
use crate::space::{Keys, Reference};
use netloom_core::IpamError;
use netloom_core::store::{
    CommitError, Key, Operation, Store, TRANSACTION_OPS_MAX, Transaction, Versioned,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::Mutex;

/// The mirror, if there is one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mirror {
    store: Option<Arc<dyn Store>>,
    /// Who was on record when this process kept it last.
    kept: Arc<Mutex<Option<Arc<States>>>>,
}

impl Mirror {
    pub(crate) fn new(store: Option<Arc<dyn Store>>) -> Self {
        Self {
            store,
            kept: Arc::default(),
        }
    }

    pub(crate) fn store(&self) -> Option<&Arc<dyn Store>> {
        self.store.as_ref()
    }

    /// Hosts that this one knew, and whether they were forgotten.
    pub(crate) async fn hosts(&self) -> Result<BTreeMap<String, HostState>, IpamError> {
        let mut hosts = BTreeMap::new();
        for (key, row) in self.list(&Keys::hosts()).await? {
            let record = HostRecord::decode(&row.value).map_err(|why| damaged(&key, &why))?;
            let host = Keys::host_in(&key).ok_or_else(|| damaged(&key, "does not name a host"))?;
            hosts.insert(host, record.state);
        }
        Ok(hosts)
    }

    /// Hosts that would be waited for.
    pub(crate) async fn members(&self) -> Result<BTreeSet<String>, IpamError> {
        let hosts = self.hosts().await?.into_iter();
        let members = hosts.filter(|(_, state)| *state == HostState::Member);
        Ok(members.map(|(host, _)| host).collect())
    }

    /// Keeps who is on record; how far each came changes too often to be kept.
    pub(crate) async fn keep_hosts(&self, hosts: &Peers) -> Result<(), IpamError> {
        // One at a time, and unknown while it is written: a part of it may be there.
        let mut kept = self.kept.lock().await;
        if self.store.is_none() || kept.as_ref() == Some(hosts.states()) {
            return Ok(());
        }
        *kept = None;
        let mut rows = BTreeMap::new();
        // No host's record is ever removed: one that a store lost is remembered all the more.
        for (key, known) in self.list(&Keys::hosts()).await? {
            rows.insert(key, known.value);
        }
        for (host, state) in hosts.states().iter() {
            let record = HostRecord {
                state,
                ..unknown_host(host)
            };
            let Some(key) = Keys::host_key(host) else {
                continue;
            };
            // A store that lost its past shows hosts again that were forgotten; they stay so.
            let was = rows.get(&key).and_then(|row| HostRecord::decode(row).ok());
            if was.is_none_or(|was| was.state == HostState::Member) {
                rows.insert(key, record.encode());
            }
        }
        self.keep(&Keys::hosts(), rows).await?;
        *kept = Some(Arc::clone(hosts.states()));
        Ok(())
    }

    /// Keeps the pools that concern this host.
    pub(crate) async fn keep_pools(
        &self,
        keys: &Keys,
        pools: &[StoredPool],
    ) -> Result<(), IpamError> {
        let (mut records, mut references) = (BTreeMap::new(), BTreeMap::new());
        for stored in pools {
            let pool = stored.key;
            records.insert(keys.pool(pool), stored.pool.record.encode());
            for (nonce, reference) in &stored.references {
                let nonce = *nonce;
                let key = keys.reference(Reference { pool, nonce });
                references.insert(key, reference.record.encode());
            }
        }
        self.keep(&Keys::all_pools(), records).await?;
        self.keep(&Keys::all_references(), references).await
    }

    /// Keeps one pool with its references.
    pub(crate) async fn keep_pool(
        &self,
        keys: &Keys,
        stored: &StoredPool,
    ) -> Result<(), IpamError> {
        let Some(store) = &self.store else {
            return Ok(());
        };
        let pool = stored.key;
        let references = stored.references.iter().map(|(nonce, reference)| {
            let nonce = *nonce;
            let key = keys.reference(Reference { pool, nonce });
            (key, reference.record.encode())
        });
        self.keep(&keys.references(pool), references.collect())
            .await?;
        let (key, value) = (keys.pool(pool), stored.pool.record.encode());
        keep_row(&**store, key, value).await
    }

    /// References of this host whose gateway it began to give back.
    pub(crate) async fn let_go(&self) -> Result<LetGo, IpamError> {
        let directory = Keys::all_let_go();
        let rows = self.list(&directory).await?.into_iter();
        let read = |(key, row): (Key, Versioned)| {
            let nonce = Keys::nonce_of(&key).ok_or_else(|| damaged(&key, "names nothing"))?;
            let record = LetGoRecord::decode(&row.value).map_err(|why| damaged(&key, &why))?;
            Ok((nonce, record.gateway))
        };
        rows.map(read).collect()
    }

    /// Keeps these; the store may go on to show that they hold it.
    pub(crate) async fn keep_let_go(&self, all: &LetGo) -> Result<(), IpamError> {
        let rows = all.iter().map(|(nonce, gateway)| {
            let (version, gateway) = (VERSION, *gateway);
            let record = LetGoRecord { version, gateway };
            (Keys::let_go(*nonce), record.encode())
        });
        self.keep(&Keys::all_let_go(), rows.collect()).await
    }

    /// Makes everything below `directory` equal to these rows.
    pub(crate) async fn keep(
        &self,
        directory: &Key,
        mut rows: BTreeMap<Key, Vec<u8>>,
    ) -> Result<(), IpamError> {
        let Some(store) = &self.store else {
            return Ok(());
        };
        let mut changes = Vec::new();
        for (key, known) in self.list(directory).await? {
            match rows.remove(&key) {
                Some(value) if value == known.value => {}
                Some(value) => changes.push(Operation::Update(key, value, known.version)),
                None => changes.push(Operation::Delete(key, known.version)),
            }
        }
        changes.extend(
            rows.into_iter()
                .map(|(key, value)| Operation::Create(key, value)),
        );
        for some in changes.chunks(TRANSACTION_OPS_MAX) {
            let outcome = store.commit(Transaction::new(some.to_vec())).await;
            outcome.map_err(unkept)?;
        }
        Ok(())
    }

    /// Forgets one record.
    pub(crate) async fn remove(&self, key: &Key) -> Result<(), IpamError> {
        let Some(store) = &self.store else {
            return Ok(());
        };
        let Some(row) = store.get(key).await.map_err(unreadable)? else {
            return Ok(());
        };
        let delete = Operation::Delete(key.clone(), row.version);
        let outcome = store.commit(Transaction::new([delete])).await;
        outcome.map(drop).map_err(unkept)
    }

    async fn list(&self, directory: &Key) -> Result<Vec<(Key, Versioned)>, IpamError> {
        match &self.store {
            None => Ok(Vec::new()),
            Some(store) => store.list(directory).await.map_err(unreadable),
        }
    }
}

async fn keep_row(store: &dyn Store, key: Key, value: Vec<u8>) -> Result<(), IpamError> {
    let known = store.get(&key).await.map_err(unreadable)?;
    let write = match known {
        Some(known) if known.value == value => return Ok(()),
        Some(known) => Operation::Update(key, value, known.version),
        None => Operation::Create(key, value),
    };
    let kept = store.commit(Transaction::new([write])).await;
    kept.map(drop).map_err(unkept)
}

fn unkept(error: CommitError) -> IpamError {
    IpamError::Unavailable {
        what: "what was seen of the store could not be kept on this host".to_owned(),
        source: Some(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netloom_store::MemoryStore;

    /// A store that lost its past shows a host that was forgotten as a member again.
    #[tokio::test]
    async fn who_was_forgotten_stays_so() {
        let mirror = Mirror::new(Some(Arc::new(MemoryStore::new())));
        let shown = |state| {
            let host = "h2".to_owned();
            let record = HostRecord {
                state,
                ..unknown_host(&host)
            };
            Peers::of("h1", &BTreeMap::from([(host, record)]))
        };
        for (state, kept) in [
            (HostState::Member, HostState::Member),
            (HostState::Forgotten, HostState::Forgotten),
            (HostState::Member, HostState::Forgotten),
        ] {
            mirror.keep_hosts(&shown(state)).await.unwrap();
            let hosts = mirror.hosts().await.unwrap();
            assert_eq!(hosts.get("h2"), Some(&kept));
        }
    }
}
