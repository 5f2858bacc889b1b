//! Where a search starts and how it goes on.

use super::{AtomicBitmap, Kind};
use crate::policy::{RANDOM_STEP, below, next_random};
use crate::shape::{FULL, RING_LEAVES_MAX, WORD_BITS, masks, near_free, ring_free, split};
use crate::sync::{AtomicU64, Ordering, wait};

/// Where a search goes on. All of it is a hint: threads that share a place may mix its two halves,
/// and what is read from it is claimed like any other number.
#[derive(Debug)]
pub(super) struct Place {
    /// Next fit: the first number of the word in hand, or where to go on when that has none left.
    /// Random start: the state of the generator.
    at: AtomicU64,
    /// Next fit: numbers of the word in hand that were free when the search came to it and lie
    /// behind the last one taken. Taking from here does not wait for the claim before to reach the
    /// leaf; a number of this word that is released meanwhile is found in the next round.
    ahead: AtomicU64,
}

/// A place for some of the threads, on a cache line of its own so that threads do not slow each
/// other down by noting where they are.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Stripe(pub(super) Place);

impl Place {
    pub(super) fn new(at: u64) -> Self {
        Self {
            at: AtomicU64::new(at),
            ahead: AtomicU64::new(0),
        }
    }

    /// Takes the next number of the word in hand, if one is left.
    #[inline]
    pub(super) fn take(&self) -> Option<usize> {
        let ahead = self.ahead.load(Ordering::Relaxed);
        if ahead == 0 {
            return None;
        }
        let rest = ahead & (ahead - 1);
        self.ahead.store(rest, Ordering::Relaxed);
        let at = self.at.load(Ordering::Relaxed);
        // Behind the last number of a word the search goes on in the next one.
        let step = if rest == 0 { WORD_BITS as u64 } else { 0 };
        self.at.store(at + step, Ordering::Relaxed);
        usize::try_from(at | u64::from(ahead.trailing_zeros())).ok()
    }

    /// Where the search goes on, as a number.
    #[inline]
    pub(super) fn index(&self) -> usize {
        let ahead = self.ahead.load(Ordering::Relaxed);
        let at = self.at.load(Ordering::Relaxed);
        let skip = if ahead == 0 {
            0
        } else {
            u64::from(ahead.trailing_zeros())
        };
        usize::try_from(at | skip).unwrap_or(0)
    }

    /// The value as it is.
    pub(super) fn value(&self) -> u64 {
        self.at.load(Ordering::Relaxed)
    }
}

impl AtomicBitmap {
    /// The place at which this thread starts.
    #[inline]
    pub(super) fn place(&self) -> &Place {
        let stripe = below(thread_number(), self.stripes.len());
        self.stripes
            .get(stripe)
            .map_or(&self.place, |stripe| &stripe.0)
    }

    /// Where in `from..to`, which is not empty, to start.
    #[inline]
    pub(super) fn position(&self, place: &Place, from: usize, to: usize) -> usize {
        match self.kind {
            Kind::Lowest => from,
            Kind::Next => {
                let at = place.index();
                if (from..to).contains(&at) { at } else { from }
            }
            Kind::Random => {
                let mut state = place.value();
                let random = next_random(&mut state);
                place.at.store(state, Ordering::Relaxed);
                from + below(random, to - from)
            }
        }
    }

    /// Notes that `index` was handed out, and what else its word has.
    #[inline]
    pub(super) fn advance(&self, place: &Place, index: usize) {
        if self.kind != Kind::Next {
            return;
        }
        let (word, bit) = split(index);
        let ahead = !self.hint(word) & !(bit | (bit - 1));
        // An empty word in hand is passed by; otherwise the place is its first number.
        let at = if ahead == 0 {
            (word + 1) * WORD_BITS
        } else {
            word * WORD_BITS
        };
        place.at.store(at as u64, Ordering::Relaxed);
        place.ahead.store(ahead, Ordering::Relaxed);
    }

    /// Takes a number of the few leaves from `at` on, below `to`.
    #[inline]
    pub(super) fn claim_near(&self, at: usize, from: usize, to: usize) -> Option<usize> {
        let leaves = self.shape.leaves();
        let index = if leaves <= RING_LEAVES_MAX && to - from == self.capacity() {
            ring_free(at, leaves, |leaf| self.hint(leaf))?
        } else {
            near_free(
                at,
                |leaf| if leaf < leaves { self.hint(leaf) } else { FULL },
            )?
        };
        (index < to && self.claim_index(index)).then_some(index)
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
            if self.claim_index(index) {
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
                let index = word * WORD_BITS + open.trailing_zeros() as usize;
                if self.claim_index(index) {
                    return Some(index);
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
