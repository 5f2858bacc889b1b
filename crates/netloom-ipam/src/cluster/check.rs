//! Reading all of a store, for people: what is wrong with it, and what is in it.

use crate::chunk::Holder;
use crate::records::{
    AnswerRecord, ChunkRecord, EpochRecord, HealRecord, HostRecord, HostState, PoolRecord,
    PoolState, Record, ReferenceRecord, SpaceRecord, StatusRecord, WantRecord,
};
use crate::space::Keys;
use netloom_core::store::{Key, Store, StoreError, Versioned};
use netloom_types::Subnet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Something in a store that should not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The record.
    pub key: Key,
    /// What is wrong with it, as words that follow its name.
    pub what: String,
}

/// Directories of records that address management keeps.
pub(super) const DIRECTORIES: [&str; 8] = [
    "answers",
    "chunks",
    "hosts",
    "pools",
    "references",
    "spaces",
    "status",
    "wants",
];

/// Looks at all records of address management in a store: whether each can be read, and whether
/// they fit each other. What it reads is no snapshot: on a store that is in use, look twice before
/// a problem is believed that speaks of two records.
///
/// # Errors
/// When the store cannot be read.
pub async fn store_check(store: &dyn Store) -> Result<Vec<Problem>, StoreError> {
    let mut check = Check::default();
    for (key, row) in all_rows(store).await? {
        if let Err(what) = check.read(&key, &row.value) {
            check.problems.push(Problem { key, what });
        }
    }
    check.compare();
    check.problems.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(check.problems)
}

/// All records of address management in a store, by key; those that are no JSON as text.
///
/// # Errors
/// When the store cannot be read.
pub async fn store_dump(store: &dyn Store) -> Result<Vec<(Key, serde_json::Value)>, StoreError> {
    let rows = all_rows(store).await?.into_iter();
    let told = |(key, row): (Key, Versioned)| {
        let read = serde_json::from_slice(&row.value);
        let text = || String::from_utf8_lossy(&row.value).into_owned().into();
        (key, read.unwrap_or_else(|_| text()))
    };
    Ok(rows.map(told).collect())
}

async fn all_rows(store: &dyn Store) -> Result<Vec<(Key, Versioned)>, StoreError> {
    let mut rows = Vec::new();
    for key in [Keys::epoch(), Keys::heal()] {
        if let Some(row) = store.get(&key).await? {
            rows.push((key, row));
        }
    }
    for directory in DIRECTORIES {
        let directory = Key::new(directory).expect("it consists of small letters");
        rows.extend(store.list(&directory).await?);
    }
    Ok(rows)
}

/// A pool by the part of its key that names space and subnet.
type PoolName = String;

#[derive(Default)]
struct Check {
    epoch: Option<EpochRecord>,
    heal: Option<HealRecord>,
    hosts: BTreeMap<String, HostState>,
    pools: BTreeMap<PoolName, (Key, Subnet, PoolRecord)>,
    references: Vec<(Key, PoolName, ReferenceRecord)>,
    chunks: Vec<(Key, PoolName, ChunkRecord)>,
    problems: Vec<Problem>,
}

impl Check {
    /// Reads one record by the place that it has.
    fn read(&mut self, key: &Key, bytes: &[u8]) -> Result<(), String> {
        let parts: Vec<&str> = key.as_str().split('/').collect();
        match parts.as_slice() {
            ["epoch"] => self.epoch = Some(EpochRecord::decode(bytes)?),
            ["heal"] => self.heal = Some(HealRecord::decode(bytes)?),
            ["hosts", _] => {
                let record = HostRecord::decode(bytes)?;
                let host = Keys::host_in(key).ok_or("does not name a host")?;
                if !record.host.is_empty() && record.host != host {
                    return Err(format!("speaks of host {}", record.host));
                }
                self.hosts.insert(host, record.state);
            }
            ["pools", space, subnet] => {
                let record = PoolRecord::decode(bytes)?;
                let parsed = Keys::subnet_of(key).ok_or("does not name a subnet")?;
                let name = format!("{space}/{subnet}");
                self.pools.insert(name, (key.clone(), parsed, record));
            }
            ["references", space, subnet, _] => {
                Keys::nonce_of(key).ok_or("does not name a reference")?;
                let record = ReferenceRecord::decode(bytes)?;
                let name = format!("{space}/{subnet}");
                self.references.push((key.clone(), name, record));
            }
            ["chunks", space, subnet, _, _] => {
                Keys::chunk_of(key).ok_or("does not name a chunk")?;
                let record = ChunkRecord::decode(bytes)?;
                let name = format!("{space}/{subnet}");
                self.chunks.push((key.clone(), name, record));
            }
            ["spaces", _] => drop(SpaceRecord::decode(bytes)?),
            ["status", _] => drop(StatusRecord::decode(bytes)?),
            ["wants", ..] => drop(WantRecord::decode(bytes)?),
            ["answers", ..] => drop(AnswerRecord::decode(bytes)?),
            _ => return Err("is at a place where no record belongs".to_owned()),
        }
        Ok(())
    }

    fn compare(&mut self) {
        self.compare_epoch();
        self.compare_pools();
        let references = core::mem::take(&mut self.references);
        let mut named: BTreeMap<&str, BTreeSet<IpAddr>> = BTreeMap::new();
        for (_, pool, record) in &references {
            named.entry(pool).or_default().extend(&record.auxiliary);
        }
        for (key, pool, record) in &references {
            if let Err(what) = self.reference(pool, record) {
                self.problem(key, what);
            }
        }
        let chunks = core::mem::take(&mut self.chunks);
        for (key, pool, record) in &chunks {
            let auxiliary = named.get(pool.as_str());
            if let Err(what) = self.chunk(key, pool, record, auxiliary) {
                self.problem(key, what);
            }
        }
    }

    fn compare_epoch(&mut self) {
        match &self.epoch {
            None => self.problem(
                &Keys::epoch(),
                "is not there: the store was never initialised, or lost everything".to_owned(),
            ),
            Some(EpochRecord::Moved(to)) => {
                let what = format!("says that the store was left for {to}");
                self.problem(&Keys::epoch(), what);
            }
            Some(EpochRecord::Number(_)) => {}
        }
        let waiting = self.heal.as_ref().map(|heal| heal.waiting.join(", "));
        if let Some(waiting) = waiting.filter(|waiting| !waiting.is_empty()) {
            let what = format!("waits for hosts to say again what they own: {waiting}");
            self.problem(&Keys::heal(), what);
        }
    }

    /// No two pools of a space that are in use may overlap.
    fn compare_pools(&mut self) {
        let active = self
            .pools
            .iter()
            .filter(|(_, (_, _, record))| record.state == PoolState::Active);
        let mut all: Vec<(&str, Subnet, Key)> = active
            .filter_map(|(name, (key, subnet, _))| {
                let (space, _) = name.split_once('/')?;
                Some((space, *subnet, key.clone()))
            })
            .collect();
        all.sort_by_key(|(space, subnet, _)| {
            (space.to_owned(), subnet.first(), subnet.prefix_len())
        });
        let mut found = Vec::new();
        // In this order the first one that can overlap is a neighbour.
        for (a, b) in all.iter().zip(all.iter().skip(1)) {
            if a.0 == b.0 && a.1.overlaps(b.1) {
                found.push((b.2.clone(), format!("overlaps {}", a.1)));
            }
        }
        for (key, what) in found {
            self.problem(&key, what);
        }
    }

    fn reference(&self, pool: &str, record: &ReferenceRecord) -> Result<(), String> {
        match self.pools.get(pool) {
            Some((_, _, known)) if known.state == PoolState::Active => {}
            Some(_) => return Err("refers to a pool that was given up".to_owned()),
            None => return Err("refers to a pool that is not on record".to_owned()),
        }
        self.member(&record.host)
    }

    fn chunk(
        &self,
        key: &Key,
        pool: &str,
        record: &ChunkRecord,
        auxiliary: Option<&BTreeSet<IpAddr>>,
    ) -> Result<(), String> {
        let Some((_, subnet, known)) = self.pools.get(pool) else {
            return Err("belongs to a pool that is not on record".to_owned());
        };
        if record.generation > known.generation {
            return Err(format!(
                "is of life {} of its pool, which is in life {}",
                record.generation, known.generation
            ));
        }
        let chunk = record.chunk(record.generation)?;
        if record.generation < known.generation || known.state == PoolState::Released {
            return Ok(());
        }
        let number = Keys::chunk_of(key).unwrap_or_default();
        let owners: BTreeSet<&str> = chunk
            .runs()
            .iter()
            .filter_map(|run| run.holder.host())
            .collect();
        for owner in owners {
            self.member(owner)?;
        }
        let base = number.saturating_mul(u128::from(crate::chunk::CHUNK));
        if base >= subnet.size_saturating() {
            return Err(format!("lies outside of {subnet}"));
        }
        let runs = chunk.runs().iter();
        let mut own = runs
            .filter(|run| run.holder == Holder::Pool)
            .flat_map(|run| run.span.first..=run.span.last)
            .filter_map(|at| subnet.nth(base.saturating_add(u128::from(at))));
        let unnamed = own.find(|ip| {
            known.gateway != Some(*ip) && !auxiliary.is_some_and(|named| named.contains(ip))
        });
        match unnamed {
            Some(ip) => Err(format!(
                "keeps {ip}, which is neither the pool's gateway nor an auxiliary address: nobody \
                 gets it until all hosts removed their networks of {subnet}"
            )),
            None => Ok(()),
        }
    }

    fn member(&self, host: &str) -> Result<(), String> {
        match self.hosts.get(host) {
            Some(HostState::Member) => Ok(()),
            Some(HostState::Forgotten) => Err(format!(
                "names host {host}, which was forgotten; say `netloom host forget {host}` again"
            )),
            None => Err(format!("names host {host}, which is not on record")),
        }
    }

    fn problem(&mut self, key: &Key, what: String) {
        let key = key.clone();
        self.problems.push(Problem { key, what });
    }
}
