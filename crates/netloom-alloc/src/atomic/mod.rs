//! The atomic form: several threads, `&self`, no lock.
//!
//! The leaves are the truth. A number is taken by setting its bit with one atomic operation and
//! given back by clearing it with one, so no number is out twice whatever the levels above say.
//!
//! The levels above are hints, kept by this protocol:
//!
//! - Who meets a full word on its way down from an open hint, or fills a whole word at once, sets
//!   the bit in the level above, **and then looks at the word again**; if it is full no more, it
//!   clears the bit again.
//! - Who opens a word looks at the bit above after it cleared the bit below, and clears it if set.
//!
//! All of these are sequentially consistent, so either the opener clears a bit that was set before,
//! or the other sees the open word: no bit says "full" for ever above a word that is not. The
//! other error, "open" above a full word, only costs time, and whoever meets it mends it. So taking
//! a number never writes a hint: the few words around the last one are looked at directly, hints are
//! asked when these are full, and what a search mends was made wrong by one allocation before.
//!
//! While both are under way a hint may be wrong for a moment. So "all are taken" is never said from
//! hints: a refusal has looked at every leaf once. A number that was free all the while is found by
//! that look.

mod runs;
mod search;

use crate::bitmap::Bitmap;
use crate::error::{BitError, ResizeError};
use crate::policy::{Policy, Start, mix};
use crate::shape::{FULL, Shape, WORD_BITS, masks, split};
use crate::sync::{AtomicU64, Ordering};
use alloc::boxed::Box;
use search::{Place, Stripe};

/// Numbers from 0 up, each free or taken, shared by threads without a lock.
///
/// The operations are those of [`Bitmap`], on `&self`. One allocation is one atomic operation on a
/// leaf, and one release is one, as long as a free bit is near; the levels above are written only
/// when a search meets a full word, and when that is opened. There is no shared counter: counting adds up the
/// leaves.
///
/// Only a refusal costs more than a few steps: it has looked at every leaf once, so that `None` is
/// never said while a number was free from the call's beginning to its end. It may then wait for
/// another thread that is in the middle of taking a run of more than 64 numbers.
///
/// Threads start their searches at a few places of a wide bitmap, so [`Policy::NextFit`] orders
/// reuse for each place, and [`Policy::LowestFree`] is exact only while no other thread works.
///
/// ```
/// use netloom_alloc::AtomicBitmap;
///
/// let map = AtomicBitmap::new(4_000)?;
/// std::thread::scope(|scope| {
///     for _ in 0..4 {
///         scope.spawn(|| (0..1_000).for_each(|_| assert!(map.allocate().is_some())));
///     }
/// });
/// assert_eq!(map.allocate(), None); // 4,000 numbers, each to one thread
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct AtomicBitmap {
    /// All levels, leaves first.
    words: Box<[AtomicU64]>,
    shape: Shape,
    kind: Kind,
    /// Where the next search starts, for bitmaps without stripes.
    place: Place,
    /// The same for wide bitmaps, one for some of the threads each.
    stripes: Box<[Stripe]>,
    /// Claims of runs of several words: those under way in the low half, those undone above.
    claims: AtomicU64,
}

/// The policy, without its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lowest,
    Next,
    Random,
}

impl AtomicBitmap {
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
        Ok(Self::from_words(
            shape,
            Start::new(policy),
            shape.empty_words().into_iter(),
        ))
    }

    fn from_words(shape: Shape, start: Start<usize>, words: impl Iterator<Item = u64>) -> Self {
        let (kind, value) = match start {
            Start::Lowest => (Kind::Lowest, 0),
            Start::Next(at) => (Kind::Next, at as u64),
            Start::Random(state) => (Kind::Random, state),
        };
        let stripes = (shape.leaves() / STRIPE_LEAVES).min(STRIPES_MAX);
        let capacity = shape.capacity();
        let place = |stripe: usize| match kind {
            Kind::Lowest => Place::new(0),
            // Spread evenly from where the search stood.
            Kind::Next => {
                let ahead = capacity / stripes.max(1) * stripe;
                Place::new((value + ahead as u64) % (capacity as u64).max(1))
            }
            Kind::Random => Place::new(mix(value.wrapping_add(stripe as u64))),
        };
        Self {
            words: words.map(AtomicU64::new).collect(),
            shape,
            kind,
            place: if kind == Kind::Random {
                Place::new(value)
            } else {
                place(0)
            },
            stripes: (0..stripes).map(|at| Stripe(place(at))).collect(),
            claims: AtomicU64::new(0),
        }
    }

    /// How many numbers there are, free or taken.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shape.capacity()
    }

    /// How many are taken. This adds up all leaves; while other threads work, each leaf is counted
    /// at its own moment.
    #[must_use]
    pub fn allocated(&self) -> usize {
        let taken = |word| (self.load(word) & !self.shape.padding(word)).count_ones() as usize;
        (0..self.shape.leaves()).map(taken).sum()
    }

    /// Bytes held, on the heap and in the value itself.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.words) + size_of_val(&*self.stripes)
    }

    /// Whether `index` is taken at this moment; what lies behind the end counts as taken.
    #[inline]
    #[must_use]
    pub fn is_allocated(&self, index: usize) -> bool {
        let (word, bit) = split(index);
        index >= self.capacity() || self.load(word) & bit != 0
    }

    /// Takes a free number, or none when all are taken.
    #[inline]
    pub fn allocate(&self) -> Option<usize> {
        self.allocate_in(0, self.capacity())
    }

    /// Takes a free number of `from..to`, or none when all of these are taken. What lies behind
    /// the end of the bitmap is left out.
    #[inline]
    pub fn allocate_in(&self, from: usize, to: usize) -> Option<usize> {
        let place = self.place();
        if self.kind == Kind::Next
            && let Some(index) = place.take()
            && (from..to).contains(&index)
            && self.claim_index(index)
        {
            return Some(index);
        }
        self.allocate_far(place, from, to)
    }

    /// Takes a number of `from..to` when the word in hand has none.
    #[inline(never)]
    fn allocate_far(&self, place: &Place, from: usize, to: usize) -> Option<usize> {
        let to = to.min(self.capacity());
        if from >= to {
            return None;
        }
        let at = self.position(place, from, to);
        let index = match self.claim_near(at, from, to) {
            Some(index) => index,
            None => self.search(at, from, to)?,
        };
        self.advance(place, index);
        Some(index)
    }

    /// Takes `index`.
    ///
    /// # Errors
    /// When it is taken already, or behind the end.
    #[inline]
    pub fn allocate_at(&self, index: usize) -> Result<(), BitError> {
        if index >= self.capacity() {
            return Err(BitError::OutOfRange);
        }
        if self.claim_index(index) {
            return Ok(());
        }
        // It may be held for a moment by a claim of a run that fails.
        let taken = self.settled(|| self.claim_index(index).then_some(()));
        taken.ok_or(BitError::AlreadyAllocated)
    }

    /// Gives `index` back.
    ///
    /// # Errors
    /// When it was not taken, or lies behind the end; nothing changes then.
    #[inline]
    pub fn release(&self, index: usize) -> Result<(), BitError> {
        if index >= self.capacity() {
            return Err(BitError::OutOfRange);
        }
        let (word, bit) = split(index);
        if self.fetch_and(word, !bit) & bit == 0 {
            return Err(BitError::NotAllocated);
        }
        self.opened(word);
        Ok(())
    }

    /// Takes all of `from..to` that is not taken yet and says how many that were.
    pub fn reserve(&self, from: usize, to: usize) -> usize {
        let masks = masks(from.min(self.capacity()), to.min(self.capacity()));
        masks
            .map(|(word, mask)| self.set_mask(word, mask).count_ones() as usize)
            .sum()
    }

    /// Frees all of `from..to` that is taken and says how many that were.
    pub fn clear(&self, from: usize, to: usize) -> usize {
        let masks = masks(from.min(self.capacity()), to.min(self.capacity()));
        masks
            .map(|(word, mask)| self.clear_mask(word, mask).count_ones() as usize)
            .sum()
    }

    /// A copy to look at: to iterate, to compare, to write down. While other threads work, each
    /// leaf is copied at its own moment.
    #[must_use]
    pub fn to_bitmap(&self) -> Bitmap {
        let place = self.place();
        let start = match self.kind {
            Kind::Lowest => Start::Lowest,
            Kind::Next => Start::Next(place.index().min(self.capacity())),
            Kind::Random => Start::Random(place.value()),
        };
        let leaves = (0..self.shape.leaves()).map(|word| self.load(word));
        Bitmap::from_leaves(self.shape, start, leaves)
    }

    /// Sets the bits of `mask` in a leaf; gives those that changed.
    fn set_mask(&self, word: usize, mask: u64) -> u64 {
        let old = self.fetch_or(word, mask);
        if mask == FULL {
            self.fill_from(1, word);
        }
        mask & !old
    }

    /// Clears the bits of `mask` in a leaf; gives those that changed.
    fn clear_mask(&self, word: usize, mask: u64) -> u64 {
        let old = self.fetch_and(word, !mask);
        self.opened(word);
        mask & old
    }

    /// Takes one number; false when another thread has it.
    #[inline]
    fn claim_index(&self, index: usize) -> bool {
        let (word, bit) = split(index);
        // Only the one bit of the old value is asked for: that is one instruction (`lock bts`) where
        // the whole value would be a loop.
        self.fetch_or(word, bit) & bit == 0
    }

    /// Tells `level` and those above that word `child` of the level below was seen full.
    #[cold]
    fn fill_from(&self, level: usize, mut child: usize) {
        for level in level..self.shape.levels() {
            let (word, bit) = split(child);
            let old = self.fetch_or(self.shape.start(level) + word, bit);
            // The second look; see the protocol above.
            if self.load(self.shape.start(level - 1) + child) != FULL {
                self.open_from(level, child);
                return;
            }
            if old | bit != FULL {
                return;
            }
            child = word;
        }
    }

    /// Tells the levels above that a leaf is not full, if they say that it is.
    #[inline]
    fn opened(&self, leaf: usize) {
        let (word, bit) = split(leaf);
        if self.shape.levels() > 1 && self.load(self.shape.start(1) + word) & bit != 0 {
            self.open_from(1, leaf);
        }
    }

    /// Tells `level` and those above that word `child` of the level below is full no more.
    #[cold]
    fn open_from(&self, level: usize, mut child: usize) {
        for level in level..self.shape.levels() {
            let (word, bit) = split(child);
            let old = self.fetch_and(self.shape.start(level) + word, !bit);
            if old != FULL {
                return;
            }
            child = word;
        }
    }

    /// A word of any level; one that is not there has nothing free.
    #[inline]
    fn load(&self, at: usize) -> u64 {
        self.words
            .get(at)
            .map_or(FULL, |word| word.load(Ordering::SeqCst))
    }

    #[inline]
    fn fetch_or(&self, at: usize, mask: u64) -> u64 {
        self.words
            .get(at)
            .map_or(FULL, |word| word.fetch_or(mask, Ordering::SeqCst))
    }

    #[inline]
    fn fetch_and(&self, at: usize, mask: u64) -> u64 {
        self.words
            .get(at)
            .map_or(0, |word| word.fetch_and(mask, Ordering::SeqCst))
    }
}

impl From<&Bitmap> for AtomicBitmap {
    /// A bitmap to share, with the same numbers taken and the same policy.
    fn from(map: &Bitmap) -> Self {
        Self::from_words(map.shape(), map.start(), map.words().iter().copied())
    }
}

/// Leaves for each place at which searches start: 4 KiB, so that a place's cache line is 1.6 % of
/// them, and bitmaps of up to 32,768 numbers have one place only.
const STRIPE_LEAVES: usize = 512;

/// More places than that help no machine of today's size.
const STRIPES_MAX: usize = 16;

const _: () = assert!(STRIPE_LEAVES * WORD_BITS == 1 << 15);
