//! The arithmetic of levels: how many words each has and where it starts.

use alloc::vec::Vec;
use core::hint::select_unpredictable;

/// Bits of a word, and the fan-out of every level.
pub(crate) const WORD_BITS: usize = 64;

/// A word without a free bit. Bits behind the end count as taken, so no search ever finds them.
pub(crate) const FULL: u64 = u64::MAX;

/// The most bits that a dense bitmap holds: one per IPv4 address there is (half of that where
/// pointers have 32 bits).
pub const BITS_MAX: usize = 1 << (if usize::BITS > 32 { 32 } else { 30 });

/// Levels of the largest bitmap: leaves of 2^26 words, then 2^20, 2^14, 2^8, 2^2 and 1.
const LEVELS_MAX: usize = 6;

const _: () = {
    // The words of all levels of the largest bitmap are counted in u32.
    let mut words = BITS_MAX / WORD_BITS;
    let mut total = words;
    let mut levels = 1;
    while words > 1 {
        words = words.div_ceil(WORD_BITS);
        total += words;
        levels += 1;
    }
    assert!(levels <= LEVELS_MAX);
    assert!(total as u128 <= u32::MAX as u128);
};

/// Where each level lies in one array of words: leaves first, the top word last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Bits that can be allocated.
    capacity: usize,
    /// First word of each level; behind the top level, the end of the array.
    starts: [u32; LEVELS_MAX + 1],
    levels: u8,
}

impl Shape {
    /// The shape of a bitmap of `capacity` bits, if that is not more than [`BITS_MAX`].
    pub(crate) fn new(capacity: usize) -> Option<Self> {
        if capacity > BITS_MAX {
            return None;
        }
        let mut starts = [0; LEVELS_MAX + 1];
        let mut words = capacity.div_ceil(WORD_BITS);
        let mut end = 0_u32;
        let mut levels = 0_u8;
        for next in starts.iter_mut().skip(1) {
            end += u32::try_from(words).ok()?;
            *next = end;
            if words == 0 {
                continue;
            }
            levels += 1;
            words = if words == 1 {
                0
            } else {
                words.div_ceil(WORD_BITS)
            };
        }
        Some(Self {
            capacity,
            starts,
            levels,
        })
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Levels in use, leaves included; 0 for an empty bitmap.
    pub(crate) fn levels(&self) -> usize {
        usize::from(self.levels)
    }

    /// First word of `level`; the end of the array for levels that do not exist.
    pub(crate) fn start(&self, level: usize) -> usize {
        self.starts
            .get(level)
            .map_or(self.words(), |&at| at as usize)
    }

    /// Words of `level`.
    pub(crate) fn words_in(&self, level: usize) -> usize {
        self.start(level + 1) - self.start(level)
    }

    /// Words of all levels.
    pub(crate) fn words(&self) -> usize {
        let [.., end] = self.starts;
        end as usize
    }

    /// Leaf words.
    pub(crate) fn leaves(&self) -> usize {
        self.words_in(0)
    }

    /// The bits of leaf `word` that lie behind the end, as a mask.
    pub(crate) fn padding(&self, word: usize) -> u64 {
        padding(self.capacity, word)
    }

    /// What every word of an empty bitmap holds: zeros, and ones behind the end of each level.
    pub(crate) fn empty_words(&self) -> Vec<u64> {
        let mut words = Vec::with_capacity(self.words());
        let mut members = self.capacity;
        for level in 0..self.levels() {
            let count = self.words_in(level);
            words.extend((0..count).map(|word| padding(members, word)));
            members = count;
        }
        words
    }
}

/// The bits of `word` at or above `count`, when `word` is one of those that hold `count` bits.
fn padding(count: usize, word: usize) -> u64 {
    let used = count.saturating_sub(word * WORD_BITS);
    if used >= WORD_BITS { 0 } else { FULL << used }
}

/// The word of a bit, and the bit in it.
#[inline]
pub(crate) const fn split(index: usize) -> (usize, u64) {
    (index / WORD_BITS, 1 << (index % WORD_BITS))
}

/// The lowest free bit, from `from` on, of five leaves: of that of `from` and the four behind it.
///
/// The first has one nearly always where less than half is taken. Where much is taken, a branch on
/// "is this word full" is mispredicted so often that it is cheaper to look at all of the next four
/// and choose without a branch; they hold a free bit nine times in ten when 99 % are taken.
#[inline]
pub(crate) fn near_free(from: usize, leaf: impl Fn(usize) -> u64) -> Option<usize> {
    let (word, low) = (from / WORD_BITS, from % WORD_BITS);
    let open = !leaf(word) & (FULL << low);
    if open != 0 {
        return Some(word * WORD_BITS + open.trailing_zeros() as usize);
    }
    let [first, second, third, fourth] = [1, 2, 3, 4].map(|ahead| !leaf(word + ahead));
    if first | second | third | fourth == 0 {
        return None;
    }
    let early = select_unpredictable(first != 0, (word + 1, first), (word + 2, second));
    let late = select_unpredictable(third != 0, (word + 3, third), (word + 4, fourth));
    let (word, open) = select_unpredictable(first | second != 0, early, late);
    Some(word * WORD_BITS + open.trailing_zeros() as usize)
}

/// Bitmaps of so many leaves are looked at whole, in a ring.
pub(crate) const RING_LEAVES_MAX: usize = 4;

/// The lowest free bit from `from` on, or else from the beginning, of a bitmap of at most
/// [`RING_LEAVES_MAX`] leaves: a /24 or smaller. All are looked at without a branch, because where
/// such a pool is nearly full every branch is a guess.
#[inline]
pub(crate) fn ring_free(from: usize, leaves: usize, leaf: impl Fn(usize) -> u64) -> Option<usize> {
    let (word, low) = (from / WORD_BITS, from % WORD_BITS);
    let ring = |step: usize| {
        let at = word + step;
        at - if at >= leaves { leaves } else { 0 }
    };
    let open = |step: usize| if step < leaves { !leaf(ring(step)) } else { 0 };
    let own = !leaf(word);
    let (first, last) = (own & (FULL << low), own & !(FULL << low));
    let [second, third, fourth] = [1, 2, 3].map(open);
    let early = select_unpredictable(first != 0, (word, first), (ring(1), second));
    let late = select_unpredictable(third != 0, (ring(2), third), (ring(3), fourth));
    let near = select_unpredictable(first | second != 0, early, late);
    let (word, open) = select_unpredictable(near.1 != 0, near, (word, last));
    (open != 0).then(|| word * WORD_BITS + open.trailing_zeros() as usize)
}

/// The masks that cover `from..to`, one per word touched.
pub(crate) fn masks(from: usize, to: usize) -> impl Iterator<Item = (usize, u64)> {
    let last = to.div_ceil(WORD_BITS);
    (from / WORD_BITS..last).map(move |word| {
        let base = word * WORD_BITS;
        let low = FULL << from.saturating_sub(base).min(WORD_BITS - 1);
        let used = to.saturating_sub(base);
        let high = if used >= WORD_BITS {
            FULL
        } else {
            !(FULL << used)
        };
        (word, low & high)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_shrink_by_sixty_four() {
        let shape = Shape::new(1 << 24).unwrap();
        assert_eq!(shape.levels(), 4);
        let words: Vec<_> = (0..4).map(|level| shape.words_in(level)).collect();
        assert_eq!(words, [262_144, 4_096, 64, 1]);
        assert_eq!(shape.words(), 266_305);
        assert_eq!(Shape::new(BITS_MAX).unwrap().levels(), LEVELS_MAX);
        assert!(Shape::new(BITS_MAX + 1).is_none());
    }

    #[test]
    fn one_word_has_no_summary_and_nothing_has_no_word() {
        assert_eq!(Shape::new(64).unwrap().words(), 1);
        assert_eq!(Shape::new(65).unwrap().words(), 3);
        let none = Shape::new(0).unwrap();
        assert_eq!((none.levels(), none.words()), (0, 0));
    }

    #[test]
    fn bits_behind_the_end_are_taken_in_every_level() {
        let shape = Shape::new(65).unwrap();
        assert_eq!(shape.empty_words(), [0, !1, !3]);
    }

    #[test]
    fn masks_cover_exactly_the_range() {
        for (from, to) in [
            (0, 0),
            (0, 1),
            (3, 64),
            (63, 65),
            (64, 128),
            (5, 200),
            (70, 71),
        ] {
            let covered: Vec<usize> = masks(from, to)
                .flat_map(|(word, mask)| {
                    (0..64)
                        .filter(move |bit| mask >> bit & 1 == 1)
                        .map(move |bit| word * 64 + bit)
                })
                .collect();
            assert_eq!(covered, (from..to).collect::<Vec<_>>());
        }
    }
}
