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

fn explore<S: Subject>((subject, copy): (S, fn(&S) -> S), model: Model) -> usize {
    let operations = operations(model.capacity());
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
            let states = explore((subject, Bitmap::clone), Model::new(capacity, policy));
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
        let model = Model::new(capacity, Policy::NextFit);
        assert!(explore((subject, SparseBitmap::clone), model) >= 1 << capacity);
    }
}

#[test]
fn every_state_of_small_atomic_bitmaps_agrees() {
    let copy = |map: &AtomicBitmap| AtomicBitmap::from(&map.to_bitmap());
    for capacity in 0..=CAPACITY_MAX {
        let make = |policy| AtomicBitmap::with_policy(usize::try_from(capacity).unwrap(), policy);
        let lowest = make(Policy::LowestFree).unwrap();
        let model = Model::new(capacity, Policy::LowestFree);
        assert!(explore((lowest, copy), model) >= 1 << capacity);
        let next = make(Policy::NextFit).unwrap();
        let model = Model::new(capacity, Policy::NextFit).in_any_order();
        assert!(explore((next, copy), model) >= 1 << capacity);
    }
}
