//! A store that fails on purpose.

use crate::random::Random;
use async_trait::async_trait;
use netloom_core::store::{
    CommitError, Committed, Key, Store, StoreError, StoreIdentity, Transaction, Versioned, Watch,
};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What may go wrong with one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The store is away: nothing happens.
    Unavailable,
    /// The outcome is unknown, and nothing happened. A read is unavailable.
    UnknownBefore,
    /// The outcome is unknown, and it happened. A read is unavailable.
    UnknownAfter,
    /// The store forbids it: nothing happens.
    Denied,
    /// The answer comes later, by tokio's clock: a test that pauses that clock waits for nothing.
    Delayed(Duration),
}

/// How often each fault comes, in calls of a thousand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultRates {
    /// [`Fault::Unavailable`].
    pub unavailable: u16,
    /// [`Fault::UnknownBefore`].
    pub unknown_before: u16,
    /// [`Fault::UnknownAfter`].
    pub unknown_after: u16,
    /// [`Fault::Denied`].
    pub denied: u16,
    /// [`Fault::Delayed`], by up to [`DELAY_MAX`].
    pub delayed: u16,
}

/// The longest delay that comes from [`FaultRates::delayed`]: longer than the deadline of any call
/// of Netloom, so that deadlines are tried too.
pub const DELAY_MAX: Duration = Duration::from_secs(30);

/// Another store with faults, drawn from a seed or ordered one by one.
#[derive(Debug)]
pub struct FaultStore {
    inner: Arc<dyn Store>,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Debug)]
struct Plan {
    random: Random,
    rates: FaultRates,
    ordered: VecDeque<Fault>,
}

impl FaultStore {
    /// Puts faults before `inner`. The same seed and calls give the same faults.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, rates: FaultRates, seed: u64) -> Self {
        Self {
            inner,
            plan: Arc::new(Mutex::new(Plan {
                random: Random::new(seed),
                rates,
                ordered: VecDeque::new(),
            })),
        }
    }

    /// From now on, faults come at these rates; at zero rates the store is healthy.
    pub fn set_rates(&self, rates: FaultRates) {
        lock(&self.plan).rates = rates;
    }

    /// The next call meets this fault, and the calls after it those that were ordered after.
    pub fn order(&self, fault: Fault) {
        lock(&self.plan).ordered.push_back(fault);
    }

    async fn read_fault(&self) -> Result<(), StoreError> {
        let fault = draw(&self.plan);
        meet_read(fault).await
    }
}

fn lock(plan: &Mutex<Plan>) -> MutexGuard<'_, Plan> {
    // The plan is whole between any two statements.
    plan.lock().unwrap_or_else(PoisonError::into_inner)
}

fn draw(plan: &Mutex<Plan>) -> Option<Fault> {
    let mut plan = lock(plan);
    if let Some(fault) = plan.ordered.pop_front() {
        return Some(fault);
    }
    let millis = u64::try_from(DELAY_MAX.as_millis()).unwrap_or(u64::MAX);
    let delay = Duration::from_millis(plan.random.next() % millis);
    let FaultRates {
        unavailable,
        unknown_before,
        unknown_after,
        denied,
        delayed,
    } = plan.rates;
    let mut drawn = plan.random.below(1000);
    for (rate, fault) in [
        (unavailable, Fault::Unavailable),
        (unknown_before, Fault::UnknownBefore),
        (unknown_after, Fault::UnknownAfter),
        (denied, Fault::Denied),
        (delayed, Fault::Delayed(delay)),
    ] {
        match drawn.checked_sub(usize::from(rate)) {
            Some(rest) => drawn = rest,
            None => return Some(fault),
        }
    }
    None
}

const INJECTED: &str = "a fault was injected here";

async fn meet_read(fault: Option<Fault>) -> Result<(), StoreError> {
    match fault {
        None => Ok(()),
        Some(Fault::Delayed(delay)) => {
            tokio::time::sleep(delay).await;
            Ok(())
        }
        Some(Fault::Denied) => Err(StoreError::Denied(INJECTED.into())),
        Some(Fault::Unavailable | Fault::UnknownBefore | Fault::UnknownAfter) => {
            Err(StoreError::Unavailable(Some(INJECTED.into())))
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for FaultStore {
    async fn identity(&self) -> Result<StoreIdentity, StoreError> {
        self.read_fault().await?;
        self.inner.identity().await
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        self.read_fault().await?;
        self.inner.get(key).await
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<(Key, Versioned)>, StoreError> {
        self.read_fault().await?;
        self.inner.list(prefix).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        let fault = draw(&self.plan);
        match fault {
            None => self.inner.commit(transaction).await,
            Some(Fault::Delayed(delay)) => {
                tokio::time::sleep(delay).await;
                self.inner.commit(transaction).await
            }
            Some(Fault::Unavailable) => Err(CommitError::Unavailable(Some(INJECTED.into()))),
            Some(Fault::Denied) => Err(CommitError::Denied(INJECTED.into())),
            Some(Fault::UnknownBefore) => Err(CommitError::Unknown(Some(INJECTED.into()))),
            Some(Fault::UnknownAfter) => {
                // Even a conflict is not told: its answer was lost too.
                let _ = self.inner.commit(transaction).await;
                Err(CommitError::Unknown(Some(INJECTED.into())))
            }
        }
    }

    async fn watch(&self, prefix: &Key) -> Result<Box<dyn Watch>, StoreError> {
        self.read_fault().await?;
        Ok(Box::new(FaultWatch {
            inner: self.inner.watch(prefix).await?,
            plan: Arc::clone(&self.plan),
        }))
    }
}

/// A watch that breaks by the same plan.
struct FaultWatch {
    inner: Box<dyn Watch>,
    plan: Arc<Mutex<Plan>>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Watch for FaultWatch {
    async fn changed(&mut self) -> Result<(), StoreError> {
        self.inner.changed().await?;
        let fault = draw(&self.plan);
        meet_read(fault).await
    }
}
