//! Reading a journal back: what was acknowledged comes back whole, a torn end is cut, and anything
//! else that does not fit is refused.

use super::disk::{Disk, TEMPORARY};
use super::frame::{Events, SECTOR, SegmentHeader, decode_snapshot, frame_at};
use super::{Fold, JournalError};
use std::io;

/// A segment on the disk.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) name: String,
    /// The number of its first frame, from its name.
    pub(super) first: u64,
}

impl Segment {
    pub(super) fn name_of(first: u64) -> String {
        format!("{SEGMENT_PREFIX}{first:016x}")
    }

    fn parse(name: &str) -> Option<Self> {
        let digits = name.strip_prefix(SEGMENT_PREFIX)?;
        let first = u64::from_str_radix(digits, 16).ok()?;
        (Self::name_of(first) == name).then(|| Self {
            name: name.to_owned(),
            first,
        })
    }
}

/// All segments, in order.
pub(super) fn segments(disk: &dyn Disk) -> Result<Vec<Segment>, JournalError> {
    let names = disk
        .list()
        .map_err(|e| JournalError::io("list the journal's directory", e))?;
    let mut found: Vec<_> = names.iter().filter_map(|n| Segment::parse(n)).collect();
    found.sort_by_key(|s| s.first);
    Ok(found)
}

/// Removes what a crash left unfinished, and prepared files, whose content nobody vouches for.
pub(super) fn clear_leftovers(disk: &dyn Disk) -> Result<(), JournalError> {
    let names = disk
        .list()
        .map_err(|e| JournalError::io("list the journal's directory", e))?;
    for name in names {
        if name.ends_with(TEMPORARY) || name.starts_with(SPARE_PREFIX) {
            disk.remove(&name)
                .map_err(|e| JournalError::io(format!("remove {name}"), e))?;
        }
    }
    Ok(())
}

/// Where the next frame goes.
#[derive(Debug, Clone)]
pub(super) struct Tail {
    pub(super) segment: Segment,
    pub(super) header: SegmentHeader,
    pub(super) offset: usize,
}

/// What the files hold.
#[derive(Debug)]
pub(super) struct Loaded<F> {
    pub(super) state: F,
    /// None when there is no journal at all.
    pub(super) journal: Option<u128>,
    /// The number of the last frame.
    pub(super) through: u64,
    pub(super) snapshot_bytes: usize,
    pub(super) tail: Option<Tail>,
}

/// Reads the snapshot and `segments`, which are all of them or an older part.
pub(super) fn load<F: Fold>(
    disk: &dyn Disk,
    segments: &[Segment],
) -> Result<Loaded<F>, JournalError> {
    let mut loaded = load_snapshot::<F>(disk)?;
    for (at, segment) in segments.iter().enumerate() {
        let last = at + 1 == segments.len();
        let bytes = disk
            .read(&segment.name)
            .map_err(|e| JournalError::io(format!("read {}", segment.name), e))?;
        let header = check_header(&loaded, segment, &bytes)?;
        let offset = load_segment(&mut loaded, segment, &header, &bytes)?;
        if last {
            refuse_damage_before_the_end(segment, &header, &bytes, offset)?;
            loaded.tail = Some(Tail {
                segment: segment.clone(),
                header,
                offset,
            });
        }
    }
    Ok(loaded)
}

fn load_snapshot<F: Fold>(disk: &dyn Disk) -> Result<Loaded<F>, JournalError> {
    let mut loaded = Loaded {
        state: F::default(),
        journal: None,
        through: 0,
        snapshot_bytes: 0,
        tail: None,
    };
    let bytes = match disk.read(SNAPSHOT) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(loaded),
        Err(e) => return Err(JournalError::io("read the snapshot", e)),
    };
    let (header, events) = decode_snapshot(SNAPSHOT, &bytes)?;
    for event in Events(events) {
        event
            .map_err(str::to_owned)
            .and_then(|event| loaded.state.apply(event))
            .map_err(|why| JournalError::corrupt(SNAPSHOT, SECTOR, why))?;
    }
    loaded.journal = Some(header.journal);
    loaded.through = header.through;
    loaded.snapshot_bytes = bytes.len();
    Ok(loaded)
}

/// Checks that the segment continues what was read so far.
fn check_header<F>(
    loaded: &Loaded<F>,
    segment: &Segment,
    bytes: &[u8],
) -> Result<SegmentHeader, JournalError> {
    let header = SegmentHeader::decode(&segment.name, bytes)?;
    let bad = |why: String| Err(JournalError::corrupt(&segment.name, 0, why));
    if header.first != segment.first {
        return bad(format!("it says that its first frame is {}", header.first));
    }
    if loaded.journal.is_some_and(|id| id != header.journal) {
        return bad("it belongs to another journal".to_owned());
    }
    if header.first > loaded.through + 1 {
        let why = format!(
            "frames {} to {} are missing before it",
            loaded.through + 1,
            header.first - 1
        );
        return bad(why);
    }
    Ok(header)
}

/// Applies the segment's frames that are new; gives the offset behind the last whole one.
fn load_segment<F: Fold>(
    loaded: &mut Loaded<F>,
    segment: &Segment,
    header: &SegmentHeader,
    bytes: &[u8],
) -> Result<usize, JournalError> {
    loaded.journal = Some(header.journal);
    let (mut expected, mut offset) = (header.first, SECTOR);
    while let Some(frame) = frame_at(bytes, offset, header.salt) {
        if frame.number != expected {
            let why = format!("frame {} stands where {expected} should", frame.number);
            return Err(JournalError::corrupt(&segment.name, offset, why));
        }
        if expected > loaded.through {
            for event in Events(frame.events) {
                event
                    .map_err(str::to_owned)
                    .and_then(|event| loaded.state.apply(event))
                    .map_err(|why| JournalError::corrupt(&segment.name, offset, why))?;
            }
            loaded.through = expected;
        }
        (expected, offset) = (expected + 1, frame.end);
    }
    Ok(offset)
}

/// A frame is written only after the one before it was synced. So a whole frame behind an odd one
/// proves that the odd one was acknowledged and is damaged; without such a witness it was torn by
/// a crash before anybody heard of it.
fn refuse_damage_before_the_end(
    segment: &Segment,
    header: &SegmentHeader,
    bytes: &[u8],
    end: usize,
) -> Result<(), JournalError> {
    let witness = (end..bytes.len())
        .step_by(SECTOR)
        .find(|at| frame_at(bytes, *at, header.salt).is_some());
    match witness {
        None => Ok(()),
        Some(at) => Err(JournalError::corrupt(
            &segment.name,
            end,
            format!("an acknowledged frame is damaged, a later one at byte {at} is whole"),
        )),
    }
}

/// Name of the snapshot.
pub(super) const SNAPSHOT: &str = "snapshot";
/// Names of files that wait to become segments.
pub(super) const SPARE_PREFIX: &str = "spare-";
const SEGMENT_PREFIX: &str = "log-";
