//! The store itself: what all hosts' links lead to.

use super::planted::Bug;
use super::trace::Trace;
use netloom_core::store::{
    CommitError, Committed, Conflict, Key, Operation, Transaction, Version, Versioned,
};
use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// A linearizable store that can lose its past.
#[derive(Debug)]
pub(crate) struct Ground {
    inner: Mutex<Inner>,
    trace: Option<Arc<Trace>>,
    bug: Option<Bug>,
}

#[derive(Debug, Clone)]
struct Row {
    value: Arc<[u8]>,
    version: u64,
}

type Rows = BTreeMap<Arc<Key>, Row>;

/// Keys and values that many stores hold: in memory once.
#[derive(Debug, Default)]
pub(crate) struct Common {
    keys: Mutex<HashSet<Arc<Key>>>,
    values: Mutex<HashSet<Arc<[u8]>>>,
}

#[derive(Debug, Default)]
struct Inner {
    rows: Rows,
    common: Option<Arc<Common>>,
    mark: u64,
    identity: String,
    /// Counts how often it lost its past.
    lives: u64,
    /// By directory.
    watches: BTreeMap<String, Vec<Arc<Bell>>>,
    work: Work,
}

/// What it was asked to do.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Work {
    pub(crate) reads: u64,
    /// That these reads found.
    pub(crate) rows: u64,
    pub(crate) commits: u64,
}

/// What the store held at some moment.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    rows: Rows,
    mark: u64,
}

/// How a watch is told.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    pub(crate) rung: Notify,
    pub(crate) broken: AtomicBool,
}

impl Ground {
    pub(crate) fn new(trace: Option<Arc<Trace>>, bug: Option<Bug>) -> Self {
        let inner = Inner {
            identity: "simulated-1".to_owned(),
            ..Inner::default()
        };
        Self {
            inner: Mutex::new(inner),
            trace,
            bug,
        }
    }

    /// An empty one of many that hold much the same.
    pub(crate) fn one_of_many(common: &Arc<Common>) -> Self {
        let ground = Self::new(None, None);
        ground.inner().common = Some(Arc::clone(common));
        ground
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn identity(&self) -> String {
        self.inner().identity.clone()
    }

    /// So far.
    pub(crate) fn work(&self) -> Work {
        self.inner().work
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Versioned> {
        let mut inner = self.inner();
        let found = inner.rows.get(key).map(Row::versioned);
        inner.work.read(usize::from(found.is_some()));
        found
    }

    pub(crate) fn list(&self, prefix: &Key) -> Vec<(Key, Versioned)> {
        let mut inner = self.inner();
        let after = inner
            .rows
            .range::<Key, _>((Bound::Excluded(prefix), Bound::Unbounded));
        let text = prefix.as_str();
        let found: Vec<_> = after
            .take_while(|(key, _)| key.as_str().starts_with(text))
            .filter(|(key, _)| key.is_below(prefix))
            .map(|(key, row)| (Key::clone(key), row.versioned()))
            .collect();
        inner.work.read(found.len());
        found
    }

    pub(crate) fn commit(
        &self,
        host: u64,
        transaction: Transaction,
    ) -> Result<Committed, CommitError> {
        let mut inner = self.inner();
        inner.work.commits += 1;
        let outcome = inner.apply(transaction, self.bug);
        if let Some(trace) = &self.trace {
            let (word, count) = match &outcome {
                Ok(committed) => ("committed", committed.versions.len()),
                Err(_) => ("refused", 0),
            };
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            trace.note(word, &[host, count, inner.mark], || match &outcome {
                Ok(committed) => {
                    let keys = committed.versions.iter().map(|(key, _)| key);
                    let told = keys.map(|key| inner.told(key)).collect::<Vec<_>>();
                    format!("h{host} {}", told.join(" "))
                }
                Err(error) => format!("h{host} {error}"),
            });
        }
        outcome
    }

    pub(crate) fn watch(&self, prefix: &Key) -> Arc<Bell> {
        let bell = Arc::new(Bell::default());
        let mut inner = self.inner();
        // Whoever watched and went away holds its bell no more.
        let bells = inner.watches.entry(prefix.to_string()).or_default();
        bells.retain(|bell| Arc::strong_count(bell) > 1);
        bells.push(Arc::clone(&bell));
        bell
    }

    /// All watches end: what happened meanwhile was compacted.
    pub(crate) fn break_watches(&self) {
        let mut inner = self.inner();
        for bell in std::mem::take(&mut inner.watches).into_values().flatten() {
            bell.broken.store(true, Ordering::Relaxed);
            bell.rung.notify_one();
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let inner = self.inner();
        Snapshot {
            rows: inner.rows.clone(),
            mark: inner.mark,
        }
    }

    /// Whose messages it takes: what is put back was stopped before, and its connections went with it.
    pub(crate) fn life(&self) -> u64 {
        self.inner().lives
    }

    /// Goes back; versions are used again, as by a store whose files were put back.
    pub(crate) fn restore(&self, snapshot: &Snapshot, identity: Option<&str>) {
        let mut inner = self.inner();
        inner.rows.clone_from(&snapshot.rows);
        inner.mark = snapshot.mark;
        inner.lives += 1;
        if let Some(identity) = identity {
            identity.clone_into(&mut inner.identity);
        }
        drop(inner);
        self.break_watches();
    }

    pub(crate) fn wipe(&self, identity: Option<&str>) {
        let empty = Snapshot {
            rows: Rows::new(),
            mark: 0,
        };
        self.restore(&empty, identity);
    }

    /// Bytes of a row, by a look that counts as no work.
    pub(crate) fn peek(&self, key: &str) -> Option<Vec<u8>> {
        let inner = self.inner();
        let key = Key::new(key).ok()?;
        inner.rows.get(&key).map(|row| row.value.to_vec())
    }

    /// All rows whose keys begin with `start`.
    pub(crate) fn rows(&self, start: &str) -> Vec<(Key, Vec<u8>)> {
        let inner = self.inner();
        let found = inner
            .rows
            .iter()
            .filter(|(key, _)| key.as_str().starts_with(start));
        found
            .map(|(key, row)| (Key::clone(key), row.value.to_vec()))
            .collect()
    }

    /// Changes a row behind everybody's back; none removes it.
    pub(crate) fn force(&self, key: &Key, value: Option<Vec<u8>>) {
        let mut inner = self.inner();
        inner.mark += 1;
        let version = inner.mark;
        match value {
            Some(value) => inner.put(key.clone(), value, version),
            None => drop(inner.rows.remove(key)),
        }
    }
}

impl Work {
    fn read(&mut self, rows: usize) {
        self.reads += 1;
        self.rows += u64::try_from(rows).unwrap_or(u64::MAX);
    }
}

impl Common {
    fn key(&self, key: Key) -> Arc<Key> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = keys.get(&key) {
            return Arc::clone(known);
        }
        let key = Arc::new(key);
        keys.insert(Arc::clone(&key));
        key
    }

    fn value(&self, value: Vec<u8>) -> Arc<[u8]> {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = values.get(&*value) {
            return Arc::clone(known);
        }
        let value: Arc<[u8]> = value.into();
        values.insert(Arc::clone(&value));
        value
    }
}

impl Row {
    fn versioned(&self) -> Versioned {
        Versioned {
            value: self.value.to_vec(),
            version: Version::from_bytes(self.version.to_le_bytes()),
        }
    }
}

impl Inner {
    /// A key for the story, and, of what hosts quarrel about, what stands there.
    fn told(&self, key: &Key) -> String {
        let name = key.as_str();
        let value = self.rows.get(key).map(|row| &row.value);
        match value.filter(|_| !name.starts_with("hosts/") && !name.starts_with("status/")) {
            Some(value) => format!("{name} = {}", String::from_utf8_lossy(value)),
            None => name.to_owned(),
        }
    }

    fn put(&mut self, key: Key, value: Vec<u8>, version: u64) {
        let (key, value) = match &self.common {
            None => (Arc::new(key), value.into()),
            Some(common) => (common.key(key), common.value(value)),
        };
        self.rows.insert(key, Row { value, version });
    }

    /// Tells who watches a directory that the key lies in.
    fn ring(&self, key: &Key) {
        let name = key.as_str();
        let parents = name
            .match_indices('/')
            .filter_map(|(end, _)| name.get(..end));
        for bell in parents
            .filter_map(|parent| self.watches.get(parent))
            .flatten()
        {
            bell.rung.notify_one();
        }
    }

    fn apply(
        &mut self,
        mut transaction: Transaction,
        bug: Option<Bug>,
    ) -> Result<Committed, CommitError> {
        if bug == Some(Bug::DroppedFences) {
            let is_fence = |operation: &Operation| {
                matches!(
                    operation,
                    Operation::CheckAbsent(_) | Operation::CheckVersion(..)
                )
            };
            transaction
                .operations
                .retain(|operation| !is_fence(operation));
        }
        let checked = match bug {
            Some(Bug::FirstCheckOnly) => 1,
            Some(Bug::NoVersionCheck) => 0,
            _ => usize::MAX,
        };
        for operation in transaction.operations.iter().take(checked) {
            let key = operation.key();
            check(operation, self.rows.get(key)).map_err(|conflict| CommitError::Conflict {
                key: key.clone(),
                conflict,
            })?;
        }
        self.mark += 1;
        let half = transaction.operations.len().div_ceil(2);
        let done = if bug == Some(Bug::HalfTransaction) {
            half
        } else {
            usize::MAX
        };
        let mut versions = Vec::new();
        for (place, operation) in transaction.operations.into_iter().enumerate() {
            let (key, value) = match operation {
                Operation::CheckAbsent(_) | Operation::CheckVersion(..) => continue,
                Operation::Create(key, value) | Operation::Update(key, value, _) => {
                    (key, Some(value))
                }
                Operation::Delete(key, _) => (key, None),
            };
            let version = self.mark;
            if value.is_some() {
                let version = Version::from_bytes(version.to_le_bytes());
                versions.push((key.clone(), version));
            }
            if place >= done {
                continue;
            }
            self.ring(&key);
            match value {
                Some(value) => self.put(key, value, version),
                None => drop(self.rows.remove(&key)),
            }
        }
        Ok(Committed { versions })
    }
}

fn check(operation: &Operation, row: Option<&Row>) -> Result<(), Conflict> {
    let has = |wanted: &Version| match row {
        None => Err(Conflict::Absent),
        Some(row) if wanted.as_bytes() == row.version.to_le_bytes() => Ok(()),
        Some(_) => Err(Conflict::VersionDiffers),
    };
    match (operation, row) {
        (Operation::CheckAbsent(_) | Operation::Create(..), None) => Ok(()),
        (Operation::CheckAbsent(_) | Operation::Create(..), Some(_)) => Err(Conflict::Exists),
        (Operation::CheckVersion(_, version), _)
        | (Operation::Update(_, _, version), _)
        | (Operation::Delete(_, version), _) => has(version),
    }
}
