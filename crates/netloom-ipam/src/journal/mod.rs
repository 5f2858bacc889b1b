//! The journal: the durable truth per address.
//!
//! An append-only log of events in files that are prepared beforehand, so that a commit is one
//! write and one flush. Many callers share one flush. From time to time closed files are folded
//! into a snapshot. What the bytes mean is the business of [`Fold`].
//!
//! ```text
//!   append --> queue --> leader: one write, one sync --> segment log-0000000000000001
//!                                                         ... closed --> upkeep --> snapshot
//! ```
//!
//! After a crash it comes back with everything that was acknowledged, and perhaps with the last
//! events that nobody was told of.

mod disk;
mod error;
mod frame;
mod group;
mod lookout;
mod recover;
mod upkeep;
mod writer;

pub use disk::{DirDisk, Disk, DiskFile};
pub use error::JournalError;
pub use group::{Outcome, Ticket};
pub use upkeep::Upkeep;

use frame::FRAME_EVENTS_MAX;
use group::Shared;
use netloom_core::Ids;
use std::sync::Arc;
use upkeep::Keeper;
use writer::Writer;

/// What events add up to.
pub trait Fold: Default + Send + 'static {
    /// Takes one event in.
    ///
    /// # Errors
    /// When it cannot follow what came before: the journal is damaged.
    fn apply(&mut self, event: &[u8]) -> Result<(), String>;

    /// Gives events that lead from the default to this state.
    fn dump(&self, sink: &mut dyn FnMut(&[u8]));
}

/// How a journal keeps its files.
#[derive(Debug, Clone, Copy)]
pub struct JournalOptions {
    /// Bytes of a segment, at least 32 KiB.
    pub segment_bytes: usize,
    /// Who compacts.
    pub upkeep: Upkeep,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES,
            upkeep: Upkeep::default(),
        }
    }
}

/// An open journal. There is one at a time on a [`Disk`].
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
}

impl Journal {
    /// Opens the journal on `disk`, or begins one where there is none, and gives what its events
    /// add up to.
    ///
    /// # Errors
    /// When the disk fails, or holds something that this program did not write in this way.
    pub fn open<F: Fold>(
        disk: Arc<dyn Disk>,
        ids: Arc<dyn Ids>,
        options: JournalOptions,
    ) -> Result<(Self, F), JournalError> {
        let JournalOptions {
            segment_bytes,
            upkeep,
        } = options;
        let segment_bytes = segment_bytes.max(SEGMENT_BYTES_MIN);
        recover::clear_leftovers(&*disk)?;
        let loaded = recover::load::<F>(&*disk, &recover::segments(&*disk)?)?;
        let snapshot_bytes = loaded.snapshot_bytes;
        let keeper = Keeper::start::<F>(Arc::clone(&disk), segment_bytes, snapshot_bytes, upkeep)?;
        let writer = match (loaded.tail, loaded.journal) {
            (Some(tail), _) => Writer::resume(disk, ids, keeper, &tail, loaded.through + 1)?,
            (None, None) => Writer::begin(disk, ids, keeper, segment_bytes)?,
            (None, Some(_)) => {
                let why = "the segments that follow it are missing";
                return Err(JournalError::corrupt(recover::SNAPSHOT, 0, why));
            }
        };
        writer.tidy();
        let frame_events_max = FRAME_EVENTS_MAX.min(segment_bytes / 4);
        let shared = Arc::new(Shared::new(writer, upkeep, frame_events_max));
        Ok((Self { shared }, loaded.state))
    }

    /// Queues events that become durable together, or not at all. Events are ordered as their
    /// appends were.
    ///
    /// # Errors
    /// When an earlier commit failed, or the events are too large; nothing was queued.
    pub fn append(&self, events: &[&[u8]]) -> Result<Ticket, Arc<JournalError>> {
        self.shared.append(events)
    }

    /// The newest events that are not durable yet, if there are any: to be waited for by an answer
    /// that adds nothing of its own but relies on them.
    #[must_use]
    pub fn under_way(&self) -> Option<Ticket> {
        self.shared.under_way()
    }

    /// Why it takes nothing any more, if it does not.
    #[must_use]
    pub fn failure(&self) -> Option<Arc<JournalError>> {
        self.shared.failure()
    }

    /// How to end the upkeep of one that failed, after what it is at, which may take a while: two
    /// of them would write the same files, and the next journal on this disk begins one of its own.
    /// None where the callers do it: nothing goes on beside them.
    pub(crate) fn retirement(&self) -> Option<impl FnOnce() + Send + 'static> {
        let shared = Arc::clone(&self.shared);
        (shared.upkeep() == Upkeep::Background).then_some(move || shared.retire())
    }

    /// Its identity, made when it began: two journals never share one.
    #[must_use]
    pub fn id(&self) -> u128 {
        self.shared.journal()
    }
}

/// 16,384 commits of one event: some seconds of the highest rate, and quick to read at start.
const SEGMENT_BYTES: usize = 8 * 1024 * 1024;
/// Room for the largest event four times over.
const SEGMENT_BYTES_MIN: usize = 32 * 1024;
