//! The bitmap of the old design: a list of runs of equal 32-bit blocks, read and written whole.

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write as _;

/// Bits of a pool, as libnetwork's `bitseq` kept them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bitmap {
    bits: u64,
    unselected: u64,
    runs: Vec<Run>,
}

/// So many equal blocks; bit 0 is the highest of the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    block: u32,
    count: u64,
}

impl Bitmap {
    /// An empty pool, its first and last address taken.
    pub(super) fn new(host_bits: u32) -> Self {
        let bits = 1u64 << host_bits;
        let mut new = Self {
            bits,
            unselected: bits,
            runs: vec![Run {
                block: 0,
                count: bits / BLOCK,
            }],
        };
        new.set(0, true);
        new.set(bits - 1, true);
        new
    }

    /// A pool with exactly these blocks.
    pub(super) fn of_blocks(blocks: impl IntoIterator<Item = u32>) -> Self {
        let runs: Vec<Run> = blocks
            .into_iter()
            .map(|block| Run { block, count: 1 })
            .collect();
        let zeros = runs.iter().map(|r| u64::from(r.block.count_zeros())).sum();
        let bits = BLOCK * u64::try_from(runs.len()).unwrap_or(0);
        Self {
            bits,
            unselected: zeros,
            runs: merged(runs),
        }
    }

    /// The lowest free one.
    pub(super) fn first_free(&self) -> Option<u64> {
        let mut before = 0;
        for run in &self.runs {
            if run.block != u32::MAX {
                return Some(before + u64::from((!run.block).leading_zeros()));
            }
            before += run.count * BLOCK;
        }
        None
    }

    #[allow(
        clippy::fn_params_excessive_bools,
        reason = "a bit is what the old code takes"
    )]
    /// Marks one: copies the list, splits a run in up to three and merges the whole list again, as
    /// the old code does.
    pub(super) fn set(&mut self, ordinal: u64, taken: bool) {
        let (target, mask) = (ordinal / BLOCK, 1u32 << (BLOCK - 1 - ordinal % BLOCK));
        let mut split = Vec::with_capacity(self.runs.len() + 2);
        let mut first = 0;
        for run in &self.runs {
            let here = (first..first + run.count).contains(&target);
            if here {
                let changed = if taken {
                    run.block | mask
                } else {
                    run.block & !mask
                };
                if changed != run.block {
                    self.unselected = if taken {
                        self.unselected - 1
                    } else {
                        self.unselected + 1
                    };
                }
                let (before, after) = (target - first, first + run.count - target - 1);
                split.extend([(run.block, before), (changed, 1), (run.block, after)]);
            } else {
                split.push((run.block, run.count));
            }
            first += run.count;
        }
        let some = split.into_iter().filter(|(_, count)| *count > 0);
        self.runs = merged(some.map(|(block, count)| Run { block, count }).collect());
    }

    /// All that are taken.
    pub(super) fn taken(&self) -> Vec<u64> {
        let mut found = Vec::new();
        let mut at = 0;
        for run in &self.runs {
            for _ in 0..run.count {
                let bit = |n: u64| run.block & (1u32 << (BLOCK - 1 - n)) != 0;
                found.extend((0..BLOCK).filter(|n| bit(*n)).map(|n| at + n));
                at += BLOCK;
            }
        }
        found
    }

    /// 16 bytes, then 12 for each run; as text within JSON.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + 12 * self.runs.len());
        bytes.extend(self.bits.to_be_bytes());
        bytes.extend(self.unselected.to_be_bytes());
        for run in &self.runs {
            bytes.extend(run.block.to_be_bytes());
            bytes.extend(run.count.to_be_bytes());
        }
        let sequence = STANDARD.encode(bytes);
        serde_json::json!({ "id": "GlobalDefault/pool", "sequence": sequence })
            .to_string()
            .into_bytes()
    }

    pub(super) fn decode(value: &[u8]) -> anyhow::Result<Self> {
        let json: serde_json::Value = serde_json::from_slice(value)?;
        let text = json.get("sequence").and_then(serde_json::Value::as_str);
        let bytes = STANDARD.decode(text.context("no sequence")?)?;
        let (head, rest) = bytes.split_at_checked(16).context("too short")?;
        let number = |part: &[u8]| {
            let zero = 0u64;
            part.iter()
                .fold(zero, |n, byte| (n << 8) | u64::from(*byte))
        };
        let (bits, unselected) = head.split_at(8);
        let run = |part: &[u8]| {
            let (block, count) = part.split_at_checked(4)?;
            Some(Run {
                block: u32::try_from(number(block)).ok()?,
                count: number(count),
            })
        };
        let runs: Option<Vec<Run>> = rest.chunks(12).map(run).collect();
        Ok(Self {
            bits: number(bits),
            unselected: number(unselected),
            runs: runs.context("half a run")?,
        })
    }

    /// What the old code wrote for its debug log on every call, whether or not it was on: each run
    /// formats the text of all that follow once more.
    pub(super) fn text(&self) -> String {
        let mut text = "end".to_owned();
        for run in self.runs.iter().rev() {
            let mut longer = String::new();
            let _ = write!(longer, "(0x{:x}, {})->{text}", run.block, run.count);
            text = longer;
        }
        format!(
            "Bits: {}, Unselected: {}, Sequence: {text}",
            self.bits, self.unselected
        )
    }
}

fn merged(runs: Vec<Run>) -> Vec<Run> {
    let mut merged: Vec<Run> = Vec::with_capacity(runs.len());
    for run in runs {
        match merged.last_mut() {
            Some(last) if last.block == run.block => last.count += run.count,
            _ => merged.push(run),
        }
    }
    merged
}

const BLOCK: u64 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_out_the_lowest_and_survives_its_text() {
        let mut map = Bitmap::new(8);
        for expected in 1..255 {
            let free = map.first_free();
            assert_eq!(free, Some(expected));
            map.set(expected, true);
            assert_eq!(Bitmap::decode(&map.encode()).unwrap(), map);
        }
        assert_eq!((map.first_free(), map.unselected), (None, 0));
        assert_eq!(map.runs.len(), 1);
        map.set(77, false);
        assert_eq!((map.first_free(), map.unselected), (Some(77), 1));
        assert_eq!(map.taken().len(), 255);
    }

    #[test]
    fn a_fragmented_16_has_the_size_of_the_old_one() {
        let blocks = (0..2048u32).map(|n| n.wrapping_mul(0x9e37_79b9) | 1);
        let size = Bitmap::of_blocks(blocks).encode().len();
        assert!((32_600..33_200).contains(&size), "{size}");
    }
}
