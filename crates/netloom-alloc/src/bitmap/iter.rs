//! Looking at many bits: what is taken, what is free, what differs.

use super::Bitmap;
use crate::shape::{WORD_BITS, masks};

impl Bitmap {
    /// The numbers that are taken, in order.
    #[must_use]
    pub fn taken(&self) -> Taken<'_> {
        Taken {
            bits: Bits::new(self, |map, word| map.word(word) & !map.shape.padding(word)),
        }
    }

    /// The numbers that are free, in order.
    #[must_use]
    pub fn free_numbers(&self) -> Free<'_> {
        Free {
            bits: Bits::new(self, |map, word| !map.word(word)),
        }
    }

    /// What is taken in only one of two bitmaps, in order; sizes may differ.
    ///
    /// ```
    /// use netloom_alloc::{Bitmap, Side};
    ///
    /// let (mut journal, mut kernel) = (Bitmap::new(256)?, Bitmap::new(256)?);
    /// journal.allocate_at(7)?;
    /// kernel.allocate_at(9)?;
    /// let found: Vec<_> = journal.difference(&kernel).collect();
    /// assert_eq!(found, [(7, Side::Left), (9, Side::Right)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn difference<'a>(&'a self, other: &'a Self) -> Difference<'a> {
        Difference {
            left: self,
            right: other,
            word: 0,
            bits: 0,
        }
    }

    /// The lowest taken number from `from` on. Unlike the search for a free one this looks at leaf
    /// after leaf.
    #[must_use]
    pub fn next_taken(&self, from: usize) -> Option<usize> {
        masks(from.min(self.capacity()), self.capacity()).find_map(|(word, mask)| {
            let taken = self.word(word) & mask;
            (taken != 0).then(|| word * WORD_BITS + taken.trailing_zeros() as usize)
        })
    }

    /// The taken bits of a leaf; a leaf that is not there has none.
    fn taken_in(&self, word: usize) -> u64 {
        if word < self.shape.leaves() {
            self.word(word) & !self.shape.padding(word)
        } else {
            0
        }
    }
}

/// The bits that a function shows of each leaf.
#[derive(Debug, Clone)]
struct Bits<'a> {
    map: &'a Bitmap,
    show: fn(&Bitmap, usize) -> u64,
    /// The next leaf to look at.
    word: usize,
    /// What is left of the leaf before.
    bits: u64,
}

impl<'a> Bits<'a> {
    fn new(map: &'a Bitmap, show: fn(&Bitmap, usize) -> u64) -> Self {
        Self {
            map,
            show,
            word: 0,
            bits: 0,
        }
    }

    fn next(&mut self) -> Option<usize> {
        while self.bits == 0 {
            if self.word >= self.map.shape.leaves() {
                return None;
            }
            self.bits = (self.show)(self.map, self.word);
            self.word += 1;
        }
        Some(take_lowest(&mut self.bits, self.word - 1))
    }
}

/// The numbers that are taken; see [`Bitmap::taken`].
#[derive(Debug, Clone)]
pub struct Taken<'a> {
    bits: Bits<'a>,
}

impl Iterator for Taken<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.bits.next()
    }
}

/// The numbers that are free; see [`Bitmap::free_numbers`].
#[derive(Debug, Clone)]
pub struct Free<'a> {
    bits: Bits<'a>,
}

impl Iterator for Free<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.bits.next()
    }
}

/// In which of two bitmaps a number is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// Only in the one that was asked.
    Left,
    /// Only in the one it was compared with.
    Right,
}

/// What is taken in only one of two bitmaps; see [`Bitmap::difference`].
#[derive(Debug, Clone)]
pub struct Difference<'a> {
    left: &'a Bitmap,
    right: &'a Bitmap,
    word: usize,
    bits: u64,
}

impl Iterator for Difference<'_> {
    type Item = (usize, Side);

    fn next(&mut self) -> Option<Self::Item> {
        while self.bits == 0 {
            if self.word >= self.left.shape.leaves().max(self.right.shape.leaves()) {
                return None;
            }
            self.bits = self.left.taken_in(self.word) ^ self.right.taken_in(self.word);
            self.word += 1;
        }
        let word = self.word - 1;
        let index = take_lowest(&mut self.bits, word);
        let left = self.left.taken_in(word) >> (index % WORD_BITS) & 1 == 1;
        Some((index, if left { Side::Left } else { Side::Right }))
    }
}

/// Takes the lowest bit out of `bits`, which is not zero, and gives its number.
fn take_lowest(bits: &mut u64, word: usize) -> usize {
    let bit = bits.trailing_zeros() as usize;
    *bits &= *bits - 1;
    word * WORD_BITS + bit
}
