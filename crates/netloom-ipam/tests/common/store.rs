//! A store in memory that outlives the process under test and can misbehave.

use async_trait::async_trait;
use netloom_core::store::{
    CommitError, Committed, Conflict, Key, Operation, Store, StoreError, StoreIdentity,
    Transaction, Version, Versioned, Watch,
};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What happens to a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It happens, and nobody is told.
    UnknownDone,
    /// It does not happen, and nobody is told.
    UnknownLost,
    /// It happens, nobody is told, and the store is away from then on.
    DoneAndAway,
    /// It does not happen, nobody is told, and the store is away from then on.
    LostAndAway,
    /// It does not happen.
    Unavailable,
}

#[derive(Debug, Clone, Default)]
pub struct TestStore(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    values: BTreeMap<Key, (u64, Vec<u8>)>,
    version: u64,
    commits: u64,
    faults: VecDeque<Fault>,
    /// Commits before the faults begin.
    healthy: u64,
    /// Where it is kept, for tests whose process really dies.
    file: Option<PathBuf>,
    /// Whether it does not answer at all.
    away: bool,
    /// After so many more commits it is away.
    dies_after: Option<u64>,
    name: &'static str,
    after_commit: Hook,
    changes: tokio::sync::watch::Sender<u64>,
}

/// What is done right after a commit of these operations.
type AfterCommit = Box<dyn Fn(&[Operation]) + Send>;

#[derive(Default)]
struct Hook(Option<AfterCommit>);

impl core::fmt::Debug for Hook {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Hook").field(&self.0.is_some()).finish()
    }
}

/// What a store held at some moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    values: BTreeMap<Key, (u64, Vec<u8>)>,
    version: u64,
}

impl TestStore {
    /// A store that is kept in a file.
    pub fn in_file(path: &Path) -> Self {
        let mut inner = Inner {
            file: Some(path.to_owned()),
            ..Inner::default()
        };
        if let Ok(bytes) = std::fs::read(path) {
            let all: Vec<(String, u64, Vec<u8>)> = serde_json::from_slice(&bytes).unwrap();
            inner.version = all.iter().map(|(_, v, _)| *v).max().unwrap_or(0);
            let rows = all
                .into_iter()
                .map(|(k, v, b)| (Key::new(k).unwrap(), (v, b)));
            inner.values = rows.collect();
        }
        Self(Arc::new(Mutex::new(inner)))
    }

    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.0.lock().unwrap().faults.extend(faults);
    }

    /// As [`fail_next`](Self::fail_next), after so many commits.
    pub fn fail_after(&self, commits: u64, faults: impl IntoIterator<Item = Fault>) {
        self.fail_next(faults);
        self.0.lock().unwrap().healthy = commits;
    }

    pub fn clear_faults(&self) {
        self.0.lock().unwrap().faults.clear();
    }

    /// Commits that happened.
    pub fn commits(&self) -> u64 {
        self.0.lock().unwrap().commits
    }

    pub fn values(&self) -> Vec<(String, Vec<u8>)> {
        let inner = self.0.lock().unwrap();
        let value = |(key, (_, value)): (&Key, &(u64, Vec<u8>))| (key.to_string(), value.clone());
        inner.values.iter().map(value).collect()
    }

    /// Does this right after each commit, before whoever sent it hears of it.
    pub fn after_commit(&self, hook: impl Fn(&[Operation]) + Send + 'static) {
        self.0.lock().unwrap().after_commit = Hook(Some(Box::new(hook)));
    }

    /// From now on it answers nobody.
    pub fn go_away(&self) {
        self.0.lock().unwrap().away = true;
    }

    /// After so many more commits it answers nobody.
    pub fn die_after(&self, commits: u64) {
        let mut inner = self.0.lock().unwrap();
        inner.dies_after = Some(commits);
        inner.away |= commits == 0;
    }

    pub fn come_back(&self) {
        let mut inner = self.0.lock().unwrap();
        inner.away = false;
        inner.dies_after = None;
    }

    /// Its identity ends with this.
    pub fn call(&self, name: &'static str) {
        self.0.lock().unwrap().name = name;
    }

    pub fn snapshot(&self) -> Snapshot {
        let inner = self.0.lock().unwrap();
        Snapshot {
            values: inner.values.clone(),
            version: inner.version,
        }
    }

    /// Puts an older content back; versions go on, as they do in a store that is restored well.
    pub fn restore(&self, snapshot: &Snapshot) {
        self.0.lock().unwrap().values = snapshot.values.clone();
    }

    /// The same in a store whose versions come a second time.
    pub fn rewind(&self, snapshot: &Snapshot) {
        self.restore(snapshot);
        self.0.lock().unwrap().version = snapshot.version;
    }

    /// All is gone.
    pub fn wipe(&self) {
        self.0.lock().unwrap().values.clear();
    }

    fn answers(&self) -> Result<(), StoreError> {
        if self.0.lock().unwrap().away {
            return Err(StoreError::Unavailable(None));
        }
        Ok(())
    }

    pub fn put(&self, key: &str, value: Vec<u8>) {
        let mut inner = self.0.lock().unwrap();
        inner.version += 1;
        let version = inner.version;
        inner
            .values
            .insert(Key::new(key).unwrap(), (version, value));
    }
}

impl Inner {
    fn check(&self, operation: &Operation) -> Result<(), CommitError> {
        let key = operation.key();
        let found = self.values.get(key).map(|(v, _)| *v);
        let conflict = match operation {
            Operation::CheckAbsent(_) | Operation::Create(..) => found.map(|_| Conflict::Exists),
            Operation::CheckVersion(_, version)
            | Operation::Update(_, _, version)
            | Operation::Delete(_, version) => match found {
                None => Some(Conflict::Absent),
                Some(found) if version.as_bytes() != found.to_be_bytes() => {
                    Some(Conflict::VersionDiffers)
                }
                Some(_) => None,
            },
        };
        let key = key.clone();
        conflict.map_or(Ok(()), |conflict| {
            Err(CommitError::Conflict { key, conflict })
        })
    }

    fn apply(&mut self, transaction: Transaction) -> Result<Committed, CommitError> {
        transaction.validate()?;
        for operation in &transaction.operations {
            self.check(operation)?;
        }
        self.commits += 1;
        if let Hook(Some(hook)) = &self.after_commit {
            hook(&transaction.operations);
        }
        if let Some(left) = &mut self.dies_after {
            *left = left.saturating_sub(1);
            self.away |= *left == 0;
        }
        let mut versions = Vec::new();
        for operation in transaction.operations {
            self.version += 1;
            match operation {
                Operation::Create(key, value) | Operation::Update(key, value, _) => {
                    let version = Version::from_bytes(self.version.to_be_bytes());
                    versions.push((key.clone(), version));
                    self.values.insert(key, (self.version, value));
                }
                Operation::Delete(key, _) => {
                    self.values.remove(&key);
                }
                Operation::CheckAbsent(_) | Operation::CheckVersion(..) => {}
            }
        }
        self.keep();
        self.changes.send_modify(|count| *count += 1);
        Ok(Committed { versions })
    }

    fn keep(&self) {
        let Some(path) = &self.file else { return };
        let rows = self.values.iter();
        let rows: Vec<_> = rows.map(|(k, (v, b))| (k.as_str(), *v, b)).collect();
        let temporary = path.with_extension("tmp");
        std::fs::write(&temporary, serde_json::to_vec(&rows).unwrap()).unwrap();
        std::fs::rename(temporary, path).unwrap();
    }
}

fn versioned((version, value): &(u64, Vec<u8>)) -> Versioned {
    Versioned {
        value: value.clone(),
        version: Version::from_bytes(version.to_be_bytes()),
    }
}

#[async_trait]
impl Store for TestStore {
    async fn identity(&self) -> Result<StoreIdentity, StoreError> {
        self.answers()?;
        let name = &self.0.lock().unwrap().name;
        Ok(StoreIdentity(format!("test{name}")))
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        self.answers()?;
        Ok(self.0.lock().unwrap().values.get(key).map(versioned))
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<(Key, Versioned)>, StoreError> {
        self.answers()?;
        let inner = self.0.lock().unwrap();
        let below = inner.values.iter().filter(|(key, _)| key.is_below(prefix));
        Ok(below.map(|(k, v)| (k.clone(), versioned(v))).collect())
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        if self.answers().is_err() {
            return Err(CommitError::Unavailable(None));
        }
        let mut inner = self.0.lock().unwrap();
        if inner.healthy > 0 {
            inner.healthy -= 1;
            return inner.apply(transaction);
        }
        match inner.faults.pop_front() {
            None => inner.apply(transaction),
            Some(Fault::UnknownDone) => {
                inner.apply(transaction)?;
                Err(CommitError::Unknown(None))
            }
            Some(Fault::DoneAndAway) => {
                inner.apply(transaction)?;
                inner.away = true;
                Err(CommitError::Unknown(None))
            }
            Some(Fault::LostAndAway) => {
                inner.away = true;
                Err(CommitError::Unknown(None))
            }
            Some(Fault::UnknownLost) => Err(CommitError::Unknown(None)),
            Some(Fault::Unavailable) => Err(CommitError::Unavailable(None)),
        }
    }

    async fn watch(&self, _: &Key) -> Result<Box<dyn Watch>, StoreError> {
        self.answers()?;
        let changes = self.0.lock().unwrap().changes.subscribe();
        Ok(Box::new(TestWatch(changes)))
    }
}

/// Wakes at every change, wherever it is.
struct TestWatch(tokio::sync::watch::Receiver<u64>);

#[async_trait]
impl Watch for TestWatch {
    async fn changed(&mut self) -> Result<(), StoreError> {
        let lost = |_| StoreError::Unavailable(None);
        self.0.changed().await.map_err(lost)
    }
}
