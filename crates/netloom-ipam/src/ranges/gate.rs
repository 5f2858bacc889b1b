//! What keeps changes of hands of one pool in order on this host.

use crate::space::PoolKey;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// One pool's.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// One request at a time looks for addresses; the others find what it brought.
    pub(crate) fetching: tokio::sync::Mutex<()>,
    /// One change of hands at a time. Never held while another host is waited for.
    pub(crate) hands: tokio::sync::Mutex<()>,
    /// The chunk that was claimed from last, and in which life of the pool.
    place: Mutex<Option<(u64, u128)>>,
    /// Nothing was left to claim for the reserve; not to be looked for again before this.
    barren_until: Mutex<Option<Instant>>,
    /// The outcome of a commit was not told: runs may name this host that it does not know of.
    unclear: AtomicBool,
}

/// All pools'.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    pools: Mutex<BTreeMap<PoolKey, Arc<Gate>>>,
    /// Answers may have come.
    pub(crate) answers: Notify,
    /// Rounds of wants that were answered.
    pub(crate) answered: Mutex<BTreeMap<(PoolKey, String), String>>,
    /// Pools in which more is to be claimed before it is needed.
    ahead: Mutex<BTreeSet<PoolKey>>,
    ahead_asked: Notify,
}

impl Gate {
    pub(crate) fn place(&self, generation: u64) -> Option<u128> {
        let place = *self.place.lock().unwrap_or_else(PoisonError::into_inner);
        place
            .filter(|(life, _)| *life == generation)
            .map(|(_, chunk)| chunk)
    }

    pub(crate) fn set_place(&self, generation: u64, chunk: u128) {
        let place = Some((generation, chunk));
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }

    /// Whether there may be something to claim for the reserve.
    pub(crate) fn is_fertile(&self) -> bool {
        let until = self.barren_until.lock();
        let until = until.unwrap_or_else(PoisonError::into_inner);
        until.is_none_or(|until| Instant::now() >= until)
    }

    pub(crate) fn note_barren(&self) {
        let until = self.barren_until.lock();
        *until.unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + BARREN_TIME);
    }

    fn note_unclear(&self) {
        self.unclear.store(true, Ordering::Release);
    }

    /// Something, if there is anything to look for; whoever asks does look.
    pub(crate) fn clear_up(&self) -> Option<Doubt<'_>> {
        let is_unclear = self.unclear.swap(false, Ordering::AcqRel);
        is_unclear.then(|| self.doubt())
    }

    /// Something is to come into this host's hands.
    pub(crate) fn doubt(&self) -> Doubt<'_> {
        Doubt { gate: Some(self) }
    }
}

/// It is at work, and others need not look for what it may leave; unless it says how that ended, it is
/// unclear.
#[must_use = "dropped, it is unclear what was left"]
pub(crate) struct Doubt<'a> {
    gate: Option<&'a Gate>,
}

impl Doubt<'_> {
    pub(crate) fn ends(mut self) {
        self.gate = None;
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if let Some(gate) = self.gate {
            gate.note_unclear();
        }
    }
}

impl Gates {
    pub(crate) fn of(&self, pool: PoolKey) -> Arc<Gate> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let gate = pools.entry(pool).or_insert_with(|| {
            let gate = Gate::default();
            // A process before this one may have died between a commit and its note.
            gate.note_unclear();
            Arc::new(gate)
        });
        Arc::clone(gate)
    }

    /// Nobody knows whether what came in of any pool was noted.
    pub(crate) fn all_unclear(&self) {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.values().for_each(|gate| gate.note_unclear());
    }

    /// Some callers of a pool will soon need more.
    pub(crate) fn ask_ahead(&self, pool: PoolKey) {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        ahead.insert(pool);
        self.ahead_asked.notify_one();
    }

    /// The pools for which that was said since the last time, once there are some.
    pub(crate) async fn asked_ahead(&self) -> BTreeSet<PoolKey> {
        self.ahead_asked.notified().await;
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *ahead)
    }
}

/// Between two looks for a reserve in a pool that had none: each lists all of its chunks.
const BARREN_TIME: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    /// One who looks for what is unclear fails, while what another one took is known to be noted.
    #[test]
    fn what_one_leaves_unclear_no_other_one_clears() {
        let gate = Gate::default();
        let taking = gate.doubt();
        gate.note_unclear();
        let looking = gate.clear_up().expect("it was noted just now");
        let other = gate.doubt();
        drop(looking);
        other.ends();
        taking.ends();
        gate.clear_up().expect("one of them failed").ends();
        assert!(gate.clear_up().is_none());
    }
}
