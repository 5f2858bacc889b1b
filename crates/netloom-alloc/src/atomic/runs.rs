//! Aligned runs of 2^k numbers on the atomic form, all or nothing.
//!
//! Up to 64 numbers lie in one word and are taken by one compare-and-swap. More are taken word by
//! word, each from empty to full, and given back when one fails; the claim is counted meanwhile, so
//! that nobody concludes "all are taken" from what such a claim holds for a moment.

use super::AtomicBitmap;
use super::search::CLAIM_UNDONE;
use crate::bitmap::{run_end, run_in_word};
use crate::error::BitError;
use crate::shape::{FULL, WORD_BITS, masks};
use crate::sync::Ordering;

impl AtomicBitmap {
    /// Takes 2^`order` numbers that start at a multiple of 2^`order`; gives the first, or none when
    /// no such run is free.
    pub fn allocate_run(&self, order: u32) -> Option<usize> {
        self.allocate_run_in(order, 0, self.capacity())
    }

    /// As [`AtomicBitmap::allocate_run`], with the whole run in `from..to`.
    pub fn allocate_run_in(&self, order: u32, from: usize, to: usize) -> Option<usize> {
        let size = 1_usize.checked_shl(order)?;
        let to = to.min(self.capacity());
        // The last place where a run can start, made exclusive.
        let end = to.checked_sub(size)? + 1;
        if from >= end {
            return None;
        }
        let place = self.place();
        let at = self.position(place, from, end);
        let found = match self.claim_run(order, at, end) {
            Some(found) => found,
            None => self.settled(|| self.claim_run(order, from, end))?,
        };
        self.advance(place, found + size - 1);
        Some(found)
    }

    /// Takes the 2^`order` numbers from `index` on.
    ///
    /// # Errors
    /// When one of them is taken, `index` is no multiple of 2^`order`, or the run does not fit;
    /// nothing changes then.
    pub fn allocate_run_at(&self, index: usize, order: u32) -> Result<(), BitError> {
        let end = run_end(self.capacity(), index, order)?;
        self.settled(|| self.claim_range(index, end).then_some(()))
            .ok_or(BitError::AlreadyAllocated)
    }

    /// Gives the 2^`order` numbers from `index` on back.
    ///
    /// # Errors
    /// When one of them was not taken, `index` is no multiple of 2^`order`, or the run does not
    /// fit; nothing changes then. Only if another thread releases a part of the same run at the
    /// same time, the error may come after the rest was released.
    pub fn release_run(&self, index: usize, order: u32) -> Result<(), BitError> {
        let end = run_end(self.capacity(), index, order)?;
        if masks(index, end).any(|(word, mask)| self.load(word) & mask != mask) {
            return Err(BitError::NotAllocated);
        }
        let released = masks(index, end).fold(true, |all, (word, mask)| {
            let cleared = if mask == FULL {
                self.clear_mask(word, mask) == mask
            } else {
                self.swap(word, |old| (old & mask == mask).then_some(old & !mask))
            };
            all && cleared
        });
        if released {
            Ok(())
        } else {
            Err(BitError::NotAllocated)
        }
    }

    /// Takes the first free aligned run that starts in `from..end`, where `end` leaves room for
    /// one. Hints are not asked: a run that was free all the while is found.
    fn claim_run(&self, order: u32, from: usize, end: usize) -> Option<usize> {
        let size = 1_usize << order;
        let mut at = from.checked_next_multiple_of(size)?;
        while at < end {
            if size > WORD_BITS {
                if self.claim_range(at, at + size) {
                    return Some(at);
                }
                at += size;
                continue;
            }
            let word = at / WORD_BITS;
            let free = !self.load(word) & (FULL << (at % WORD_BITS));
            match run_in_word(free, order).map(|bit| word * WORD_BITS + bit) {
                Some(found) if found >= end => return None,
                // When the race for it is lost, the same word is looked at again.
                Some(found) if self.claim_range(found, found + size) => return Some(found),
                Some(_) => {}
                None => at = (word + 1) * WORD_BITS,
            }
        }
        None
    }

    /// Takes all of an aligned range of 2^k numbers, or nothing.
    fn claim_range(&self, from: usize, to: usize) -> bool {
        if to - from <= WORD_BITS {
            return masks(from, to).all(|(word, mask)| {
                self.swap(word, |old| (old & mask == 0).then_some(old | mask))
            });
        }
        // Most failures are seen here, before anything was touched.
        let words = from / WORD_BITS..to / WORD_BITS;
        if words.clone().any(|word| self.load(word) != 0) {
            return false;
        }
        self.claims.fetch_add(1, Ordering::SeqCst);
        let empty_to_full = |old: u64| (old == 0).then_some(FULL);
        let Some(lost) = words.clone().find(|word| !self.swap(*word, empty_to_full)) else {
            self.claims.fetch_sub(1, Ordering::SeqCst);
            return true;
        };
        for word in words.start..lost {
            self.clear_mask(word, FULL);
        }
        // One less under way, one more undone, in one step.
        self.claims.fetch_add(CLAIM_UNDONE - 1, Ordering::SeqCst);
        false
    }

    /// Replaces a leaf by what `change` makes of it, or leaves it when that is nothing.
    fn swap(&self, word: usize, change: impl Fn(u64) -> Option<u64>) -> bool {
        let Some(slot) = self.words.get(word) else {
            return false;
        };
        let swapped = slot.fetch_update(Ordering::SeqCst, Ordering::SeqCst, &change);
        let Ok(old) = swapped else {
            return false;
        };
        match change(old) {
            // Whole words are marked at once; others when a search meets them.
            Some(FULL) if old == 0 => self.fill_from(1, word),
            _ => self.opened(word),
        }
        true
    }
}
