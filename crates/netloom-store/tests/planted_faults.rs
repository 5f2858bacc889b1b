//! The conformance suite can fail: each way in which a store may break the contract is planted
//! into a small store, and must be found.
#![allow(clippy::unwrap_used, reason = "a test may stop at any error")]

use async_trait::async_trait;
use netloom_core::store::{
    CommitError, Committed, Conflict, Key, Operation, Store, StoreError, StoreIdentity,
    Transaction, Version, Versioned, Watch,
};
use netloom_store::conformance::Suite;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

macro_rules! planted {
    ($($name:ident,)*) => {
        /// What is broken in a store.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        enum Planted {
            /// Nothing: the store itself must pass, or its findings prove nothing.
            Nothing,
            $($name,)*
        }

        const ALL: &[Planted] = &[$(Planted::$name,)*];
    };
}

planted! {
    IdentityChanges,
    CreateIsLost,
    CreateOverwrites,
    CreateOfEqualValueSucceeds,
    UpdateIgnoresVersion,
    UpdateCreates,
    DeleteIgnoresVersion,
    DeleteIsLost,
    DeleteOfAbsentSucceeds,
    ExistsIsCalledVersionDiffers,
    AbsentIsCalledVersionDiffers,
    CheckAbsentIgnored,
    CheckVersionIgnored,
    ChecksBumpVersions,
    VersionsRestartAfterDelete,
    VersionIsHashOfValue,
    UpdateKeepsVersion,
    HalfTransactions,
    ChecksReadAfterWrites,
    NotAtomicAgainstOthers,
    OperationsCommitOneByOne,
    VersionsOutOfOrder,
    VersionsOnlyOfFirstKey,
    LimitsNotChecked,
    ValuesCutAt64000,
    ValuesMustBeUtf8,
    EmptyValueIsAbsent,
    KeysIgnoreCaseOfDots,
    ListIncludesItself,
    ListTakesSiblings,
    ListStopsAtOneLevel,
    ListUnordered,
    ListPageOf500,
    ListShowsOldVersions,
    ReadsAreStale,
    WatchSilentOnDelete,
    WatchSilentOnUpdate,
    WatchOnlyFirstChange,
    WatchHearsOnlyFirstKey,
    WatchBeforeTheChange,
    WatchIgnoresDeepKeys,
    ConflictNamesAnotherKey,
    WatchOneChangeBehind,
}

use Planted as P;

type Rows = BTreeMap<Key, Versioned>;

/// The smallest store that keeps the contract, but for what is planted.
#[derive(Debug)]
struct Broken {
    planted: Planted,
    rows: Mutex<Rows>,
    before: Mutex<Rows>,
    commits: AtomicU64,
    lists: AtomicU64,
    untold: Mutex<Vec<Operation>>,
    watches: Mutex<Vec<(Key, watch::Sender<u64>)>>,
}

impl Broken {
    fn new(planted: Planted) -> Self {
        Self {
            planted,
            rows: Mutex::default(),
            before: Mutex::default(),
            commits: AtomicU64::new(0),
            lists: AtomicU64::new(0),
            untold: Mutex::default(),
            watches: Mutex::default(),
        }
    }

    fn is(&self, planted: Planted) -> bool {
        self.planted == planted
    }

    fn key(&self, key: &Key) -> Key {
        if self.is(P::KeysIgnoreCaseOfDots) {
            return Key::new(key.as_str().replace("a.", "a-")).unwrap();
        }
        key.clone()
    }

    fn check(&self, rows: &Rows, operation: &Operation) -> Result<(), Conflict> {
        let row = rows.get(&self.key(operation.key()));
        let exists = if self.is(P::ExistsIsCalledVersionDiffers) {
            Conflict::VersionDiffers
        } else {
            Conflict::Exists
        };
        let absent = if self.is(P::AbsentIsCalledVersionDiffers) {
            Conflict::VersionDiffers
        } else {
            Conflict::Absent
        };
        match (operation, row) {
            (Operation::CheckAbsent(_), Some(_)) if self.is(P::CheckAbsentIgnored) => Ok(()),
            (Operation::Create(..), Some(_)) if self.is(P::CreateOverwrites) => Ok(()),
            (Operation::Create(_, value), Some(row))
                if self.is(P::CreateOfEqualValueSucceeds) && row.value == *value =>
            {
                Ok(())
            }
            (Operation::CheckAbsent(_) | Operation::Create(..), Some(_)) => Err(exists),
            (Operation::CheckAbsent(_) | Operation::Create(..), None) => Ok(()),
            (Operation::Update(..), None) if self.is(P::UpdateCreates) => Ok(()),
            (Operation::Delete(..), None) if self.is(P::DeleteOfAbsentSucceeds) => Ok(()),
            (_, None) => Err(absent),
            (Operation::CheckVersion(..), _) if self.is(P::CheckVersionIgnored) => Ok(()),
            (Operation::Update(..), _) if self.is(P::UpdateIgnoresVersion) => Ok(()),
            (Operation::Delete(..), _) if self.is(P::DeleteIgnoresVersion) => Ok(()),
            (
                Operation::CheckVersion(_, wanted)
                | Operation::Update(_, _, wanted)
                | Operation::Delete(_, wanted),
                Some(row),
            ) => (row.version == *wanted)
                .then_some(())
                .ok_or(Conflict::VersionDiffers),
        }
    }

    fn version(&self, old: Option<&Versioned>, value: &[u8], commit: u64) -> Version {
        let counted = |n: u64| Version::from_bytes(n.to_be_bytes());
        match self.planted {
            P::VersionsRestartAfterDelete => counted(old.map_or(0, |row| {
                u64::from_be_bytes(row.version.as_bytes().try_into().unwrap()) + 1
            })),
            P::VersionIsHashOfValue => Version::from_bytes(value),
            P::UpdateKeepsVersion => old.map_or(counted(commit), |row| row.version.clone()),
            _ => counted(commit),
        }
    }

    fn keep(&self, value: &[u8]) -> Vec<u8> {
        match self.planted {
            P::ValuesCutAt64000 => value.iter().copied().take(64_000).collect(),
            P::ValuesMustBeUtf8 => String::from_utf8_lossy(value).into_owned().into_bytes(),
            _ => value.to_vec(),
        }
    }

    fn apply(&self, rows: &mut Rows, operation: &Operation, commit: u64) -> Option<Version> {
        let key = self.key(operation.key());
        match operation {
            Operation::CheckAbsent(_) => None,
            Operation::CheckVersion(..) => {
                if self.is(P::ChecksBumpVersions) {
                    let row = rows.get_mut(&key)?;
                    row.version = Version::from_bytes(commit.to_be_bytes());
                }
                None
            }
            Operation::Create(_, value) | Operation::Update(_, value, _) => {
                let version = self.version(rows.get(&key), value, commit);
                let value = self.keep(value);
                let row = Versioned {
                    value,
                    version: version.clone(),
                };
                let created = matches!(operation, Operation::Create(..));
                if !(created && self.is(P::CreateIsLost)) {
                    rows.insert(key, row);
                }
                Some(version)
            }
            Operation::Delete(..) => {
                if !self.is(P::DeleteIsLost) {
                    rows.remove(&key);
                }
                None
            }
        }
    }

    fn conflict(
        &self,
        operations: &[Operation],
        at: &Operation,
        conflict: Conflict,
    ) -> CommitError {
        let named = match self.planted {
            P::ConflictNamesAnotherKey => operations.first().unwrap_or(at),
            _ => at,
        };
        CommitError::Conflict {
            key: named.key().clone(),
            conflict,
        }
    }

    fn in_one_step(
        &self,
        operations: &[Operation],
        commit: u64,
    ) -> Result<Vec<(Key, Version)>, CommitError> {
        let mut rows = self.rows.lock().unwrap();
        let mut changed = rows.clone();
        let mut versions = Vec::new();
        for operation in operations {
            let seen = if self.is(P::ChecksReadAfterWrites) && operations.len() > 1 {
                // The guard is only looked at when something else was looked at before.
                operations.first() == Some(operation)
            } else {
                true
            };
            if let (true, Err(conflict)) = (seen, self.check(&rows, operation)) {
                if self.is(P::HalfTransactions) {
                    *rows = changed;
                }
                return Err(self.conflict(operations, operation, conflict));
            }
            if let Some(version) = self.apply(&mut changed, operation, commit) {
                versions.push((operation.key().clone(), version));
            }
        }
        *self.before.lock().unwrap() = std::mem::replace(&mut *rows, changed);
        Ok(versions)
    }

    /// Looks first and writes later, as a store without transactions would.
    async fn in_two_steps(
        &self,
        operations: &[Operation],
        commit: u64,
    ) -> Result<Vec<(Key, Version)>, CommitError> {
        let seen = self.rows.lock().unwrap().clone();
        for operation in operations {
            self.check(&seen, operation)
                .map_err(|conflict| self.conflict(operations, operation, conflict))?;
        }
        tokio::task::yield_now().await;
        let mut rows = self.rows.lock().unwrap();
        let written = operations.iter().filter_map(|operation| {
            let version = self.apply(&mut rows, operation, commit)?;
            Some((operation.key().clone(), version))
        });
        Ok(written.collect())
    }

    /// Each operation is safe by itself, but others come in between.
    async fn one_by_one(
        &self,
        operations: &[Operation],
        commit: u64,
    ) -> Result<Vec<(Key, Version)>, CommitError> {
        let check = |rows: &Rows, operation: &Operation| {
            self.check(rows, operation)
                .map_err(|conflict| self.conflict(operations, operation, conflict))
        };
        for operation in operations {
            check(&self.rows.lock().unwrap(), operation)?;
        }
        let mut versions = Vec::new();
        for operation in operations {
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
            let mut rows = self.rows.lock().unwrap();
            check(&rows, operation)?;
            if let Some(version) = self.apply(&mut rows, operation, commit) {
                versions.push((operation.key().clone(), version));
            }
        }
        Ok(versions)
    }

    fn tell(&self, operations: &[Operation]) {
        let changing = operations.iter().filter(|operation| match operation {
            Operation::CheckAbsent(_) | Operation::CheckVersion(..) => false,
            Operation::Create(..) => true,
            Operation::Update(..) => !self.is(P::WatchSilentOnUpdate),
            Operation::Delete(..) => !self.is(P::WatchSilentOnDelete),
        });
        let limit = if self.is(P::WatchHearsOnlyFirstKey) {
            1
        } else {
            usize::MAX
        };
        for operation in changing.take(limit) {
            for (prefix, sender) in self.watches.lock().unwrap().iter() {
                let key = operation.key();
                let deep =
                    key.as_str().matches('/').count() > prefix.as_str().matches('/').count() + 1;
                let deaf = (self.is(P::WatchIgnoresDeepKeys) && deep)
                    || (self.is(P::WatchOnlyFirstChange) && *sender.borrow() > 0);
                if key.is_below(prefix) && !deaf {
                    sender.send_modify(|count| *count += 1);
                }
            }
        }
    }
}

#[async_trait]
impl Store for Broken {
    async fn identity(&self) -> Result<StoreIdentity, StoreError> {
        let commits = self.commits.load(Ordering::SeqCst);
        let text = if self.is(P::IdentityChanges) {
            commits
        } else {
            0
        };
        Ok(StoreIdentity(text.to_string()))
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        let commits = self.commits.load(Ordering::SeqCst);
        // Every 16th commit is seen late.
        let stale = self.is(P::ReadsAreStale) && commits.is_multiple_of(16);
        let rows = if stale { &self.before } else { &self.rows };
        let row = rows.lock().unwrap().get(&self.key(key)).cloned();
        Ok(row.filter(|row| !self.is(P::EmptyValueIsAbsent) || !row.value.is_empty()))
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<(Key, Versioned)>, StoreError> {
        let shown = |key: &Key| match self.planted {
            P::ListIncludesItself => key == prefix || key.is_below(prefix),
            P::ListTakesSiblings => key != prefix && key.as_str().starts_with(prefix.as_str()),
            P::ListStopsAtOneLevel => {
                let rest = key
                    .as_str()
                    .strip_prefix(prefix.as_str())
                    .unwrap_or_default();
                key.is_below(prefix) && rest.matches('/').count() == 1
            }
            _ => key.is_below(prefix),
        };
        self.lists.fetch_add(1, Ordering::SeqCst);
        let rows = self.rows.lock().unwrap();
        let mut listed: Vec<_> = rows
            .iter()
            .filter(|(key, _)| shown(key))
            .map(|(key, row)| (key.clone(), row.clone()))
            .collect();
        match self.planted {
            P::ListUnordered => listed.reverse(),
            P::ListPageOf500 => listed.truncate(500),
            P::ListShowsOldVersions => {
                for (_, row) in &mut listed {
                    row.version = Version::from_bytes(*b"old");
                }
            }
            _ => {}
        }
        Ok(listed)
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        if !self.is(P::LimitsNotChecked) {
            transaction.validate()?;
        }
        let commit = self.commits.fetch_add(1, Ordering::SeqCst) + 1;
        let operations = &transaction.operations;
        if self.is(P::WatchBeforeTheChange) && !self.watches.lock().unwrap().is_empty() {
            self.tell(operations);
            // The watcher wakes, lists, and finds nothing; or is too slow for this time.
            let lists = || self.lists.load(Ordering::SeqCst);
            let before = lists();
            for _ in 0..2_000 {
                if lists() > before {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        let mut versions = match self.planted {
            P::NotAtomicAgainstOthers => self.in_two_steps(operations, commit).await?,
            P::OperationsCommitOneByOne => self.one_by_one(operations, commit).await?,
            _ => self.in_one_step(operations, commit)?,
        };
        match self.planted {
            P::WatchBeforeTheChange => {}
            P::WatchOneChangeBehind => {
                let last = operations.clone();
                let earlier = std::mem::replace(&mut *self.untold.lock().unwrap(), last);
                self.tell(&earlier);
            }
            _ => self.tell(operations),
        }
        match self.planted {
            P::VersionsOutOfOrder => versions.sort_by(|a, b| a.0.cmp(&b.0)),
            P::VersionsOnlyOfFirstKey => versions.truncate(1),
            _ => {}
        }
        Ok(Committed { versions })
    }

    async fn watch(&self, prefix: &Key) -> Result<Box<dyn Watch>, StoreError> {
        let (sender, receiver) = watch::channel(0);
        let mut watches = self.watches.lock().unwrap();
        watches.push((prefix.clone(), sender));
        Ok(Box::new(BrokenWatch(receiver)))
    }
}

struct BrokenWatch(watch::Receiver<u64>);

#[async_trait]
impl Watch for BrokenWatch {
    async fn changed(&mut self) -> Result<(), StoreError> {
        let changed = self.0.changed().await;
        changed.map_err(|_| StoreError::Unavailable(None))
    }
}

fn suite(planted: Planted) -> Suite {
    // A silent watch is found by waiting; half a second is as good as half a minute here, where
    // the other stores of this file wake at once.
    Suite::new(move || std::future::ready(Arc::new(Broken::new(planted)) as _))
        .with_watch_time(std::time::Duration::from_millis(500))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_in_which_faults_are_planted_is_sound_without_one() {
    let violations = suite(P::Nothing).run().await;
    assert!(violations.is_empty(), "{violations:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_planted_fault_is_found_and_every_case_finds_one() {
    let mut missed = Vec::new();
    let mut idle = Suite::cases();
    for planted in ALL.iter().copied() {
        let violations = suite(planted).run().await;
        let cases: Vec<_> = violations.iter().map(|violation| violation.case).collect();
        println!("{planted:?}: {}", cases.join(", "));
        idle.retain(|case| !cases.contains(case));
        if violations.is_empty() {
            missed.push(planted);
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
    assert!(
        idle.is_empty(),
        "no planted fault makes these fail: {idle:?}"
    );
}
