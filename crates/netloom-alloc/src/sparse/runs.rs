//! Aligned runs in the sparse form.

use super::{CHUNK, CHUNK_ORDER, SparseBitmap, base, empty, split};
use crate::BitError;

impl SparseBitmap {
    /// Takes 2^`order` numbers that start at a multiple of 2^`order`; gives the first, or none when
    /// no such run is free.
    pub fn allocate_run(&mut self, order: u32) -> Option<u128> {
        self.allocate_run_in(order, 0, self.last)
    }

    /// As [`SparseBitmap::allocate_run`], with the whole run in `from..=last`.
    pub fn allocate_run_in(&mut self, order: u32, from: u128, last: u128) -> Option<u128> {
        // 2^128 numbers are no run: the size of the run must itself be a number.
        let above = 1_u128.checked_shl(order)? - 1;
        let last_start = last.min(self.last).checked_sub(above)?;
        if from > last_start {
            return None;
        }
        let at = self.start.position(from, last_start);
        let found = match self.find_run(order, at, last_start) {
            Some(found) => found,
            None => self.find_run(order, from, last_start)?,
        };
        self.reserve(found, found + above);
        self.start.advance(found + above);
        Some(found)
    }

    /// Takes the 2^`order` numbers from `index` on.
    ///
    /// # Errors
    /// When one of them is taken, `index` is no multiple of 2^`order`, or the run does not fit;
    /// nothing changes then.
    pub fn allocate_run_at(&mut self, index: u128, order: u32) -> Result<(), BitError> {
        let last = self.run_last(index, order)?;
        if self.next_taken(index).is_some_and(|taken| taken <= last) {
            return Err(BitError::AlreadyAllocated);
        }
        self.reserve(index, last);
        Ok(())
    }

    /// Gives the 2^`order` numbers from `index` on back.
    ///
    /// # Errors
    /// When one of them was not taken, `index` is no multiple of 2^`order`, or the run does not
    /// fit; nothing changes then.
    pub fn release_run(&mut self, index: u128, order: u32) -> Result<(), BitError> {
        let last = self.run_last(index, order)?;
        if self.next_free(index).is_some_and(|free| free <= last) {
            return Err(BitError::NotAllocated);
        }
        self.clear(index, last);
        Ok(())
    }

    fn run_last(&self, index: u128, order: u32) -> Result<u128, BitError> {
        let above = 1_u128.checked_shl(order).ok_or(BitError::OutOfRange)? - 1;
        if index & above != 0 {
            return Err(BitError::Misaligned);
        }
        match index.checked_add(above) {
            Some(last) if last <= self.last => Ok(last),
            _ => Err(BitError::OutOfRange),
        }
    }

    /// The first free aligned run that starts in `from..=last_start`.
    fn find_run(&self, order: u32, from: u128, last_start: u128) -> Option<u128> {
        let above = (1_u128 << order) - 1;
        let mut at = from.checked_add(above)? & !above;
        while at <= last_start {
            // Nothing below the next free number can be in a free run.
            at = self.next_free(at)? & !above;
            let (chunk, low) = split(at);
            let next = if order > CHUNK_ORDER {
                match self.next_taken(at) {
                    Some(taken) if taken <= at + above => at.checked_add(above + 1)?,
                    _ => return (at <= last_start).then_some(at),
                }
            } else if let Some(map) = self.partial.get(&chunk) {
                // A copy of one chunk, so that the search is the one of the dense form.
                let mut trial = map.clone();
                if let Some(found) = trial.allocate_run_in(order, low, CHUNK) {
                    let found = base(chunk) + found as u128;
                    return (found <= last_start).then_some(found);
                }
                base(chunk + 1)
            } else {
                // An untouched chunk: only the last one may be too short.
                let mut trial = empty(self.numbers_in_chunk(chunk));
                let found = base(chunk) + trial.allocate_run_in(order, low, CHUNK)? as u128;
                return (found <= last_start).then_some(found);
            };
            at = next;
        }
        None
    }
}
