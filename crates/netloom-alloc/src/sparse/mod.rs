//! The sparse form: numbers up to 128 bits, memory only where something is taken.

mod iter;
mod runs;
mod snapshot;

pub use iter::{SparseDifference, SparseTaken};

use crate::Bitmap;
use crate::error::BitError;
use crate::policy::{Policy, Start};
use alloc::collections::BTreeMap;

/// Numbers from 0 to a last one that may be 2^128 - 1, each free or taken.
///
/// Numbers lie in chunks of 4,096. A chunk of which nothing is taken holds no memory, neighbouring
/// chunks that are wholly taken are one range whatever their count, and only those between have a
/// bitmap. So every operation costs a look into a tree of the chunks in use; taking the first
/// number of a chunk takes memory, and giving the last one back gives it back.
///
/// ```
/// use netloom_alloc::SparseBitmap;
///
/// let mut map = SparseBitmap::new(u128::MAX);
/// map.reserve(0, u128::from(u64::MAX)); // one range, not 2^58 words
/// assert_eq!(map.allocate(), Some(1 << 64));
/// assert!(map.bytes_held() < 2_000);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SparseBitmap {
    last: u128,
    /// Ranges of full chunks, first to last; never touching each other.
    full: BTreeMap<u128, u128>,
    /// Chunks of which some numbers are taken, but not all.
    partial: BTreeMap<u128, Bitmap>,
    start: Start<u128>,
}

impl SparseBitmap {
    /// The numbers from 0 to `last`, all free, handed out by [`Policy::NextFit`].
    #[must_use]
    pub fn new(last: u128) -> Self {
        Self::with_policy(last, Policy::default())
    }

    /// The numbers from 0 to `last`, all free, handed out by `policy`.
    #[must_use]
    pub fn with_policy(last: u128, policy: Policy) -> Self {
        Self {
            last,
            full: BTreeMap::new(),
            partial: BTreeMap::new(),
            start: Start::new(policy),
        }
    }

    /// The highest number.
    #[must_use]
    pub fn last(&self) -> u128 {
        self.last
    }

    /// How many are taken; at most `u128::MAX`, which 2^128 taken ones saturate to.
    #[must_use]
    pub fn allocated(&self) -> u128 {
        let partial = self.partial.values().map(|chunk| chunk.allocated() as u128);
        let full = self
            .full
            .iter()
            .map(|(first, last)| self.numbers_in(*first, *last));
        partial.chain(full).fold(0, u128::saturating_add)
    }

    /// How many are free; saturates as [`SparseBitmap::allocated`] does.
    #[must_use]
    pub fn free(&self) -> u128 {
        match self.allocated() {
            0 => self.last.saturating_add(1),
            taken => self.last - (taken - 1),
        }
    }

    /// How many of `from..=last` are taken; saturates as [`SparseBitmap::allocated`] does.
    #[must_use]
    pub fn allocated_in(&self, from: u128, last: u128) -> u128 {
        let last = last.min(self.last);
        if from > last {
            return 0;
        }
        let ((first_chunk, low), (last_chunk, high)) = (split(from), split(last));
        let partial = self
            .partial
            .range(first_chunk..=last_chunk)
            .map(|(chunk, map)| {
                let from = if *chunk == first_chunk { low } else { 0 };
                let to = if *chunk == last_chunk {
                    high + 1
                } else {
                    CHUNK
                };
                map.allocated_in(from, to) as u128
            });
        let full = self
            .full
            .range(..=last_chunk)
            .rev()
            .map_while(|(first, end)| {
                let end = base(*end).saturating_add(CHUNK as u128 - 1).min(last);
                let begin = base(*first).max(from);
                end.checked_sub(begin).map(|above| above.saturating_add(1))
            });
        partial.chain(full).fold(0, u128::saturating_add)
    }

    /// The policy in force, as it would go on from here.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.start.policy()
    }

    /// Changes the policy; the next search starts as it says.
    pub fn set_policy(&mut self, policy: Policy) {
        self.start = Start::new(policy);
    }

    /// Bytes held, with an estimate of what the trees add.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        let chunks: usize = self
            .partial
            .values()
            .map(|chunk| chunk.bytes_held() + 16)
            .sum();
        size_of::<Self>() + chunks + self.full.len() * 32
    }

    /// Whether `index` is taken; what lies behind the end counts as taken.
    #[must_use]
    pub fn is_allocated(&self, index: u128) -> bool {
        if index > self.last {
            return true;
        }
        let (chunk, bit) = split(index);
        match self.partial.get(&chunk) {
            Some(map) => map.is_allocated(bit),
            None => self.full_end(chunk).is_some(),
        }
    }

    /// Takes a free number, or none when all are taken.
    pub fn allocate(&mut self) -> Option<u128> {
        self.allocate_in(0, self.last)
    }

    /// Takes a free number of `from..=last`, or none when all of these are taken.
    pub fn allocate_in(&mut self, from: u128, last: u128) -> Option<u128> {
        let last = last.min(self.last);
        if from > last {
            return None;
        }
        let at = self.start.position(from, last);
        let inside = |index: &u128| *index <= last;
        let found = self.next_free(at).filter(inside);
        let index = match found {
            Some(index) => index,
            None => self.next_free(from).filter(inside)?,
        };
        self.set(index);
        self.start.advance(index);
        Some(index)
    }

    /// Takes `index`.
    ///
    /// # Errors
    /// When it is taken already, or behind the end.
    pub fn allocate_at(&mut self, index: u128) -> Result<(), BitError> {
        if index > self.last {
            Err(BitError::OutOfRange)
        } else if self.set(index) {
            Ok(())
        } else {
            Err(BitError::AlreadyAllocated)
        }
    }

    /// Gives `index` back.
    ///
    /// # Errors
    /// When it was not taken, or lies behind the end; nothing changes then.
    pub fn release(&mut self, index: u128) -> Result<(), BitError> {
        if index > self.last {
            return Err(BitError::OutOfRange);
        }
        if !self.is_allocated(index) {
            return Err(BitError::NotAllocated);
        }
        self.clear(index, index);
        Ok(())
    }

    /// Takes all of `from..=last` that is not taken yet and says how many that were (saturating).
    pub fn reserve(&mut self, from: u128, last: u128) -> u128 {
        self.change(from, last, Change::Take)
    }

    /// Frees all of `from..=last` that is taken and says how many that were (saturating).
    pub fn clear(&mut self, from: u128, last: u128) -> u128 {
        self.change(from, last, Change::Free)
    }

    /// The lowest free number from `from` on, without taking it.
    #[must_use]
    pub fn next_free(&self, from: u128) -> Option<u128> {
        let mut at = from;
        // At most four rounds: this chunk's rest, a full range, and then a chunk with a free number.
        loop {
            if at > self.last {
                return None;
            }
            let (chunk, bit) = split(at);
            let next = match (self.partial.get(&chunk), self.full_end(chunk)) {
                (Some(map), _) => match map.next_free(bit) {
                    Some(found) => return Some(base(chunk) + found as u128),
                    None => chunk + 1,
                },
                (None, Some(end)) => end + 1,
                (None, None) => return Some(at),
            };
            if next > self.last >> CHUNK_ORDER {
                return None;
            }
            at = base(next);
        }
    }

    /// Takes `index`, which is not behind the end; false when it was taken.
    fn set(&mut self, index: u128) -> bool {
        let (chunk, bit) = split(index);
        if self.full_end(chunk).is_some() {
            return false;
        }
        let size = self.numbers_in_chunk(chunk);
        let map = self.partial.entry(chunk).or_insert_with(|| empty(size));
        let changed = map.allocate_at(bit).is_ok();
        if map.free() == 0 {
            self.partial.remove(&chunk);
            self.insert_full(chunk, chunk);
        }
        changed
    }

    fn change(&mut self, from: u128, last: u128, change: Change) -> u128 {
        let last = last.min(self.last);
        if from > last {
            return 0;
        }
        let ((first_chunk, low), (last_chunk, high)) = (split(from), split(last));
        if first_chunk == last_chunk {
            return self.change_in_chunk(first_chunk, (low, high + 1), change);
        }
        let head = self.change_in_chunk(first_chunk, (low, CHUNK), change);
        let middle = self.change_chunks(first_chunk + 1, last_chunk - 1, change);
        let tail = self.change_in_chunk(last_chunk, (0, high + 1), change);
        head.saturating_add(middle).saturating_add(tail)
    }

    /// Changes bits of one chunk and files it where it then belongs.
    fn change_in_chunk(&mut self, chunk: u128, range: (usize, usize), change: Change) -> u128 {
        let size = self.numbers_in_chunk(chunk);
        let mut map = if self.full_end(chunk).is_some() {
            if change == Change::Take {
                return 0;
            }
            self.remove_full(chunk, chunk);
            let mut full = empty(size);
            full.reserve(0, size);
            full
        } else {
            self.partial.remove(&chunk).unwrap_or_else(|| empty(size))
        };
        let changed = match change {
            Change::Take => map.reserve(range.0, range.1),
            Change::Free => map.clear(range.0, range.1),
        };
        if map.free() == 0 {
            self.insert_full(chunk, chunk);
        } else if map.allocated() > 0 {
            self.partial.insert(chunk, map);
        }
        changed as u128
    }

    /// Takes or frees whole chunks, `first..=last`; nothing when that is empty.
    fn change_chunks(&mut self, first: u128, last: u128, change: Change) -> u128 {
        if first > last {
            return 0;
        }
        let mut taken = self.remove_full(first, last);
        let mut rest = self.partial.split_off(&first);
        let mut behind = rest.split_off(&(last + 1));
        self.partial.append(&mut behind);
        for map in rest.values() {
            taken = taken.saturating_add(map.allocated() as u128);
        }
        match change {
            Change::Free => taken,
            Change::Take => {
                self.insert_full(first, last);
                self.numbers_in(first, last) - taken
            }
        }
    }

    /// The last chunk of the full range that holds `chunk`.
    fn full_end(&self, chunk: u128) -> Option<u128> {
        let (_, end) = self.full.range(..=chunk).next_back()?;
        (*end >= chunk).then_some(*end)
    }

    /// Notes that `first..=last`, none of which is full, became full; joins neighbours.
    fn insert_full(&mut self, mut first: u128, mut last: u128) {
        if let Some((before, end)) = self.full.range(..first).next_back()
            && *end + 1 == first
        {
            first = *before;
        }
        if let Some(end) = self.full.remove(&(last + 1)) {
            last = end;
        }
        self.full.insert(first, last);
    }

    /// Takes `first..=last` out of the full ranges; gives how many numbers that were (saturating).
    fn remove_full(&mut self, first: u128, last: u128) -> u128 {
        let mut removed = 0_u128;
        while let Some((&start, &end)) = self.full.range(..=last).next_back()
            && end >= first
        {
            self.full.remove(&start);
            let (low, high) = (start.max(first), end.min(last));
            removed = removed.saturating_add(self.numbers_in(low, high));
            if end > last {
                self.full.insert(last + 1, end);
            }
            if start < first {
                self.full.insert(start, first - 1);
            }
        }
        removed
    }

    /// Numbers in the chunks `first..=last` (saturating).
    fn numbers_in(&self, first: u128, last: u128) -> u128 {
        let end = base(last).saturating_add(CHUNK as u128 - 1).min(self.last);
        (end - base(first)).saturating_add(1)
    }

    fn numbers_in_chunk(&self, chunk: u128) -> usize {
        let behind = self.last - base(chunk);
        usize::try_from(behind).map_or(CHUNK, |behind| CHUNK.min(behind.saturating_add(1)))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Take,
    Free,
}

/// Bits of a number below its chunk: 4,096 numbers are one page of a 64-ary tree of two levels
/// (520 bytes), small enough that a lone address in a wide pool costs little.
const CHUNK_ORDER: u32 = 12;
const CHUNK: usize = 1 << CHUNK_ORDER;

/// The chunk of a number, and its place there.
fn split(index: u128) -> (u128, usize) {
    let low = usize::try_from(index & (CHUNK as u128 - 1));
    (
        index >> CHUNK_ORDER,
        low.expect("a place in a chunk is below 4,096"),
    )
}

/// The first number of a chunk.
fn base(chunk: u128) -> u128 {
    chunk << CHUNK_ORDER
}

/// The bitmap of a chunk of `size` numbers, all free.
fn empty(size: usize) -> Bitmap {
    Bitmap::with_policy(size, Policy::LowestFree).expect("a chunk is far below the largest bitmap")
}
