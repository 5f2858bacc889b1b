//! The exclusive form: one owner, `&mut self`, no atomics.

mod iter;
mod resize;
mod runs;

pub use iter::{Difference, Free, Side, Taken};
pub(crate) use runs::{run_end, run_in_word};

use crate::error::BitError;
use crate::policy::{Policy, Start};
use crate::shape::{FULL, RING_LEAVES_MAX, Shape, WORD_BITS, masks, near_free, ring_free, split};
use crate::{ResizeError, snapshot};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Numbers from 0 up, each free or taken, with summary words that find a free one in a step per
/// level.
///
/// Memory is taken once, at construction: 64 bits of leaf and a 63rd part of that for the levels
/// above. No operation but [`Bitmap::resize`] and the snapshots touches the heap.
///
/// ```
/// use netloom_alloc::{BitError, Bitmap};
///
/// let mut ports = Bitmap::new(28_232)?;
/// let port = ports.allocate().expect("nothing is taken yet");
/// assert_eq!(ports.allocate_at(port), Err(BitError::AlreadyAllocated));
/// ports.release(port)?;
/// assert_eq!(ports.release(port), Err(BitError::NotAllocated));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    /// All levels, leaves first. A bit of a higher level is set exactly when its child is full.
    words: Box<[u64]>,
    shape: Shape,
    allocated: usize,
    start: Start<usize>,
}

impl Bitmap {
    /// `capacity` free numbers, handed out by [`Policy::NextFit`].
    ///
    /// # Errors
    /// When `capacity` is above [`crate::BITS_MAX`].
    pub fn new(capacity: usize) -> Result<Self, ResizeError> {
        Self::with_policy(capacity, Policy::default())
    }

    /// `capacity` free numbers, handed out by `policy`.
    ///
    /// # Errors
    /// When `capacity` is above [`crate::BITS_MAX`].
    pub fn with_policy(capacity: usize, policy: Policy) -> Result<Self, ResizeError> {
        let shape = Shape::new(capacity).ok_or(ResizeError::TooLarge { bits: capacity })?;
        Ok(Self {
            words: shape.empty_words().into(),
            shape,
            allocated: 0,
            start: Start::new(policy),
        })
    }

    /// How many numbers there are, free or taken.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shape.capacity()
    }

    /// How many are taken.
    #[must_use]
    pub fn allocated(&self) -> usize {
        self.allocated
    }

    /// How many are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.capacity() - self.allocated
    }

    /// How many of `from..to` are taken; looks at every word of the range.
    #[must_use]
    pub fn allocated_in(&self, from: usize, to: usize) -> usize {
        masks(from.min(self.capacity()), to.min(self.capacity()))
            .map(|(word, mask)| (self.word(word) & mask).count_ones() as usize)
            .sum()
    }

    /// The policy in force, as it would go on from here (a random one with its current state).
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.start.policy()
    }

    /// Changes the policy; the next search starts as it says.
    pub fn set_policy(&mut self, policy: Policy) {
        self.start = Start::new(policy);
    }

    /// Bytes held, on the heap and in the value itself.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.words)
    }

    /// Whether `index` is taken; what lies behind the end counts as taken.
    #[inline]
    #[must_use]
    pub fn is_allocated(&self, index: usize) -> bool {
        let (word, bit) = split(index);
        index >= self.capacity() || self.word(word) & bit != 0
    }

    /// Takes a free number, or none when all are taken.
    #[inline]
    pub fn allocate(&mut self) -> Option<usize> {
        self.allocate_in(0, self.capacity())
    }

    /// Takes a free number of `from..to`, or none when all of these are taken. What lies behind
    /// the end of the bitmap is left out.
    #[inline]
    pub fn allocate_in(&mut self, from: usize, to: usize) -> Option<usize> {
        // The word in hand has a free bit nearly always, unless nearly all is taken.
        if let Start::Next(at) = self.start
            && from <= at
            && let Some(slot) = self.words.get_mut(at / WORD_BITS)
        {
            let open = !*slot & (FULL << (at % WORD_BITS));
            let index = at / WORD_BITS * WORD_BITS + open.trailing_zeros() as usize;
            if open != 0 && index < to.min(self.shape.capacity()) {
                *slot |= open & open.wrapping_neg();
                let now = *slot;
                self.allocated += 1;
                self.start = Start::Next(index + 1);
                if now == FULL {
                    self.filled(at / WORD_BITS, now);
                }
                return Some(index);
            }
        }
        self.allocate_far(from, to)
    }

    /// Takes a number of `from..to` when the word in hand has none.
    #[inline(never)]
    fn allocate_far(&mut self, from: usize, to: usize) -> Option<usize> {
        let to = to.min(self.capacity());
        if from >= to {
            return None;
        }
        let at = self.start.position(from, to);
        let inside = |index: &usize| *index < to;
        let whole = to - from == self.capacity();
        let near = if whole && self.shape.leaves() <= RING_LEAVES_MAX {
            ring_free(at, self.shape.leaves(), |leaf| self.word(leaf))
        } else {
            self.near_free(at).filter(inside)
        };
        let index = match near {
            Some(index) => index,
            None => {
                let ahead = self.next_free(at).filter(inside);
                ahead.or_else(|| self.next_free(from).filter(inside))?
            }
        };
        self.set(index);
        self.start.advance(index);
        Some(index)
    }

    /// Takes `index`. The policy's next search is not moved by it.
    ///
    /// # Errors
    /// When it is taken already, or behind the end.
    #[inline]
    pub fn allocate_at(&mut self, index: usize) -> Result<(), BitError> {
        if index >= self.capacity() {
            return Err(BitError::OutOfRange);
        }
        if self.set(index) {
            Ok(())
        } else {
            Err(BitError::AlreadyAllocated)
        }
    }

    /// Gives `index` back.
    ///
    /// # Errors
    /// When it was not taken, or lies behind the end; nothing changes then.
    #[inline]
    pub fn release(&mut self, index: usize) -> Result<(), BitError> {
        if index >= self.capacity() {
            return Err(BitError::OutOfRange);
        }
        let (word, bit) = split(index);
        let Some(slot) = self.words.get_mut(word) else {
            return Err(BitError::OutOfRange);
        };
        let old = *slot;
        if old & bit == 0 {
            return Err(BitError::NotAllocated);
        }
        *slot = old & !bit;
        self.allocated -= 1;
        self.opened(word);
        Ok(())
    }

    /// Takes all of `from..to` that is not taken yet and says how many that were.
    pub fn reserve(&mut self, from: usize, to: usize) -> usize {
        let mut changed = 0;
        for (word, mask) in masks(from.min(self.capacity()), to.min(self.capacity())) {
            changed += self.set_mask(word, mask);
        }
        changed
    }

    /// Frees all of `from..to` that is taken and says how many that were.
    pub fn clear(&mut self, from: usize, to: usize) -> usize {
        let mut changed = 0;
        for (word, mask) in masks(from.min(self.capacity()), to.min(self.capacity())) {
            changed += self.clear_mask(word, mask);
        }
        changed
    }

    /// The lowest free number of the few leaves from `from` on, which is below the capacity.
    #[inline]
    fn near_free(&self, from: usize) -> Option<usize> {
        near_free(from, |leaf| {
            if leaf < self.shape.leaves() {
                self.word(leaf)
            } else {
                FULL
            }
        })
    }

    /// The lowest free number from `from` on, without taking it.
    #[inline]
    #[must_use]
    pub fn next_free(&self, from: usize) -> Option<usize> {
        // Up: the first level at which something is free at or behind this place.
        let (mut word, mut low) = (from / WORD_BITS, from % WORD_BITS);
        for level in 0..self.shape.levels() {
            if word >= self.shape.words_in(level) {
                return None;
            }
            let open = !self.word(self.shape.start(level) + word) & (FULL << low);
            if open != 0 {
                let child = word * WORD_BITS + open.trailing_zeros() as usize;
                return Some(self.descend(level, child));
            }
            let next = word + 1;
            (word, low) = (next / WORD_BITS, next % WORD_BITS);
        }
        None
    }

    /// Down: the lowest free bit below bit `index` of `level`.
    #[inline]
    fn descend(&self, level: usize, mut index: usize) -> usize {
        for below in (0..level).rev() {
            let open = !self.word(self.shape.start(below) + index);
            index = index * WORD_BITS + open.trailing_zeros() as usize;
        }
        index
    }

    /// A word of any level; one that is not there has nothing free.
    #[inline]
    fn word(&self, at: usize) -> u64 {
        self.words.get(at).copied().unwrap_or(FULL)
    }

    /// Takes `index`, which is below the capacity; false when it was taken.
    #[inline]
    fn set(&mut self, index: usize) -> bool {
        let (word, bit) = split(index);
        self.set_mask(word, bit) == 1
    }

    /// Sets the bits of `mask` in a leaf and counts those that changed.
    #[inline]
    fn set_mask(&mut self, word: usize, mask: u64) -> usize {
        let Some(slot) = self.words.get_mut(word) else {
            return 0;
        };
        let old = *slot;
        *slot = old | mask;
        let now = *slot;
        self.filled(word, now);
        let changed = (mask & !old).count_ones() as usize;
        self.allocated += changed;
        changed
    }

    /// Clears the bits of `mask` in a leaf and counts those that changed.
    fn clear_mask(&mut self, word: usize, mask: u64) -> usize {
        let Some(slot) = self.words.get_mut(word) else {
            return 0;
        };
        let old = *slot;
        *slot = old & !mask;
        let changed = (old & mask).count_ones() as usize;
        self.allocated -= changed;
        if changed > 0 {
            self.opened(word);
        }
        changed
    }

    /// Tells the level above whether a leaf is full, which holds `now` after bits of it were set.
    ///
    /// The first level is written in any case: where nearly all is taken, a branch on "full" is
    /// mispredicted every other time, which costs more than the write.
    #[inline]
    fn filled(&mut self, leaf: usize, now: u64) {
        let (word, bit) = split(leaf);
        let start = self.shape.start(1);
        let Some(slot) = self.words.get_mut(start + word) else {
            return;
        };
        *slot |= if now == FULL { bit } else { 0 };
        if *slot == FULL {
            self.fill_above(word);
        }
    }

    /// Tells the level above that a leaf is not full now that bits of it were cleared.
    #[inline]
    fn opened(&mut self, leaf: usize) {
        let (word, bit) = split(leaf);
        let start = self.shape.start(1);
        let Some(slot) = self.words.get_mut(start + word) else {
            return;
        };
        let old = *slot;
        *slot = old & !bit;
        if old == FULL {
            self.open_above(word);
        }
    }

    /// Tells the levels above the first that a word of that is full.
    #[cold]
    fn fill_above(&mut self, mut child: usize) {
        for level in 2..self.shape.levels() {
            let (word, bit) = split(child);
            let at = self.shape.start(level) + word;
            let Some(slot) = self.words.get_mut(at) else {
                return;
            };
            *slot |= bit;
            if *slot != FULL {
                return;
            }
            child = word;
        }
    }

    /// Tells the levels above the first that a word of that is full no more.
    #[cold]
    fn open_above(&mut self, mut child: usize) {
        for level in 2..self.shape.levels() {
            let (word, bit) = split(child);
            let at = self.shape.start(level) + word;
            let Some(slot) = self.words.get_mut(at) else {
                return;
            };
            let old = *slot;
            *slot = old & !bit;
            if old != FULL {
                return;
            }
            child = word;
        }
    }

    /// Leaf words without the bits behind the end.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = u64> {
        let words = self.words.iter().take(self.shape.leaves()).enumerate();
        words.map(|(at, word)| word & !self.shape.padding(at))
    }

    /// A bitmap whose leaves are `leaves`; missing ones are empty, bits behind the end are ignored.
    pub(crate) fn from_leaves(
        shape: Shape,
        start: Start<usize>,
        leaves: impl Iterator<Item = u64>,
    ) -> Self {
        let mut map = Self {
            words: shape.empty_words().into(),
            shape,
            allocated: 0,
            start,
        };
        for (word, leaf) in leaves.take(shape.leaves()).enumerate() {
            map.set_mask(word, leaf & !shape.padding(word));
        }
        map
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    pub(crate) fn start(&self) -> Start<usize> {
        self.start
    }

    /// The words of all levels.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// A compact copy: the policy with its position, and the leaves with runs of empty and full
    /// words folded.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        snapshot::encode_bitmap(self.capacity(), self.start, self.leaves())
    }

    /// The bitmap that [`Bitmap::snapshot`] wrote.
    ///
    /// `capacity` is what the caller expects: so hostile bytes cannot ask for memory.
    ///
    /// # Errors
    /// When the bytes are not exactly such a snapshot, or one of another capacity.
    pub fn restore(bytes: &[u8], capacity: usize) -> Result<Self, crate::SnapshotError> {
        snapshot::decode_bitmap(bytes, capacity)
    }
}
