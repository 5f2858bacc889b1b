//! The one who writes: frames into the current segment, and the change to the next one.

use super::JournalError;
use super::disk::{Disk, DiskFile};
use super::frame::{SECTOR, SegmentHeader, seal_frame};
use super::recover::{Segment, Tail};
use super::upkeep::Keeper;
use netloom_core::{Ids, crash_point};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    ids: Arc<dyn Ids>,
    keeper: Keeper,
    file: Box<dyn DiskFile>,
    header: SegmentHeader,
    segment_bytes: usize,
    /// Where the next frame goes.
    offset: usize,
    /// The next frame's number.
    number: u64,
}

impl Writer {
    /// Continues after `tail`.
    pub(super) fn resume(
        disk: Arc<dyn Disk>,
        ids: Arc<dyn Ids>,
        keeper: Keeper,
        tail: &Tail,
        number: u64,
    ) -> Result<Self, JournalError> {
        let name = &tail.segment.name;
        let file = disk
            .open(name)
            .map_err(|e| JournalError::io(format!("open {name}"), e))?;
        // What was read may lie in the kernel's memory alone, left there by a process that was
        // killed before its sync. From here on answers build on it.
        file.sync()
            .map_err(|e| JournalError::io(format!("sync {name}"), e))?;
        let segment_bytes = disk
            .read(name)
            .map_err(|e| JournalError::io(format!("read {name}"), e))?
            .len();
        Ok(Self {
            disk,
            ids,
            keeper,
            file,
            header: tail.header,
            segment_bytes,
            offset: tail.offset,
            number,
        })
    }

    /// Makes the first segment of a new journal.
    pub(super) fn begin(
        disk: Arc<dyn Disk>,
        ids: Arc<dyn Ids>,
        keeper: Keeper,
        segment_bytes: usize,
    ) -> Result<Self, JournalError> {
        let journal = u128::from(random(&*ids)) << 64 | u128::from(random(&*ids));
        let header = SegmentHeader {
            salt: random(&*ids),
            first: 1,
            journal,
        };
        let file = make_segment(&*disk, &keeper, header)?;
        Ok(Self {
            disk,
            ids,
            keeper,
            file,
            header,
            segment_bytes,
            offset: SECTOR,
            number: 1,
        })
    }

    pub(super) fn journal(&self) -> u128 {
        self.header.journal
    }

    /// Starts the upkeep: a spare for the coming change, and what a crash left undone.
    pub(super) fn tidy(&self) {
        self.keeper.segment_changed(self.header.first);
    }

    /// Ends the upkeep.
    pub(super) fn retire(&mut self) {
        self.keeper.stop();
    }

    /// Makes a frame of `count` events durable.
    pub(super) fn write(&mut self, frame: &mut Vec<u8>, count: u32) -> Result<(), JournalError> {
        let bytes = frame.len().next_multiple_of(SECTOR);
        if self.offset + bytes > self.segment_bytes {
            self.change_segment()?;
        }
        seal_frame(frame, self.header.salt, self.number, count);
        crash_point!("ipam.journal.before_write");
        let offset = u64::try_from(self.offset).unwrap_or(u64::MAX);
        self.file
            .write_at(offset, frame)
            .map_err(|e| poison_unless_full("write to the journal", e))?;
        crash_point!("ipam.journal.before_sync");
        self.file.sync().map_err(|e| JournalError::Poisoned {
            cause: format!("sync: {e}"),
        })?;
        crash_point!("ipam.journal.after_sync");
        self.offset += bytes;
        self.number += 1;
        Ok(())
    }

    fn change_segment(&mut self) -> Result<(), JournalError> {
        let header = SegmentHeader {
            salt: random(&*self.ids),
            first: self.number,
            journal: self.header.journal,
        };
        self.file = make_segment(&*self.disk, &self.keeper, header)?;
        self.header = header;
        self.offset = SECTOR;
        self.keeper.segment_changed(self.number);
        Ok(())
    }
}

/// Gives a spare file its header, then its name: a segment that exists has a whole header.
fn make_segment(
    disk: &dyn Disk,
    keeper: &Keeper,
    header: SegmentHeader,
) -> Result<Box<dyn DiskFile>, JournalError> {
    let spare = keeper.take_spare()?;
    crash_point!("ipam.journal.spare_taken");
    let failed = |e| JournalError::io("begin a segment of the journal", e);
    let file = disk.open(&spare).map_err(failed)?;
    file.write_at(0, &header.encode()).map_err(failed)?;
    file.sync().map_err(failed)?;
    crash_point!("ipam.journal.segment_headed");
    disk.rename(&spare, &Segment::name_of(header.first))
        .map_err(failed)?;
    Ok(file)
}

fn poison_unless_full(what: &str, error: std::io::Error) -> JournalError {
    match JournalError::io(what, error) {
        full @ JournalError::Full { .. } => full,
        other => JournalError::Poisoned {
            cause: match std::error::Error::source(&other) {
                Some(source) => format!("{what}: {source}"),
                None => what.to_owned(),
            },
        },
    }
}

/// 64 random bits: FNV-1a of a new id, which has 128.
fn random(ids: &dyn Ids) -> u64 {
    let id = ids.operation();
    id.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, |hash, b| {
        (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}
