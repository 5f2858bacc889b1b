//! Aligned runs of 2^k numbers: blocks and prefixes, all or nothing.

use super::Bitmap;
use crate::BitError;
use crate::shape::{FULL, WORD_BITS, masks};

impl Bitmap {
    /// Takes 2^`order` numbers that start at a multiple of 2^`order`; gives the first, or none when
    /// no such run is free.
    ///
    /// Full parts are skipped a level at a time, but broken ones are looked at word by word: with
    /// much fragmentation the cost grows with the number of leaf words.
    ///
    /// ```
    /// use netloom_alloc::{Bitmap, Policy};
    ///
    /// let mut map = Bitmap::with_policy(1024, Policy::LowestFree)?;
    /// map.allocate_at(3)?;
    /// assert_eq!(map.allocate_run(4), Some(16)); // 0..16 is broken by number 3
    /// map.release_run(16, 4)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn allocate_run(&mut self, order: u32) -> Option<usize> {
        self.allocate_run_in(order, 0, self.capacity())
    }

    /// As [`Bitmap::allocate_run`], with the whole run in `from..to`.
    pub fn allocate_run_in(&mut self, order: u32, from: usize, to: usize) -> Option<usize> {
        let size = 1_usize.checked_shl(order)?;
        let to = to.min(self.capacity());
        // The last place where a run can start, made exclusive.
        let end = to.checked_sub(size)? + 1;
        if from >= end {
            return None;
        }
        let at = self.start.position(from, end);
        let found = match self.find_run(order, at, end) {
            Some(found) => found,
            None => self.find_run(order, from, end)?,
        };
        self.reserve(found, found + size);
        // The last number of the run is what was handed out last.
        self.start.advance(found + size - 1);
        Some(found)
    }

    /// Takes the 2^`order` numbers from `index` on.
    ///
    /// # Errors
    /// When one of them is taken, `index` is no multiple of 2^`order`, or the run does not fit;
    /// nothing changes then.
    pub fn allocate_run_at(&mut self, index: usize, order: u32) -> Result<(), BitError> {
        let end = self.run_end(index, order)?;
        if masks(index, end).any(|(word, mask)| self.word(word) & mask != 0) {
            return Err(BitError::AlreadyAllocated);
        }
        self.reserve(index, end);
        Ok(())
    }

    /// Gives the 2^`order` numbers from `index` on back.
    ///
    /// # Errors
    /// When one of them was not taken, `index` is no multiple of 2^`order`, or the run does not
    /// fit; nothing changes then.
    pub fn release_run(&mut self, index: usize, order: u32) -> Result<(), BitError> {
        let end = self.run_end(index, order)?;
        if masks(index, end).any(|(word, mask)| self.word(word) & mask != mask) {
            return Err(BitError::NotAllocated);
        }
        self.clear(index, end);
        Ok(())
    }

    fn run_end(&self, index: usize, order: u32) -> Result<usize, BitError> {
        run_end(self.capacity(), index, order)
    }

    /// The first free aligned run that starts in `from..end`, where `end` leaves room for one.
    fn find_run(&self, order: u32, from: usize, end: usize) -> Option<usize> {
        let size = 1_usize << order;
        let mut at = from.checked_next_multiple_of(size)?;
        while at < end {
            // Nothing below the next free number can be in a free run.
            at = self.next_free(at)? & !(size - 1);
            if at >= end {
                break;
            }
            if size <= WORD_BITS {
                let word = at / WORD_BITS;
                let free = !self.word(word) & (FULL << (at % WORD_BITS));
                if let Some(bit) = run_in_word(free, order) {
                    let found = word * WORD_BITS + bit;
                    return (found < end).then_some(found);
                }
                at = (word + 1) * WORD_BITS;
            } else {
                let words = at / WORD_BITS..(at + size) / WORD_BITS;
                if words.into_iter().all(|word| self.word(word) == 0) {
                    return Some(at);
                }
                at += size;
            }
        }
        None
    }
}

/// Where the run ends, if it is aligned and fits.
pub(crate) fn run_end(capacity: usize, index: usize, order: u32) -> Result<usize, BitError> {
    let size = 1_usize.checked_shl(order).ok_or(BitError::OutOfRange)?;
    if !index.is_multiple_of(size) {
        return Err(BitError::Misaligned);
    }
    match index.checked_add(size) {
        Some(end) if end <= capacity => Ok(end),
        _ => Err(BitError::OutOfRange),
    }
}

/// The lowest aligned run of 2^`order` ones in `free`; `order` is at most 6.
pub(crate) fn run_in_word(free: u64, order: u32) -> Option<usize> {
    let mut starts = free;
    // After step k a bit stands where 2^(k+1) ones begin.
    for step in 0..order {
        starts &= starts >> (1 << step);
    }
    starts &= RUN_STARTS.get(order as usize)?;
    (starts != 0).then(|| starts.trailing_zeros() as usize)
}

/// A bit at every multiple of 2^k.
const RUN_STARTS: [u64; 7] = [
    FULL,
    0x5555_5555_5555_5555,
    0x1111_1111_1111_1111,
    0x0101_0101_0101_0101,
    0x0001_0001_0001_0001,
    0x0000_0001_0000_0001,
    1,
];
