//! The store contract as tests, for every backend, those of other crates included.
//!
//! A backend's own test makes a [`Suite`] from a factory of fresh stores and asks for the verdict:
//!
//! ```
//! use netloom_store::{MemoryStore, conformance::Suite};
//! use std::sync::Arc;
//!
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
//! let suite = Suite::new(|| async { Arc::new(MemoryStore::new()) as _ });
//! let violations = suite.run().await;
//! assert!(violations.is_empty(), "{violations:#?}");
//! # });
//! ```
//!
//! Each case gets a store of its own from the factory: an empty one, or an unused directory of a
//! shared server (then through a [`PrefixStore`](crate::PrefixStore)). A case that meets an error
//! that the contract does not foresee (`Unavailable`, say) reports it as a violation: the verdict
//! is about a store that works. The suite needs tokio's clock, and several threads to find races.

mod basics;
mod concurrency;
mod listing;
mod model;
mod transactions;
mod watching;

use netloom_core::store::{
    CommitError, Committed, Conflict, KEY_BYTES_MAX, Key, Operation, Store, StoreError,
    TRANSACTION_OPS_MAX, Transaction, Version, Versioned,
};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// How long a case may take before it counts as hung: far above what any healthy store needs.
const CASE_TIME_MAX: Duration = Duration::from_secs(120);
/// How long a watch may keep silent about a change. No figure of the contract: a hang made visible.
const WATCH_TIME_MAX: Duration = Duration::from_secs(30);
/// The seed of the random operations when none is given.
const SEED: u64 = 20;

/// A promise of the contract that a store did not keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The case that found it.
    pub case: &'static str,
    /// What was expected, and what came.
    pub what: String,
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Factory = Box<dyn Fn() -> Boxed<Arc<dyn Store>> + Send + Sync>;

/// The whole contract, to be run against fresh stores of one kind.
pub struct Suite {
    factory: Factory,
    limits: Limits,
    watch_time: Duration,
    seed: u64,
}

/// What a wrapper leaves of the contract's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the longest key; [`KEY_BYTES_MAX`] for a backend.
    pub key_bytes: usize,
    /// Operations in one transaction; [`TRANSACTION_OPS_MAX`] for a backend.
    pub operations: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_bytes: KEY_BYTES_MAX,
            operations: TRANSACTION_OPS_MAX,
        }
    }
}

impl core::fmt::Debug for Suite {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Suite")
            .field("limits", &self.limits)
            .field("watch_time", &self.watch_time)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

/// What every case gets.
#[derive(Debug, Clone)]
struct Subject {
    store: Arc<dyn Store>,
    limits: Limits,
    watch_time: Duration,
    seed: u64,
}

type Case = (&'static str, fn(Subject) -> Boxed<Verdict>);
type Verdict = Result<(), String>;

/// A row of the list of cases: the function's name is the case's name.
macro_rules! cases {
    ($($module:ident :: $name:ident),* $(,)?) => {
        const CASES: &[Case] = &[$((
            stringify!($name),
            |subject| Box::pin($module::$name(subject)),
        )),*];
    };
}

cases![
    basics::identity_stays,
    basics::a_created_value_is_read_back,
    basics::creating_twice_is_refused_as_existing,
    basics::updating_demands_the_version,
    basics::deleting_demands_the_version,
    basics::an_old_version_never_comes_back,
    basics::every_change_makes_a_new_version,
    basics::values_are_bytes_of_any_kind_and_size,
    basics::keys_of_every_legal_form_are_kept_apart,
    basics::a_commit_is_seen_by_every_later_read,
    transactions::checks_alone_change_nothing,
    transactions::checks_guard_the_rest,
    transactions::all_operations_happen_or_none,
    transactions::versions_are_told_in_the_order_of_operations,
    transactions::limits_are_refused_before_anything_happens,
    transactions::the_largest_transaction_is_accepted,
    listing::a_list_is_ordered_and_stays_below_its_prefix,
    listing::a_list_shows_values_and_versions,
    listing::a_list_of_many_keys_is_whole,
    concurrency::counters_lose_no_increment,
    concurrency::one_of_many_creators_wins,
    concurrency::moves_between_two_keys_keep_the_sum,
    watching::a_watch_tells_of_every_kind_of_change,
    watching::listing_after_every_wake_converges,
    watching::a_change_between_watch_and_list_is_told,
    watching::a_watch_hears_of_deep_keys,
    model::random_operations_agree_with_a_map,
];

impl Suite {
    /// The suite for the stores that `factory` makes.
    pub fn new<F, Fut>(factory: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Arc<dyn Store>> + Send + 'static,
    {
        Self {
            factory: Box::new(move || Box::pin(factory())),
            limits: Limits::default(),
            watch_time: WATCH_TIME_MAX,
            seed: SEED,
        }
    }

    /// For a wrapper that needs a share of the limits for itself.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Calls a watch silent after this time, instead of 30 seconds.
    #[must_use]
    pub fn with_watch_time(mut self, time: Duration) -> Self {
        self.watch_time = time;
        self
    }

    /// Draws the random operations from another seed. Violations name the seed.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The names of all cases.
    #[must_use]
    pub fn cases() -> Vec<&'static str> {
        CASES.iter().map(|(name, _)| *name).collect()
    }

    /// Runs all cases, one after the other, and returns what they found: nothing for a store that
    /// keeps the contract.
    pub async fn run(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        for (case, check) in CASES {
            let subject = Subject {
                store: (self.factory)().await,
                limits: self.limits,
                watch_time: self.watch_time,
                seed: self.seed,
            };
            // A task of its own: a store that panics fails the case, not the suite.
            let task = tokio::spawn(check(subject));
            let what = match tokio::time::timeout(CASE_TIME_MAX, task).await {
                Ok(Ok(Ok(()))) => continue,
                Ok(Ok(Err(what))) => what,
                Ok(Err(panicked)) => panicked.to_string(),
                Err(_) => format!("it did not end within {CASE_TIME_MAX:?}"),
            };
            violations.push(Violation { case, what });
        }
        violations
    }
}

/// What the cases say, in few words.
impl Subject {
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, String> {
        self.store.get(key).await.map_err(|error| broke(&error))
    }

    /// The value of a key that must exist.
    async fn row(&self, key: &Key) -> Result<Versioned, String> {
        let row = self.get(key).await?;
        row.ok_or_else(|| format!("{key} is gone"))
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<(Key, Versioned)>, String> {
        self.store.list(prefix).await.map_err(|error| broke(&error))
    }

    async fn try_commit(
        &self,
        operations: impl IntoIterator<Item = Operation>,
    ) -> Result<Committed, CommitError> {
        self.store.commit(Transaction::new(operations)).await
    }

    /// A commit that must happen.
    async fn commit(
        &self,
        operations: impl IntoIterator<Item = Operation>,
    ) -> Result<Committed, String> {
        let outcome = self.try_commit(operations).await;
        outcome.map_err(|error| format!("a commit failed: {error:?}"))
    }

    /// A commit of one write that must happen.
    async fn write(&self, operation: Operation) -> Result<Version, String> {
        let committed = self.commit([operation]).await?;
        match committed.versions.as_slice() {
            [(_, version)] => Ok(version.clone()),
            other => Err(format!("one write returned the versions {other:?}")),
        }
    }

    /// A commit that must end in this conflict, over this key.
    async fn conflicts(
        &self,
        operations: impl IntoIterator<Item = Operation>,
        on: &Key,
        wanted: Conflict,
    ) -> Verdict {
        let operations: Vec<_> = operations.into_iter().collect();
        let what = format!("{operations:?}");
        let what = what.get(..300).unwrap_or(&what);
        match self.try_commit(operations).await {
            Err(CommitError::Conflict { key, conflict }) if conflict == wanted && key == *on => {
                Ok(())
            }
            other => Err(format!(
                "{what}: expected {wanted:?} on {on}, got {other:?}"
            )),
        }
    }
}

fn broke(error: &StoreError) -> String {
    format!("a read failed: {error:?}")
}

fn key(text: &str) -> Result<Key, String> {
    Key::new(text).map_err(|error| error.to_string())
}

#[allow(
    clippy::fn_params_excessive_bools,
    reason = "an assertion takes what it asserts"
)]
fn expect(holds: bool, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(what()) }
}
