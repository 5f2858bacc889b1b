//! Looking at what is taken in the sparse form.

use super::{SparseBitmap, base, split};
use crate::Side;

impl SparseBitmap {
    /// The lowest taken number from `from` on.
    #[must_use]
    pub fn next_taken(&self, from: u128) -> Option<u128> {
        if from > self.last {
            return None;
        }
        let (chunk, bit) = split(from);
        if self.full_end(chunk).is_some() {
            return Some(from);
        }
        let here = self.partial.get(&chunk).and_then(|map| map.next_taken(bit));
        if let Some(found) = here {
            return Some(base(chunk) + found as u128);
        }
        let full = self
            .full
            .range(chunk + 1..)
            .next()
            .map(|(first, _)| base(*first));
        let partial = self
            .partial
            .range(chunk + 1..)
            .next()
            .and_then(|(next, map)| {
                // A chunk that is kept has something taken.
                map.next_taken(0).map(|found| base(*next) + found as u128)
            });
        match (full, partial) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The numbers that are taken, in order. Reserved ranges count one by one, so this may be long.
    #[must_use]
    pub fn taken(&self) -> SparseTaken<'_> {
        SparseTaken {
            map: self,
            next: Some(0),
        }
    }

    /// What is taken in only one of two bitmaps, in order; sizes may differ.
    #[must_use]
    pub fn difference<'a>(&'a self, other: &'a Self) -> SparseDifference<'a> {
        let (mut left, mut right) = (self.taken(), other.taken());
        SparseDifference {
            heads: (left.next(), right.next()),
            left,
            right,
        }
    }
}

/// The numbers that are taken; see [`SparseBitmap::taken`].
#[derive(Debug, Clone)]
pub struct SparseTaken<'a> {
    map: &'a SparseBitmap,
    /// Where to look next; none behind the last number there is.
    next: Option<u128>,
}

impl Iterator for SparseTaken<'_> {
    type Item = u128;

    fn next(&mut self) -> Option<u128> {
        let found = self.map.next_taken(self.next?);
        self.next = found.and_then(|found| found.checked_add(1));
        found
    }
}

/// What is taken in only one of two bitmaps; see [`SparseBitmap::difference`].
#[derive(Debug, Clone)]
pub struct SparseDifference<'a> {
    left: SparseTaken<'a>,
    right: SparseTaken<'a>,
    heads: (Option<u128>, Option<u128>),
}

impl Iterator for SparseDifference<'_> {
    type Item = (u128, Side);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.heads {
                (Some(a), Some(b)) if a == b => self.heads = (self.left.next(), self.right.next()),
                (Some(a), Some(b)) if b < a => {
                    self.heads.1 = self.right.next();
                    return Some((b, Side::Right));
                }
                (Some(a), _) => {
                    self.heads.0 = self.left.next();
                    return Some((a, Side::Left));
                }
                (None, Some(b)) => {
                    self.heads.1 = self.right.next();
                    return Some((b, Side::Right));
                }
                (None, None) => return None,
            }
        }
    }
}
