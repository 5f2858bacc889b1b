//! Every reachable state of small bitmaps (what is taken, and where the search stands), and every
//! operation from each of them, against the naive model.

use crate::naive::{Model, Op, Subject, step};
use netloom_alloc::{AtomicBitmap, Bitmap, Policy, SparseBitmap};
use std::collections::BTreeSet;

const CAPACITY_MAX: u64 = 8;

/// Everything that can be asked of `capacity` numbers, just beyond the end included.
fn operations(capacity: u64) -> Vec<Op> {
    let mut all = vec![Op::Allocate, Op::Restore];
    for at in 0..=capacity {
        all.extend([
            Op::AllocateAt(at),
            Op::Release(at),
            Op::NextFree(at),
            Op::NextTaken(at),
        ]);
        for order in 0..4 {
            all.extend([Op::RunAt(at, order), Op::ReleaseRun(at, order)]);
        }
        for to in at..=capacity + 1 {
            all.extend([
                Op::AllocateIn(at, to),
                Op::Reserve(at, to),
                Op::Clear(at, to),
            ]);
            all.push(Op::CountIn(at, to));
            all.extend((0..4).map(|order| Op::RunIn(order, at, to)));
        }
    }
    all
}

fn explore<S: Subject>(capacity: u64, (subject, copy): (S, fn(&S) -> S), policy: Policy) -> usize {
    let operations = operations(capacity);
    let model = Model::new(capacity, policy);
    let mut seen = BTreeSet::from([model.state()]);
    let mut todo = vec![(subject, model)];
    while let Some((subject, model)) = todo.pop() {
        for op in &operations {
            let (mut subject, mut model) = (copy(&subject), model.clone());
            step(&mut subject, &mut model, *op);
            assert_eq!(subject.taken(), model.taken(), "after {op:?}");
            if seen.insert(model.state()) {
                todo.push((subject, model));
            }
        }
    }
    seen.len()
}

#[test]
fn every_state_of_small_dense_bitmaps_agrees() {
    for capacity in 0..=CAPACITY_MAX {
        for policy in [Policy::LowestFree, Policy::NextFit] {
            let subject = Bitmap::with_policy(usize::try_from(capacity).unwrap(), policy).unwrap();
            let states = explore(capacity, (subject, Bitmap::clone), policy);
            // Every set of taken numbers is reached, at the least.
            assert!(
                states >= 1 << capacity,
                "only {states} states of {capacity} numbers"
            );
        }
    }
}

#[test]
fn every_state_of_small_sparse_bitmaps_agrees() {
    for capacity in 1..=CAPACITY_MAX {
        let subject = SparseBitmap::new(u128::from(capacity) - 1);
        assert!(
            explore(capacity, (subject, SparseBitmap::clone), Policy::NextFit) >= 1 << capacity
        );
    }
}

#[test]
fn every_state_of_small_atomic_bitmaps_agrees() {
    for capacity in 0..=CAPACITY_MAX {
        let subject = AtomicBitmap::new(usize::try_from(capacity).unwrap()).unwrap();
        let copy = |map: &AtomicBitmap| AtomicBitmap::from(&map.to_bitmap());
        assert!(explore(capacity, (subject, copy), Policy::NextFit) >= 1 << capacity);
    }
}
