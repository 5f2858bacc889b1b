//! One host's way to the store, which delays, loses, repeats and ends.

use super::ground::{Bell, Ground};
use super::planted::Bug;
use super::random::Random;
use async_trait::async_trait;
use netloom_core::store::{
    CommitError, Committed, Key, Operation, Store, StoreError, StoreIdentity, Transaction, Version,
    Versioned, Watch,
};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::sleep;

/// How the way is now; shares are out of 1,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Weather {
    /// Nothing passes.
    pub(crate) cut: bool,
    /// The store says at once that it is not there, where it would else be silent.
    pub(crate) refuses: bool,
    /// Messages that take any time at all, and how long at most, in milliseconds.
    pub(crate) slow: u64,
    pub(crate) slowest: u64,
    pub(crate) lost_before: u64,
    pub(crate) lost_after: u64,
    pub(crate) doubled: u64,
}

impl Weather {
    pub(crate) const FAIR: Self = Self {
        cut: false,
        refuses: false,
        slow: 300,
        slowest: 3,
        lost_before: 0,
        lost_after: 0,
        doubled: 0,
    };
}

/// One host's way to the store. It outlives the host's process.
#[derive(Debug, Clone)]
pub(crate) struct Link(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    host: u64,
    ground: Arc<Ground>,
    bug: Option<Bug>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    own: Weather,
    /// What it comes back to.
    climate: Weather,
    /// Of the store as a whole.
    outage: bool,
    /// Kept away by the one who put the store back.
    blind: bool,
    random: Random,
    unknown: u64,
    /// Versions of the host's own record that it was told, since it was asked.
    seen: BTreeSet<u64>,
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy)]
struct Fate {
    refused: bool,
    arrives: bool,
    answered: bool,
    doubled: bool,
    out: Duration,
    back: Duration,
    /// When the sender gives up; often it hears at once that the connection broke.
    patience: Duration,
}

impl Link {
    pub(crate) fn new(host: u64, ground: Arc<Ground>, bug: Option<Bug>, random: Random) -> Self {
        let state = State {
            own: Weather::FAIR,
            climate: Weather::FAIR,
            outage: false,
            blind: false,
            random,
            unknown: 0,
            seen: BTreeSet::new(),
        };
        Self(Arc::new(Inner {
            host,
            ground,
            bug,
            state: Mutex::new(state),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.state().own = weather;
    }

    pub(crate) fn set_climate(&self, climate: Weather) {
        let mut state = self.state();
        (state.own, state.climate) = (climate, climate);
    }

    /// The trouble is over.
    pub(crate) fn clear(&self) {
        let mut state = self.state();
        state.own = state.climate;
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Weather)) {
        change(&mut self.state().own);
    }

    pub(crate) fn set_outage(&self, outage: bool) {
        self.state().outage = outage;
    }

    pub(crate) fn set_blind(&self, blind: bool) {
        self.state().blind = blind;
    }

    /// How many versions of its own record the host was told; begins to count anew.
    pub(crate) fn take_seen(&self) -> usize {
        std::mem::take(&mut self.state().seen).len()
    }

    fn note_seen(&self, key: &Key, version: &Version) {
        let own = key.as_str().strip_prefix("hosts/h");
        if own.and_then(|own| own.parse().ok()) == Some(self.0.host)
            && let Ok(bytes) = version.as_bytes().try_into()
        {
            self.state().seen.insert(u64::from_le_bytes(bytes));
        }
    }

    /// Commits whose outcome the host was not told.
    pub(crate) fn unknown(&self) -> u64 {
        self.state().unknown
    }

    pub(crate) fn is_cut(&self) -> bool {
        let state = self.state();
        state.own.cut || state.outage || state.blind
    }

    fn fate(&self) -> Fate {
        let mut state = self.state();
        let State {
            own,
            outage,
            blind,
            random,
            ..
        } = &mut *state;
        let mut way = || match random.chance(own.slow) {
            true => random.millis(1, own.slowest),
            false => Duration::ZERO,
        };
        let (out, back) = (way(), way());
        let cut = own.cut || *outage || *blind;
        let patience = match random.chance(500) {
            true => random.millis(1, 40),
            false => REQUEST_TIME,
        };
        Fate {
            refused: cut && own.refuses,
            arrives: !cut && !random.chance(own.lost_before),
            answered: !random.chance(own.lost_after),
            doubled: random.chance(own.doubled),
            out,
            back,
            patience,
        }
    }

    /// A read: what comes back is as old as its way back.
    async fn ask<T>(&self, answer: impl FnOnce(&Ground) -> T + Send) -> Result<T, StoreError>
    where
        T: Send,
    {
        let fate = self.fate();
        if fate.refused {
            return Err(StoreError::Unavailable(None));
        }
        rest(fate.out).await;
        if !fate.arrives || self.is_cut() {
            rest(fate.patience).await;
            return Err(StoreError::Unavailable(None));
        }
        let found = answer(&self.0.ground);
        if !fate.answered {
            rest(fate.patience).await;
            return Err(StoreError::Unavailable(None));
        }
        rest(fate.back).await;
        Ok(found)
    }

    async fn send(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        let mut fate = self.fate();
        if fate.refused {
            return Err(CommitError::Unavailable(None));
        }
        // Who gives ranges away and does not hear that they are gone is where this bug does harm.
        if self.0.bug == Some(Bug::UnknownAsRefusal) && crate::changes_a_range(&transaction) {
            let mut state = self.state();
            let share = 2 * state.own.lost_after;
            fate.answered &= !state.random.chance(share);
        }
        if !fate.arrives {
            rest(fate.patience).await;
            return Err(CommitError::Unknown(None));
        }
        if fate.out.is_zero() && fate.back.is_zero() && fate.answered && !fate.doubled {
            return self.0.ground.commit(self.0.host, transaction);
        }
        // What was sent arrives even if the sender is gone by then.
        let (tell, told) = oneshot::channel();
        let (link, life) = (self.clone(), self.0.ground.life());
        tokio::spawn(async move { link.carry(fate, life, transaction, tell).await });
        let told = tokio::time::timeout(REQUEST_TIME, told).await;
        if let Ok(Ok(outcome)) = told {
            return outcome;
        }
        if told.is_ok() {
            rest(fate.patience).await;
        }
        Err(CommitError::Unknown(None))
    }

    async fn carry(
        &self,
        fate: Fate,
        life: u64,
        transaction: Transaction,
        tell: oneshot::Sender<Result<Committed, CommitError>>,
    ) {
        rest(fate.out).await;
        if self.is_cut() || self.0.ground.life() != life {
            return;
        }
        let copy = fate.doubled.then(|| transaction.clone());
        let outcome = self.0.ground.commit(self.0.host, transaction);
        if let Some(copy) = copy {
            let link = self.clone();
            tokio::spawn(async move {
                let pause = link.state().random.millis(1, 3000);
                sleep(pause).await;
                if !link.is_cut() && link.0.ground.life() == life {
                    drop(link.0.ground.commit(link.0.host, copy));
                }
            });
        }
        if fate.answered {
            rest(fate.back).await;
            // A sender that is gone needs no answer.
            drop(tell.send(outcome));
        }
    }
}

/// What a store would say that did all of it.
fn made_up(transaction: &Transaction) -> Committed {
    let keys = transaction
        .operations
        .iter()
        .filter(|operation| matches!(operation, Operation::Create(..) | Operation::Update(..)));
    let version = Version::from_bytes([0; 8]);
    Committed {
        versions: keys
            .map(|operation| (operation.key().clone(), version.clone()))
            .collect(),
    }
}

/// No timer for no time.
async fn rest(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Link {
    async fn identity(&self) -> Result<StoreIdentity, StoreError> {
        self.ask(|ground| StoreIdentity(ground.identity())).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        self.ask(|ground| ground.get(key)).await
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<(Key, Versioned)>, StoreError> {
        self.ask(|ground| ground.list(prefix)).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        transaction.validate()?;
        let lie = (self.0.bug == Some(Bug::ConflictAsSuccess)).then(|| made_up(&transaction));
        let outcome = self.send(transaction).await;
        if let Err(CommitError::Unknown(_)) = &outcome {
            self.state().unknown += 1;
        }
        for (key, version) in outcome.iter().flat_map(|committed| &committed.versions) {
            self.note_seen(key, version);
        }
        match (outcome, self.0.bug, lie) {
            (Err(CommitError::Unknown(_)), Some(Bug::UnknownAsRefusal), _) => {
                Err(CommitError::Unavailable(None))
            }
            (Err(CommitError::Conflict { .. }), _, Some(lie)) => Ok(lie),
            (outcome, ..) => outcome,
        }
    }

    async fn watch(&self, prefix: &Key) -> Result<Box<dyn Watch>, StoreError> {
        let bell = self.ask(|ground| ground.watch(prefix)).await?;
        let link = self.clone();
        Ok(Box::new(SimWatch { bell, link }))
    }
}

/// Wakes late, and hears nothing while the way is cut.
#[derive(Debug)]
struct SimWatch {
    bell: Arc<Bell>,
    link: Link,
}

#[async_trait]
impl Watch for SimWatch {
    async fn changed(&mut self) -> Result<(), StoreError> {
        self.bell.rung.notified().await;
        let fate = self.link.fate();
        rest(fate.out).await;
        if self.bell.broken.load(Ordering::Relaxed) || !fate.arrives {
            return Err(StoreError::Unavailable(None));
        }
        Ok(())
    }
}

/// A store's client gives up after this.
const REQUEST_TIME: Duration = Duration::from_millis(1500);

/// A host's own store on its own disk: always there, and as durable as that.
#[derive(Debug, Clone)]
pub(crate) struct OwnStore(pub(crate) Arc<Ground>);

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for OwnStore {
    async fn identity(&self) -> Result<StoreIdentity, StoreError> {
        Ok(StoreIdentity(self.0.identity()))
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        Ok(self.0.get(key))
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<(Key, Versioned)>, StoreError> {
        Ok(self.0.list(prefix))
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        transaction.validate()?;
        self.0.commit(0, transaction)
    }

    async fn watch(&self, _: &Key) -> Result<Box<dyn Watch>, StoreError> {
        Err(StoreError::Unavailable(None))
    }
}
