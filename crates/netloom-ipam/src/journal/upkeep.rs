//! What happens beside the callers: folding closed segments into the snapshot, and keeping the
//! next segment ready.
//!
//! It works from the files alone and never looks at live state, so callers wait for none of it.

use super::disk::Disk;
use super::frame::{SECTOR, SnapshotHeader, encode_snapshot, push_event};
use super::recover::{SNAPSHOT, SPARE_PREFIX, Segment, load, segments};
use super::{Fold, JournalError};
use netloom_core::crash_point;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

/// Who does the upkeep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Upkeep {
    /// A thread of its own, so that no caller waits for it.
    #[default]
    Background,
    /// The caller whose event needed a new segment: for tests, which want one order of things.
    Inline,
}

/// Runs the upkeep after each change of segment.
#[derive(Debug)]
pub(super) struct Keeper {
    work: Arc<Work>,
    /// None when the upkeep is inline.
    thread: Option<(mpsc::Sender<u64>, JoinHandle<()>)>,
}

impl Keeper {
    pub(super) fn start<F: Fold>(
        disk: Arc<dyn Disk>,
        segment_bytes: usize,
        snapshot_bytes: usize,
        upkeep: Upkeep,
    ) -> Result<Self, JournalError> {
        let work = Arc::new(Work {
            disk,
            segment_bytes,
            compact: compact::<F>,
            memory: Mutex::new(Memory {
                spares: Vec::new(),
                spares_made: 0,
                snapshot_bytes,
            }),
        });
        let thread = match upkeep {
            Upkeep::Inline => None,
            Upkeep::Background => {
                let (sender, receiver) = mpsc::channel();
                let work = Arc::clone(&work);
                let handle = std::thread::Builder::new()
                    .name("netloom-journal".to_owned())
                    .spawn(move || {
                        while let Ok(active) = receiver.recv() {
                            work.run_and_log(active);
                        }
                    })
                    .map_err(|e| JournalError::io("start the journal's upkeep thread", e))?;
                Some((sender, handle))
            }
        };
        Ok(Self { work, thread })
    }

    /// Says that all segments before the one that starts at `active` are closed.
    pub(super) fn segment_changed(&self, active: u64) {
        match &self.thread {
            // A receiver that is gone ended with this struct: nobody is left to care.
            Some((sender, _)) => drop(sender.send(active)),
            None => self.work.run_and_log(active),
        }
    }

    /// A file that can become a segment.
    pub(super) fn take_spare(&self) -> Result<String, JournalError> {
        let ready = self.work.memory().spares.pop();
        match ready {
            Some(name) => Ok(name),
            None => self.work.make_spare(),
        }
    }
}

impl Keeper {
    /// Ends the upkeep, after what it is at.
    pub(super) fn stop(&mut self) {
        if let Some((sender, handle)) = self.thread.take() {
            drop(sender);
            // A panic of the upkeep lost no event; the next start does its work again.
            drop(handle.join());
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop();
    }
}

#[derive(Debug)]
struct Work {
    disk: Arc<dyn Disk>,
    segment_bytes: usize,
    compact: fn(&dyn Disk, &[Segment]) -> Result<usize, JournalError>,
    memory: Mutex<Memory>,
}

#[derive(Debug)]
struct Memory {
    spares: Vec<String>,
    spares_made: u64,
    snapshot_bytes: usize,
}

impl Work {
    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing of this is needed for safety: what fails is tried again at the next change.
    fn run_and_log(&self, active: u64) {
        if let Err(error) = self.run(active) {
            tracing::warn!(%error, "the address journal could not be compacted, it goes on growing");
        }
    }

    fn run(&self, active: u64) -> Result<(), JournalError> {
        let mut closed = segments(&*self.disk)?;
        closed.retain(|s| s.first < active);
        let closed_bytes = closed.len() * self.segment_bytes;
        let snapshot_bytes = self.memory().snapshot_bytes;
        // Twice the snapshot: every event is rewritten a bounded number of times on average.
        if closed_bytes >= self.segment_bytes.max(2 * snapshot_bytes) {
            let bytes = (self.compact)(&*self.disk, &closed)?;
            self.memory().snapshot_bytes = bytes;
            crash_point!("ipam.journal.snapshot_taken");
            for segment in closed {
                self.retire(&segment)?;
                crash_point!("ipam.journal.segment_retired");
            }
        }
        if self.memory().spares.is_empty() {
            let name = self.make_spare()?;
            self.memory().spares.push(name);
        }
        Ok(())
    }

    /// Turns a segment that the snapshot holds into a spare, or removes it.
    fn retire(&self, segment: &Segment) -> Result<(), JournalError> {
        if self.memory().spares.is_empty() {
            let name = self.next_spare_name();
            self.disk
                .rename(&segment.name, &name)
                .map_err(|e| JournalError::io(format!("reuse {}", segment.name), e))?;
            self.memory().spares.push(name);
            return Ok(());
        }
        self.disk
            .remove(&segment.name)
            .map_err(|e| JournalError::io(format!("remove {}", segment.name), e))
    }

    fn make_spare(&self) -> Result<String, JournalError> {
        let name = self.next_spare_name();
        match self.disk.create(&name, self.segment_bytes) {
            Ok(_) => Ok(name),
            Err(e) => {
                // What could be written of it would fill the disk even more.
                drop(self.disk.remove(&name));
                Err(JournalError::io("prepare a file for the journal", e))
            }
        }
    }

    fn next_spare_name(&self) -> String {
        let mut memory = self.memory();
        memory.spares_made += 1;
        format!("{SPARE_PREFIX}{}", memory.spares_made)
    }
}

/// Folds the snapshot and the closed segments into a new snapshot; gives its size.
fn compact<F: Fold>(disk: &dyn Disk, closed: &[Segment]) -> Result<usize, JournalError> {
    let loaded = load::<F>(disk, closed)?;
    let Some(journal) = loaded.journal else {
        return Ok(0);
    };
    let mut events = Vec::new();
    let mut outcome = Ok(());
    loaded.state.dump(&mut |event| {
        if outcome.is_ok() {
            outcome = push_event(&mut events, event);
        }
    });
    outcome?;
    let header = SnapshotHeader {
        through: loaded.through,
        journal,
    };
    let file = encode_snapshot(header, &events);
    disk.replace(SNAPSHOT, &file)
        .map_err(|e| JournalError::io("write the snapshot", e))?;
    Ok(file.len().max(SECTOR))
}
