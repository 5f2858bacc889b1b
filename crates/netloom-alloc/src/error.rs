//! What can be wrong with a bit, a size or a snapshot.
//!
//! Written by hand because these types exist without `std` too.

use core::fmt;

/// Why one bit, or one run of bits, could not be claimed or given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BitError {
    /// It is taken already (for a run: at least one of its bits). Ask for another one.
    AlreadyAllocated,
    /// It was not taken (for a run: at least one of its bits); nothing was changed. Whoever gave
    /// it back has given it back twice, or never had it.
    NotAllocated,
    /// It lies behind the end of the bitmap.
    OutOfRange,
    /// The start of a run of 2^k bits is not a multiple of 2^k.
    Misaligned,
}

impl fmt::Display for BitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AlreadyAllocated => "it is allocated already, ask for another one",
            Self::NotAllocated => "it was not allocated, so there is nothing to release",
            Self::OutOfRange => "it lies behind the end of the bitmap",
            Self::Misaligned => "a run of 2^k must start at a multiple of 2^k",
        })
    }
}

impl core::error::Error for BitError {}

/// Why a bitmap cannot have the wanted size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResizeError {
    /// More bits than [`crate::BITS_MAX`]; use [`crate::SparseBitmap`].
    TooLarge {
        /// What was asked for.
        bits: usize,
    },
    /// A bit behind the new end is taken; release it first.
    InUse {
        /// The lowest such bit.
        index: usize,
    },
}

impl fmt::Display for ResizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bits } => write!(
                f,
                "{bits} bits are more than the {} of a dense bitmap, use the sparse one",
                crate::BITS_MAX
            ),
            Self::InUse { index } => {
                write!(
                    f,
                    "bit {index} lies behind the new end and is allocated, release it first"
                )
            }
        }
    }
}

impl core::error::Error for ResizeError {}

/// Why bytes are not a snapshot, or not one of the wanted thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Made by a newer version of this crate; use that version to read it.
    Version {
        /// The version that the snapshot names.
        found: u8,
    },
    /// A snapshot of something else: another kind, size or subnet.
    Mismatch {
        /// What differs.
        what: &'static str,
    },
    /// Cut short, damaged, or never a snapshot. Take it from another copy.
    Corrupt {
        /// The first thing found wrong.
        what: &'static str,
    },
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { found } => write!(
                f,
                "the snapshot has format {found}, newer than this program knows; use a newer program"
            ),
            Self::Mismatch { what } => {
                write!(f, "the snapshot belongs to something else: {what} differs")
            }
            Self::Corrupt { what } => {
                write!(
                    f,
                    "the snapshot is damaged ({what}); take it from another copy"
                )
            }
        }
    }
}

impl core::error::Error for SnapshotError {}
