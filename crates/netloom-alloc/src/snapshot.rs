//! The snapshot format: versioned, compact, decoded strictly.
//!
//! ```text
//!   magic  3   "NLB" dense, "NLS" sparse
//!   version 1  1
//!   policy 1   0 lowest free, 1 next fit, 2 random start
//!   value  8   where the policy continues (16 bytes in the sparse form)
//!   size   8   capacity (sparse: the last number, 16 bytes)
//!   body       dense: word runs; sparse: full ranges, then chunks of word runs
//!   check  8   FNV-1a, 64 bits, over all before
//! ```
//!
//! Numbers are little-endian; counts are LEB128 in their shortest form. A word run is a count and a
//! kind (`count << 2 | kind`): 0 empty words, 1 full words, 2 words that follow literally. Equal
//! contents have exactly one encoding, so whatever else arrives is damage.

use crate::Bitmap;
use crate::error::SnapshotError;
use crate::policy::Start;
use crate::shape::{FULL, Shape};
use alloc::vec::Vec;

/// The only format so far.
const VERSION: u8 = 1;
const DENSE: [u8; 3] = *b"NLB";

/// Writes a dense bitmap; `leaves` have zeros behind the end.
pub(crate) fn encode_bitmap(
    capacity: usize,
    start: Start<usize>,
    leaves: impl Iterator<Item = u64>,
) -> Vec<u8> {
    let (tag, value) = match start {
        Start::Lowest => (0, 0),
        Start::Next(at) => (1, at as u64),
        Start::Random(state) => (2, state),
    };
    let mut out = Writer::new(DENSE);
    out.u8(tag);
    out.bytes(&value.to_le_bytes());
    out.bytes(&(capacity as u64).to_le_bytes());
    out.words(&leaves.collect::<Vec<_>>());
    out.finish()
}

/// Reads a dense bitmap of `capacity` numbers.
pub(crate) fn decode_bitmap(bytes: &[u8], capacity: usize) -> Result<Bitmap, SnapshotError> {
    let mut input = Reader::new(bytes, DENSE)?;
    let tag = input.u8()?;
    let value = u64::from_le_bytes(input.array()?);
    if u64::from_le_bytes(input.array()?) != capacity as u64 {
        return Err(SnapshotError::Mismatch {
            what: "the capacity",
        });
    }
    let start = match (tag, value) {
        (0, 0) => Start::Lowest,
        (1, at) => match usize::try_from(at) {
            Ok(at) if at <= capacity => Start::Next(at),
            _ => {
                return Err(SnapshotError::Corrupt {
                    what: "the position is behind the end",
                });
            }
        },
        (2, state) => Start::Random(state),
        _ => {
            return Err(SnapshotError::Corrupt {
                what: "the policy is unknown",
            });
        }
    };
    let shape = Shape::new(capacity).ok_or(SnapshotError::Mismatch {
        what: "the capacity",
    })?;
    let leaves = input.words(shape.leaves())?;
    input.finish()?;
    let padded = leaves
        .iter()
        .enumerate()
        .any(|(at, leaf)| leaf & shape.padding(at) != 0);
    if padded {
        return Err(SnapshotError::Corrupt {
            what: "a bit is set behind the end",
        });
    }
    Ok(Bitmap::from_leaves(shape, start, leaves.into_iter()))
}

/// How a word is written: 0 empty, 1 full, 2 literally.
fn kind(word: u64) -> u8 {
    match word {
        0 => 0,
        FULL => 1,
        _ => 2,
    }
}

/// Builds one snapshot.
pub(crate) struct Writer {
    out: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(magic: [u8; 3]) -> Self {
        let mut out = Vec::from(magic);
        out.push(VERSION);
        Self { out }
    }

    pub(crate) fn u8(&mut self, byte: u8) {
        self.out.push(byte);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// LEB128: seven bits a byte, low ones first.
    pub(crate) fn count(&mut self, mut count: u128) {
        loop {
            let low = u8::try_from(count & 0x7f).unwrap_or(0);
            count >>= 7;
            if count == 0 {
                self.out.push(low);
                return;
            }
            self.out.push(low | 0x80);
        }
    }

    /// Words, in runs of one kind.
    pub(crate) fn words(&mut self, words: &[u64]) {
        for run in words.chunk_by(|a, b| kind(*a) == kind(*b)) {
            let kind = run.first().map_or(0, |word| kind(*word));
            self.count((run.len() as u128) << 2 | u128::from(kind));
            if kind == 2 {
                for word in run {
                    self.bytes(&word.to_le_bytes());
                }
            }
        }
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        let check = fnv1a(&self.out);
        self.bytes(&check.to_le_bytes());
        self.out
    }
}

/// Takes one snapshot apart; every method fails where the bytes end.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Checks magic, version and checksum.
    pub(crate) fn new(bytes: &'a [u8], magic: [u8; 3]) -> Result<Self, SnapshotError> {
        let split = bytes.len().checked_sub(8).ok_or(CUT_SHORT)?;
        let (body, check) = bytes.split_at(split);
        let mut input = Self { rest: body };
        if input.array()? != magic {
            return Err(SnapshotError::Corrupt {
                what: "it does not begin as a snapshot",
            });
        }
        // Before the checksum, whose place a newer format might change.
        let found = input.u8()?;
        if found > VERSION {
            return Err(SnapshotError::Version { found });
        }
        if found != VERSION || check != fnv1a(body).to_le_bytes() {
            return Err(SnapshotError::Corrupt {
                what: "the checksum differs",
            });
        }
        Ok(input)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, SnapshotError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn count(&mut self) -> Result<u128, SnapshotError> {
        let mut count = 0_u128;
        // 19 bytes of 7 bits hold 128 bits; the last of them has room for two.
        for shift in (0..128).step_by(7) {
            let byte = self.u8()?;
            let low = u128::from(byte & 0x7f);
            let part = low << shift;
            if part >> shift != low || (byte == 0 && shift > 0) {
                break;
            }
            count |= part;
            if byte & 0x80 == 0 {
                return Ok(count);
            }
        }
        Err(SnapshotError::Corrupt {
            what: "a count is not in its shortest form",
        })
    }

    /// The next `length` bytes.
    #[cfg(feature = "std")]
    pub(crate) fn take(&mut self, length: u128) -> Result<&'a [u8], SnapshotError> {
        let length = usize::try_from(length).map_err(|_| CUT_SHORT)?;
        let (head, rest) = self.rest.split_at_checked(length).ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(head)
    }

    /// Exactly `expected` words.
    pub(crate) fn words(&mut self, expected: usize) -> Result<Vec<u64>, SnapshotError> {
        const BAD: SnapshotError = SnapshotError::Corrupt {
            what: "the word runs do not fit",
        };
        let mut words = Vec::with_capacity(expected);
        let mut before = None;
        while words.len() < expected {
            let header = self.count()?;
            let run_kind = header & 3;
            let count = usize::try_from(header >> 2).map_err(|_| BAD)?;
            if count == 0 || count > expected - words.len() || before == Some(run_kind) {
                return Err(BAD);
            }
            before = Some(run_kind);
            match run_kind {
                0 => words.resize(words.len() + count, 0),
                1 => words.resize(words.len() + count, FULL),
                2 => {
                    for _ in 0..count {
                        let word = u64::from_le_bytes(self.array()?);
                        if kind(word) != 2 {
                            return Err(BAD);
                        }
                        words.push(word);
                    }
                }
                _ => return Err(BAD),
            }
        }
        Ok(words)
    }

    /// Nothing may follow.
    pub(crate) fn finish(self) -> Result<(), SnapshotError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(SnapshotError::Corrupt {
                what: "bytes follow behind the end",
            })
        }
    }
}

const CUT_SHORT: SnapshotError = SnapshotError::Corrupt {
    what: "it is cut short",
};

/// FNV-1a with 64 bits (RFC 9923): finds damage, not malice.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
