//! Snapshots of the sparse form; the format is drawn in the `snapshot` module.

use super::{CHUNK_ORDER, SparseBitmap, empty};
use crate::Bitmap;
use crate::error::SnapshotError;
use crate::policy::Start;
use crate::shape::Shape;
use crate::snapshot::{Reader, Writer};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

const SPARSE: [u8; 3] = *b"NLS";

impl SparseBitmap {
    /// A compact copy: the policy with its position, the full ranges, the other chunks.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let (tag, value) = match self.start {
            Start::Lowest => (0, 0),
            Start::Next(at) => (1, at),
            Start::Random(state) => (2, u128::from(state)),
        };
        let mut out = Writer::new(SPARSE);
        out.u8(tag);
        out.bytes(&value.to_le_bytes());
        out.bytes(&self.last.to_le_bytes());
        // Each number is written as its distance from the one before.
        let mut before = 0;
        out.count(self.full.len() as u128);
        for (first, last) in &self.full {
            out.count(first - before);
            out.count(last - first);
            before = *last;
        }
        let mut before = 0;
        out.count(self.partial.len() as u128);
        for (chunk, map) in &self.partial {
            out.count(chunk - before);
            out.words(&map.leaves().collect::<Vec<_>>());
            before = *chunk;
        }
        out.finish()
    }

    /// Whether these bytes begin as a snapshot of this form does.
    pub(crate) fn is_snapshot(bytes: &[u8]) -> bool {
        bytes.starts_with(&SPARSE)
    }

    /// The bitmap that [`SparseBitmap::snapshot`] wrote, when its last number is `last`.
    ///
    /// # Errors
    /// When the bytes are not exactly such a snapshot, or one of another size.
    pub fn restore(bytes: &[u8], last: u128) -> Result<Self, SnapshotError> {
        let mut input = Reader::new(bytes, SPARSE)?;
        let tag = input.u8()?;
        let value = u128::from_le_bytes(input.array()?);
        if u128::from_le_bytes(input.array()?) != last {
            return Err(SnapshotError::Mismatch {
                what: "the last number",
            });
        }
        let start = match (tag, value) {
            (0, 0) => Start::Lowest,
            (1, at) if at <= last.saturating_add(1) => Start::Next(at),
            (2, state) => {
                u64::try_from(state)
                    .map(Start::Random)
                    .map_err(|_| SnapshotError::Corrupt {
                        what: "the seed is too large",
                    })?
            }
            _ => {
                return Err(SnapshotError::Corrupt {
                    what: "the policy is unknown",
                });
            }
        };
        let full = read_full(&mut input, last >> CHUNK_ORDER)?;
        let mut map = Self {
            last,
            full,
            partial: BTreeMap::new(),
            start,
        };
        map.read_partial(&mut input)?;
        input.finish()?;
        Ok(map)
    }

    fn read_partial(&mut self, input: &mut Reader<'_>) -> Result<(), SnapshotError> {
        const BAD: SnapshotError = SnapshotError::Corrupt {
            what: "a chunk does not fit",
        };
        let mut before = None;
        for _ in 0..input.count()? {
            let chunk = input.count()?.checked_add(before.unwrap_or(0)).ok_or(BAD)?;
            if chunk > self.last >> CHUNK_ORDER
                || before == Some(chunk)
                || self.full_end(chunk).is_some()
            {
                return Err(BAD);
            }
            before = Some(chunk);
            let size = self.numbers_in_chunk(chunk);
            let shape = Shape::new(size).ok_or(BAD)?;
            let leaves = input.words(shape.leaves())?;
            let padded = leaves
                .iter()
                .enumerate()
                .any(|(at, leaf)| leaf & shape.padding(at) != 0);
            let map = Bitmap::from_leaves(shape, Start::Lowest, leaves.into_iter());
            if padded || map.allocated() == 0 || map.free() == 0 {
                return Err(BAD);
            }
            debug_assert_eq!(map.policy(), empty(size).policy());
            self.partial.insert(chunk, map);
        }
        Ok(())
    }
}

/// Reads the full ranges, which must be apart from each other and end by `last_chunk`.
fn read_full(
    input: &mut Reader<'_>,
    last_chunk: u128,
) -> Result<BTreeMap<u128, u128>, SnapshotError> {
    const BAD: SnapshotError = SnapshotError::Corrupt {
        what: "a full range does not fit",
    };
    let mut full = BTreeMap::new();
    let mut before: Option<u128> = None;
    for _ in 0..input.count()? {
        let gap = input.count()?;
        // Ranges that touch would have been written as one.
        if before.is_some() && gap < 2 {
            return Err(BAD);
        }
        let first = before.unwrap_or(0).checked_add(gap).ok_or(BAD)?;
        let last = first.checked_add(input.count()?).ok_or(BAD)?;
        if last > last_chunk {
            return Err(BAD);
        }
        full.insert(first, last);
        before = Some(last);
    }
    Ok(full)
}
