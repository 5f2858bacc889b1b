//! The bytes of segments and snapshots: encoding and strict decoding, no I/O.
//!
//! ```text
//! segment  [ header 512 ][ frame ][ frame ] ... [ zeros or an older use's bytes ]
//! frame    [ salt 8 | number 8 | length 4 | crc 4 | count 4 | 0 4 ][ events ][ zeros to 512 ]
//! event    [ length 2 ][ bytes ]
//! snapshot [ header 512 ][ events ]
//! ```
//!
//! A frame is what one write made durable. It starts at a multiple of 512 bytes, so that writing
//! one never touches a sector that holds an acknowledged one. Numbers count up by one over all
//! segments. The salt differs for every use of a file, so that bytes of an older use never pass.

use super::JournalError;

/// Schema of the journal's files.
pub(super) const SCHEMA: u32 = 1;
/// The unit in which disks write without tearing, as far back as one cares to look.
pub(super) const SECTOR: usize = 512;
/// Bytes of a frame before its events.
pub(super) const FRAME_HEADER: usize = 32;
/// Bytes of events in one frame, at most; bounds what one write can lose and memory.
pub(super) const FRAME_EVENTS_MAX: usize = 256 * 1024;
/// Bytes of one event, at most, so that its length fits into two bytes with room to spare.
pub(super) const EVENT_MAX: usize = 4096;

const SEGMENT_MAGIC: [u8; 8] = *b"NLJOURNL";
const SNAPSHOT_MAGIC: [u8; 8] = *b"NLSNAPSH";
/// Offset of the header's own checksum, behind all of its fields.
const HEADER_CRC_AT: usize = SECTOR - 4;

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Differs for every use of a file.
    pub(super) salt: u64,
    /// The number of its first frame.
    pub(super) first: u64,
    /// The journal that it belongs to.
    pub(super) journal: u128,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SECTOR] {
        let Self {
            salt,
            first,
            journal,
        } = *self;
        let mut out = Vec::with_capacity(SECTOR);
        out.extend_from_slice(&SEGMENT_MAGIC);
        out.extend_from_slice(&SCHEMA.to_le_bytes());
        out.extend_from_slice(&salt.to_le_bytes());
        out.extend_from_slice(&first.to_le_bytes());
        out.extend_from_slice(&journal.to_le_bytes());
        seal_header(out)
    }

    pub(super) fn decode(file: &str, bytes: &[u8]) -> Result<Self, JournalError> {
        let mut fields = open_header(file, bytes, SEGMENT_MAGIC)?;
        Ok(Self {
            salt: fields.u64(),
            first: fields.u64(),
            journal: fields.u128(),
        })
    }
}

/// What a snapshot says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SnapshotHeader {
    /// The number of the last frame that it holds.
    pub(super) through: u64,
    /// The journal that it belongs to.
    pub(super) journal: u128,
}

/// A whole snapshot file of these events.
pub(super) fn encode_snapshot(header: SnapshotHeader, events: &[u8]) -> Vec<u8> {
    let SnapshotHeader { through, journal } = header;
    let mut out = Vec::with_capacity(SECTOR + events.len());
    out.extend_from_slice(&SNAPSHOT_MAGIC);
    out.extend_from_slice(&SCHEMA.to_le_bytes());
    out.extend_from_slice(&through.to_le_bytes());
    out.extend_from_slice(&journal.to_le_bytes());
    out.extend_from_slice(&(events.len() as u64).to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(events).to_le_bytes());
    let mut file = seal_header(out).to_vec();
    file.extend_from_slice(events);
    file
}

/// Checks a snapshot file and gives its header and its events.
pub(super) fn decode_snapshot<'a>(
    file: &str,
    bytes: &'a [u8],
) -> Result<(SnapshotHeader, &'a [u8]), JournalError> {
    let mut fields = open_header(file, bytes, SNAPSHOT_MAGIC)?;
    let header = SnapshotHeader {
        through: fields.u64(),
        journal: fields.u128(),
    };
    let (len, crc) = (fields.u64(), fields.u32());
    let events = bytes.get(SECTOR..).unwrap_or_default();
    if events.len() as u64 != len || crc32fast::hash(events) != crc {
        return Err(JournalError::corrupt(
            file,
            SECTOR,
            "the checksum of the events does not match",
        ));
    }
    Ok((header, events))
}

/// Appends one event to the events of a frame or a snapshot.
pub(super) fn push_event(out: &mut Vec<u8>, event: &[u8]) -> Result<(), JournalError> {
    let len = u16::try_from(event.len())
        .ok()
        .filter(|_| event.len() <= EVENT_MAX)
        .ok_or(JournalError::TooLarge { bytes: event.len() })?;
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(event);
    Ok(())
}

/// The events in `bytes`, in order; an odd end is an item of its own.
pub(super) struct Events<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Events<'a> {
    type Item = Result<&'a [u8], &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let parts = self
            .0
            .split_first_chunk::<2>()
            .and_then(|(len, rest)| rest.split_at_checked(usize::from(u16::from_le_bytes(*len))));
        let Some((event, rest)) = parts else {
            self.0 = &[];
            return Some(Err("an event is cut short"));
        };
        self.0 = rest;
        Some(Ok(event))
    }
}

/// Turns [`FRAME_HEADER`] bytes of room and events into a frame of whole sectors.
pub(super) fn seal_frame(frame: &mut Vec<u8>, salt: u64, number: u64, count: u32) {
    let events = frame.len().saturating_sub(FRAME_HEADER);
    let len = u32::try_from(events).expect("a frame is bounded by FRAME_EVENTS_MAX");
    let mut header = [0u8; FRAME_HEADER];
    put(&mut header, 0, &salt.to_le_bytes());
    put(&mut header, 8, &number.to_le_bytes());
    put(&mut header, 16, &len.to_le_bytes());
    put(&mut header, 24, &count.to_le_bytes());
    put(frame, 0, &header);
    let crc = crc32fast::hash(frame);
    put(frame, 20, &crc.to_le_bytes());
    frame.resize(frame.len().next_multiple_of(SECTOR), 0);
}

/// A frame that was found whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) number: u64,
    pub(super) events: &'a [u8],
    /// Where the next one starts.
    pub(super) end: usize,
}

/// The frame at `offset` of a segment with this salt, if there is a whole one.
pub(super) fn frame_at(segment: &[u8], offset: usize, salt: u64) -> Option<Frame<'_>> {
    let rest = segment.get(offset..)?;
    let header: [u8; FRAME_HEADER] = rest.get(..FRAME_HEADER)?.try_into().ok()?;
    let mut fields = Fields(&header);
    let (found_salt, number) = (fields.u64(), fields.u64());
    let (len, crc) = (usize::try_from(fields.u32()).ok()?, fields.u32());
    if found_salt != salt || len > FRAME_EVENTS_MAX {
        return None;
    }
    let events = rest.get(FRAME_HEADER..FRAME_HEADER + len)?;
    let mut bare = header;
    put(&mut bare, 20, &[0; 4]);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bare);
    hasher.update(events);
    (hasher.finalize() == crc).then_some(Frame {
        number,
        events,
        end: offset + (FRAME_HEADER + len).next_multiple_of(SECTOR),
    })
}

fn seal_header(mut fields: Vec<u8>) -> [u8; SECTOR] {
    fields.resize(HEADER_CRC_AT, 0);
    let crc = crc32fast::hash(&fields);
    fields.extend_from_slice(&crc.to_le_bytes());
    fields
        .try_into()
        .expect("a header and its checksum fill one sector")
}

fn open_header<'a>(
    file: &str,
    bytes: &'a [u8],
    magic: [u8; 8],
) -> Result<Fields<'a>, JournalError> {
    let bad = |why: &str| JournalError::corrupt(file, 0, why);
    let header = bytes
        .get(..SECTOR)
        .ok_or_else(|| bad("the file is shorter than its header"))?;
    let (fields, crc) = header.split_at(HEADER_CRC_AT);
    if crc32fast::hash(fields).to_le_bytes() != *crc {
        return Err(bad("the header's checksum does not match"));
    }
    let rest = fields
        .strip_prefix(&magic)
        .ok_or_else(|| bad("it is another kind of file"))?;
    let mut fields = Fields(rest);
    let found = fields.u32();
    if found > SCHEMA {
        return Err(JournalError::TooNew {
            file: file.to_owned(),
            found,
            known: SCHEMA,
        });
    }
    Ok(fields)
}

fn put(target: &mut [u8], at: usize, bytes: &[u8]) {
    target
        .get_mut(at..at + bytes.len())
        .expect("headers are written inside their own length")
        .copy_from_slice(bytes);
}

/// Little-endian numbers of a header whose length was checked.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (head, rest) = self
            .0
            .split_first_chunk::<N>()
            .expect("a header is longer than its fields");
        self.0 = rest;
        *head
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    fn u128(&mut self) -> u128 {
        u128::from_le_bytes(self.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(number: u64, events: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0; FRAME_HEADER];
        for event in events {
            push_event(&mut bytes, event).unwrap();
        }
        seal_frame(&mut bytes, 7, number, u32::try_from(events.len()).unwrap());
        bytes
    }

    #[test]
    fn a_frame_round_trips_and_fills_whole_sectors() {
        let bytes = frame(3, &[b"one", b"", b"three"]);
        assert_eq!(bytes.len(), SECTOR);
        let found = frame_at(&bytes, 0, 7).unwrap();
        assert_eq!((found.number, found.end), (3, SECTOR));
        let events: Vec<_> = Events(found.events).map(Result::unwrap).collect();
        assert_eq!(events, [&b"one"[..], b"", b"three"]);
    }

    #[test]
    fn every_flipped_bit_of_a_frame_is_noticed() {
        let bytes = frame(3, &[b"some event"]);
        for bit in 0..(FRAME_HEADER + 12) * 8 {
            let mut odd = bytes.clone();
            odd[bit / 8] ^= 1 << (bit % 8);
            assert!(frame_at(&odd, 0, 7).is_none(), "bit {bit} went unnoticed");
        }
    }

    #[test]
    fn a_frame_of_another_use_of_the_file_does_not_pass() {
        assert!(frame_at(&frame(3, &[b"x"]), 0, 8).is_none());
    }

    #[test]
    fn every_flipped_bit_of_a_snapshot_is_noticed() {
        let header = SnapshotHeader {
            through: 9,
            journal: 1,
        };
        let bytes = encode_snapshot(header, b"\x02\x00ab");
        assert_eq!(decode_snapshot("snapshot", &bytes).unwrap().0, header);
        for bit in 0..bytes.len() * 8 {
            let mut odd = bytes.clone();
            odd[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_snapshot("snapshot", &odd).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_schema_is_refused_by_name() {
        let header = SegmentHeader {
            salt: 1,
            first: 1,
            journal: 1,
        };
        let mut bytes = header.encode();
        put(&mut bytes, 8, &(SCHEMA + 1).to_le_bytes());
        let crc = crc32fast::hash(&bytes[..HEADER_CRC_AT]);
        put(&mut bytes, HEADER_CRC_AT, &crc.to_le_bytes());
        let error = SegmentHeader::decode("log", &bytes).unwrap_err();
        assert!(matches!(error, JournalError::TooNew { found: 2, .. }));
    }
}
