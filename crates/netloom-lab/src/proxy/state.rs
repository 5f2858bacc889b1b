//! What all connections of a proxy share: the mode, and what was done.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::Mode;

/// How often a proxy did what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Connections that were taken.
    pub connections: u64,
    /// Pieces that came later.
    pub delayed: u64,
    /// Pieces that came bit by bit.
    pub trickled: u64,
    /// Connections that ended before their bytes arrived.
    pub cut_before: u64,
    /// Connections that ended behind bytes that arrived.
    pub cut_after: u64,
    /// Answers that were dropped.
    pub unanswered: u64,
    /// Pieces of a client that were dropped.
    pub swallowed: u64,
    /// Pieces that waited for another mode.
    pub stalled: u64,
    /// Connections that were reset by [`Mode::Refuse`].
    pub refused: u64,
}

/// What connections look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Now {
    pub(super) mode: Mode,
    once: bool,
    /// Grows with every change of the mode.
    pub(super) change: u64,
    /// Grows when all connections are to end.
    pub(super) ends: u64,
}

#[derive(Debug)]
pub(super) struct Shared {
    now: watch::Sender<Now>,
    counted: Mutex<Counted>,
}

#[derive(Debug)]
struct Counted {
    faults: Faults,
    random: u64,
}

impl Shared {
    pub(super) fn new(seed: u64) -> Self {
        let now = Now {
            mode: Mode::Pass,
            once: false,
            change: 0,
            ends: 0,
        };
        Self {
            now: watch::Sender::new(now),
            counted: Mutex::new(Counted {
                faults: Faults::default(),
                random: seed,
            }),
        }
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn watch(&self) -> watch::Receiver<Now> {
        self.now.subscribe()
    }

    pub(super) fn now(&self) -> Now {
        *self.now.borrow()
    }

    pub(super) fn mode(&self) -> Mode {
        self.now().mode
    }

    /// Another mode, until the next call.
    pub(super) fn set(&self, mode: Mode) {
        self.now.send_modify(|now| {
            *now = Now {
                mode,
                once: false,
                change: now.change + 1,
                ends: now.ends,
            }
        });
    }

    /// Another mode, until its first cut.
    pub(super) fn set_once(&self, mode: Mode) {
        self.now.send_modify(|now| {
            *now = Now {
                mode,
                once: true,
                change: now.change + 1,
                ends: now.ends,
            }
        });
    }

    pub(super) fn cut(&self) {
        self.now.send_modify(|now| now.ends += 1);
    }

    /// Whether a connection that met `seen` is to be cut. Of a mode that holds for one cut, one
    /// connection is told so.
    pub(super) fn takes_cut(&self, seen: Now) -> bool {
        let mut takes = true;
        self.now.send_if_modified(|now| {
            let once = seen.once && now.change == seen.change;
            takes = !seen.once || once;
            if once {
                now.mode = Mode::Pass;
                now.once = false;
                now.change += 1;
            }
            once
        });
        takes
    }

    pub(super) fn faults(&self) -> Faults {
        self.counted().faults
    }

    pub(super) fn count(&self, add: impl FnOnce(&mut Faults) -> &mut u64) {
        *add(&mut self.counted().faults) += 1;
    }

    /// The next jitter, below or at `most` (splitmix64: reproducible from its seed).
    pub(super) fn jitter(&self, most: Duration) -> Duration {
        let mut counted = self.counted();
        counted.random = counted.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = counted.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(z % most.saturating_add(1))
    }
}
