//! Weighted random operations against the naive model; the seed is printed and can be given again.

use crate::naive::{Model, Op, Subject, step};
use netloom_alloc::{AtomicBitmap, Bitmap, Policy, SparseBitmap};

/// splitmix64: the test's own, so that a change of the crate's cannot hide behind it.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    /// Weights turn every few hundred operations, so that full and empty states are both reached.
    fn op(&mut self, capacity: u64, mood: u64) -> Op {
        let at = self.roll(capacity + 2);
        let other = self.roll(capacity + 2);
        let (from, to) = (at.min(other), at.max(other));
        let order = u32::try_from(self.roll(9)).unwrap();
        let aligned = at & !((1 << order) - 1);
        match self.roll(100) {
            0..30 if mood == 0 => Op::Release(at),
            0..30 => Op::Allocate,
            30..45 => Op::AllocateAt(at),
            45..60 => Op::Release(at),
            60..68 => Op::AllocateIn(from, to),
            68..74 => Op::RunIn(order, from, to),
            74..78 => Op::RunAt(aligned, order),
            78..80 => Op::RunAt(at, order),
            80..86 => Op::ReleaseRun(aligned, order),
            86..89 => Op::NextFree(at),
            89..92 => Op::NextTaken(at),
            92..94 => Op::CountIn(from, to),
            94..96 if mood == 0 => Op::Clear(from, from + (to - from) / 4),
            94..96 => Op::Reserve(from, from + (to - from) / 4),
            96 => Op::Restore,
            _ => Op::Allocate,
        }
    }
}

fn seed() -> u64 {
    let given = std::env::var("NETLOOM_ALLOC_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| {
        use std::hash::{BuildHasher, RandomState};
        RandomState::new().hash_one(0)
    })
}

fn compare<S: Subject>(make: impl Fn(u64, Policy) -> (S, Model), sizes: &[u64], rounds: u64) {
    let seed = seed();
    println!("NETLOOM_ALLOC_SEED={seed}");
    let mut dice = Dice(seed);
    let policies = [
        Policy::NextFit,
        Policy::LowestFree,
        Policy::RandomStart { seed },
    ];
    for round in 0..rounds {
        for capacity in sizes.iter().copied() {
            let policy = policies[usize::try_from(round).unwrap() % policies.len()];
            let (mut subject, mut model) = make(capacity, policy);
            let mut mood = 1;
            for turn in 0..OPS_PER_ROUND {
                if turn % 128 == 0 {
                    mood = dice.roll(3);
                    assert_eq!(subject.taken(), model.taken());
                }
                let op = dice.op(capacity, mood);
                step(&mut subject, &mut model, op);
            }
            assert_eq!(subject.taken(), model.taken());
        }
    }
}

const OPS_PER_ROUND: u64 = 2_000;

fn dense(capacity: u64, policy: Policy) -> (Bitmap, Model) {
    let subject = Bitmap::with_policy(usize::try_from(capacity).unwrap(), policy);
    (subject.unwrap(), Model::new(capacity, policy))
}

fn sparse(capacity: u64, policy: Policy) -> (SparseBitmap, Model) {
    let subject = SparseBitmap::with_policy(u128::from(capacity) - 1, policy);
    (subject, Model::new(capacity, policy))
}

/// With next fit, this form passes by what is released in the word in hand.
fn atomic(capacity: u64, policy: Policy) -> (AtomicBitmap, Model) {
    let subject = AtomicBitmap::with_policy(usize::try_from(capacity).unwrap(), policy);
    let model = Model::new(capacity, policy);
    let model = if policy == Policy::NextFit {
        model.in_any_order()
    } else {
        model
    };
    (subject.unwrap(), model)
}

#[test]
fn the_dense_form_does_what_the_model_does() {
    // One word, the edges of a word, of the second level and of the third: 816,000 operations.
    compare(
        dense,
        &[1, 2, 7, 63, 64, 65, 127, 128, 200, 300, 511, 640],
        34,
    );
    // Three levels.
    compare(dense, &[4_096 + 70], 9);
}

#[test]
fn the_sparse_form_does_what_the_model_does() {
    // In one chunk: 336,000 operations.
    compare(sparse, &[1, 100], 84);
    // Chunk edges: full ranges form, join and split.
    compare(sparse, &[4_095, 4_096, 4_097, 3 * 4_096 + 5], 3);
}

#[test]
fn the_atomic_form_alone_does_what_the_model_does() {
    compare(atomic, &[1, 2, 63, 64, 65, 128, 200, 640], 18);
    compare(atomic, &[4_096 + 70], 3);
}
