//! Where a search starts and how it goes on.

use super::{AtomicBitmap, Kind};
use crate::policy::{RANDOM_STEP, below, next_random};
use crate::shape::{FULL, WORD_BITS, masks, split};
use crate::sync::{AtomicU64, Ordering, wait};

/// A place at which some of the threads start, on a cache line of its own so that they do not slow
/// each other down by noting where they are.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Stripe(AtomicU64);

impl Stripe {
    pub(super) fn new(place: u64) -> Self {
        Self(AtomicU64::new(place))
    }
}

impl AtomicBitmap {
    /// The place at which this thread starts.
    #[inline]
    pub(super) fn place(&self) -> &AtomicU64 {
        let stripe = below(thread_number(), self.stripes.len());
        self.stripes
            .get(stripe)
            .map_or(&self.place, |stripe| &stripe.0)
    }

    /// Where in `from..to`, which is not empty, to start. Places are only hints: two threads that
    /// read the same one meet, and one of them goes on.
    #[inline]
    pub(super) fn position(&self, place: &AtomicU64, from: usize, to: usize) -> usize {
        match self.kind {
            Kind::Lowest => from,
            Kind::Next => match usize::try_from(place.load(Ordering::Relaxed)) {
                Ok(at) if (from..to).contains(&at) => at,
                _ => from,
            },
            Kind::Random => {
                let mut state = place.load(Ordering::Relaxed);
                let random = next_random(&mut state);
                place.store(state, Ordering::Relaxed);
                from + below(random, to - from)
            }
        }
    }

    /// Notes that `index` was handed out.
    #[inline]
    pub(super) fn advance(&self, place: &AtomicU64, index: usize) {
        if self.kind == Kind::Next {
            place.store(index as u64 + 1, Ordering::Relaxed);
        }
    }

    /// Takes a number of the word that `at` lies in, from `at` on and below `to`.
    #[inline]
    pub(super) fn claim_here(&self, at: usize, to: usize) -> Option<usize> {
        let (word, low) = (at / WORD_BITS, at % WORD_BITS);
        let open = !self.hint(word) & (FULL << low);
        if open == 0 {
            return None;
        }
        let bit = open.trailing_zeros() as usize;
        let index = word * WORD_BITS + bit;
        (index < to && self.claim(word, 1 << bit)).then_some(index)
    }

    /// Takes a number of `from..to`, searching from `at` on and then from the beginning; none only
    /// when every leaf of the range was seen full.
    pub(super) fn search(&self, at: usize, from: usize, to: usize) -> Option<usize> {
        for _ in 0..RACES_MAX {
            let inside = |index: &usize| *index < to;
            let found = self.next_free(at).filter(inside);
            let Some(index) = found.or_else(|| self.next_free(from).filter(inside)) else {
                break;
            };
            let (word, bit) = split(index);
            if self.claim(word, bit) {
                return Some(index);
            }
        }
        self.settled(|| self.scan(from, to))
    }

    /// The lowest number from `from` on that seems free.
    pub(crate) fn next_free(&self, from: usize) -> Option<usize> {
        loop {
            let (level, child) = self.ascend(from)?;
            if let Some(index) = self.descend(level, child) {
                return Some(index);
            }
            // A word under an open hint was full. It is marked now, so this comes to an end.
        }
    }

    /// The first level at which something seems open at or behind `from`, and the bit there.
    fn ascend(&self, from: usize) -> Option<(usize, usize)> {
        let (mut word, mut low) = (from / WORD_BITS, from % WORD_BITS);
        for level in 0..self.shape.levels() {
            if word >= self.shape.words_in(level) {
                return None;
            }
            let open = !self.hint(self.shape.start(level) + word) & (FULL << low);
            if open != 0 {
                return Some((level, word * WORD_BITS + open.trailing_zeros() as usize));
            }
            let next = word + 1;
            (word, low) = (next / WORD_BITS, next % WORD_BITS);
        }
        None
    }

    /// The lowest free number below bit `index` of `level`; none when a hint was wrong, which is
    /// mended then.
    fn descend(&self, level: usize, mut index: usize) -> Option<usize> {
        for below in (0..level).rev() {
            let open = !self.hint(self.shape.start(below) + index);
            if open == 0 {
                self.fill_from(below + 1, index);
                return None;
            }
            index = index * WORD_BITS + open.trailing_zeros() as usize;
        }
        Some(index)
    }

    /// Takes the lowest free number of `from..to`, looking at every leaf.
    fn scan(&self, from: usize, to: usize) -> Option<usize> {
        masks(from, to).find_map(|(word, mask)| {
            loop {
                let open = !self.load(word) & mask;
                if open == 0 {
                    return None;
                }
                // Each round that is lost was won by another thread.
                let bit = open.trailing_zeros() as usize;
                if self.claim(word, 1 << bit) {
                    return Some(word * WORD_BITS + bit);
                }
            }
        })
    }

    /// Tries until something is found, or nothing while no claim of several words was undone or
    /// under way: what such a claim held for a moment was not really taken.
    #[cold]
    pub(super) fn settled<T>(&self, attempt: impl Fn() -> Option<T>) -> Option<T> {
        loop {
            let before = self.claims.load(Ordering::SeqCst);
            if let Some(found) = attempt() {
                return Some(found);
            }
            let after = self.claims.load(Ordering::SeqCst);
            if after & CLAIMS_UNDER_WAY == 0 && undone(before) == undone(after) {
                return None;
            }
            wait();
        }
    }

    /// A word that is only looked at to decide where to try.
    #[inline]
    fn hint(&self, at: usize) -> u64 {
        self.words
            .get(at)
            .map_or(FULL, |word| word.load(Ordering::Relaxed))
    }
}

/// A number that threads which run at the same time seldom share: the megabyte their stack lies in,
/// spread by multiplication. It needs no thread-local storage, and a wrong guess costs only time.
#[inline]
fn thread_number() -> u64 {
    let here = 0_u8;
    let megabyte = core::ptr::from_ref(&here).addr() as u64 >> 20;
    megabyte.wrapping_mul(RANDOM_STEP)
}

fn undone(claims: u64) -> u64 {
    claims / CLAIM_UNDONE
}

/// The low half of the claim counter.
pub(super) const CLAIMS_UNDER_WAY: u64 = CLAIM_UNDONE - 1;

/// One undone claim.
pub(super) const CLAIM_UNDONE: u64 = 1 << 32;

/// Races for a free number that are lost before every leaf is looked at. Losing even one needs
/// another thread in the same word at the same moment.
const RACES_MAX: usize = 32;
