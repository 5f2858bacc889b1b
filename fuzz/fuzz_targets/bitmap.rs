//! Any sequence of operations on the three bitmaps, against a set of taken numbers.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use netloom_alloc::{AtomicBitmap, Bitmap, Policy, SparseBitmap};
use std::collections::BTreeSet;

#[derive(Debug, Arbitrary)]
enum Op {
    Allocate,
    AllocateIn(u16, u16),
    AllocateAt(u16),
    AllocateRun(u8),
    Release(u16),
    ReleaseRun(u16, u8),
    Reserve(u16, u16),
    Clear(u16, u16),
    Resize(u16),
    Snapshot,
}

/// What was taken by one subject.
#[derive(Default)]
struct Model(BTreeSet<u128>);

impl Model {
    fn take(&mut self, first: u128, count: u128) {
        for index in first..first + count {
            assert!(self.0.insert(index), "{index} is out twice");
        }
    }

    fn free(&mut self, first: u128, count: u128) {
        for index in first..first + count {
            assert!(self.0.remove(&index), "{index} was not out");
        }
    }

    fn taken(&self, first: u128, count: u128) -> u128 {
        self.0.range(first..first + count).count() as u128
    }
}

fuzz_target!(|input: (u16, u8, Vec<Op>)| {
    let (capacity, policy, ops) = input;
    let capacity = usize::from(capacity % 9_000) + 1;
    let policy = match policy % 3 {
        0 => Policy::LowestFree,
        1 => Policy::NextFit,
        seed => Policy::RandomStart {
            seed: u64::from(seed),
        },
    };
    let dense = Bitmap::with_policy(capacity, policy).unwrap();
    let atomic = AtomicBitmap::with_policy(capacity, policy).unwrap();
    let sparse = SparseBitmap::with_policy(capacity as u128 - 1, policy);
    drive_dense(dense, &ops);
    drive_atomic(&atomic, &ops);
    drive_sparse(sparse, &ops);
});

fn drive_dense(mut map: Bitmap, ops: &[Op]) {
    let mut model = Model::default();
    for op in ops {
        let size = map.capacity();
        let w = |n: usize| n as u128;
        match *op {
            Op::Allocate => match map.allocate() {
                Some(got) => model.take(w(got), 1),
                None => assert_eq!(model.0.len(), size),
            },
            Op::AllocateIn(from, to) => {
                let (from, to) = (usize::from(from), usize::from(to).min(size));
                match map.allocate_in(from, to) {
                    Some(got) => {
                        assert!((from..to).contains(&got));
                        model.take(w(got), 1);
                    }
                    None => {
                        assert!(from >= to || model.taken(w(from), w(to - from)) == w(to - from))
                    }
                }
            }
            Op::AllocateAt(at) => {
                if map.allocate_at(at.into()).is_ok() {
                    model.take(at.into(), 1);
                }
            }
            Op::AllocateRun(order) => {
                let order = u32::from(order % 12);
                if let Some(got) = map.allocate_run(order) {
                    assert!(got.is_multiple_of(1 << order));
                    model.take(w(got), 1 << order);
                }
            }
            Op::Release(at) => {
                if map.release(at.into()).is_ok() {
                    model.free(at.into(), 1);
                }
            }
            Op::ReleaseRun(at, order) => {
                let order = u32::from(order % 12);
                if map.release_run(at.into(), order).is_ok() {
                    model.free(at.into(), 1 << order);
                }
            }
            Op::Reserve(from, to) => {
                map.reserve(from.into(), to.into());
                model
                    .0
                    .extend((from.into()..u128::from(to).min(w(size))).map(|n: u128| n));
            }
            Op::Clear(from, to) => {
                map.clear(from.into(), to.into());
                model
                    .0
                    .retain(|n| !(u128::from(from)..u128::from(to)).contains(n));
            }
            Op::Resize(size) => {
                let fits = model.0.last().is_none_or(|last| *last < u128::from(size));
                assert_eq!(map.resize(size.into()).is_ok(), fits);
            }
            Op::Snapshot => map = Bitmap::restore(&map.snapshot(), size).unwrap(),
        }
        assert_eq!(map.allocated(), model.0.len());
    }
    assert!(map.taken().map(|n| n as u128).eq(model.0.iter().copied()));
}

fn drive_atomic(map: &AtomicBitmap, ops: &[Op]) {
    let mut model = Model::default();
    let size = map.capacity();
    for op in ops {
        match *op {
            Op::Allocate | Op::AllocateIn(..) => match map.allocate() {
                Some(got) => model.take(got as u128, 1),
                None => assert_eq!(model.0.len(), size),
            },
            Op::AllocateAt(at) => {
                if map.allocate_at(at.into()).is_ok() {
                    model.take(at.into(), 1);
                }
            }
            Op::AllocateRun(order) => {
                if let Some(got) = map.allocate_run(u32::from(order % 12)) {
                    model.take(got as u128, 1 << (order % 12));
                }
            }
            Op::Release(at) => {
                if map.release(at.into()).is_ok() {
                    model.free(at.into(), 1);
                }
            }
            Op::ReleaseRun(at, order) => {
                if map.release_run(at.into(), u32::from(order % 12)).is_ok() {
                    model.free(at.into(), 1 << (order % 12));
                }
            }
            Op::Reserve(from, to) => {
                map.reserve(from.into(), to.into());
                model
                    .0
                    .extend(from.into()..u128::from(to).min(size as u128));
            }
            Op::Clear(from, to) => {
                map.clear(from.into(), to.into());
                model
                    .0
                    .retain(|n| !(u128::from(from)..u128::from(to)).contains(n));
            }
            Op::Resize(_) | Op::Snapshot => assert_eq!(map.allocated(), model.0.len()),
        }
    }
    assert!(
        map.to_bitmap()
            .taken()
            .map(|n| n as u128)
            .eq(model.0.iter().copied())
    );
}

fn drive_sparse(mut map: SparseBitmap, ops: &[Op]) {
    let mut model = Model::default();
    let last = map.last();
    for op in ops {
        match *op {
            Op::Allocate | Op::Resize(_) => match map.allocate() {
                Some(got) => model.take(got, 1),
                None => assert_eq!(model.0.len() as u128, last + 1),
            },
            Op::AllocateIn(from, to) => {
                let (from, to) = (u128::from(from), u128::from(to).min(last));
                match map.allocate_in(from, to) {
                    Some(got) => {
                        assert!((from..=to).contains(&got));
                        model.take(got, 1);
                    }
                    None => {
                        assert!(from > to || model.taken(from, to - from + 1) == to - from + 1);
                    }
                }
            }
            Op::AllocateAt(at) => {
                if map.allocate_at(at.into()).is_ok() {
                    model.take(at.into(), 1);
                }
            }
            Op::AllocateRun(order) => {
                if let Some(got) = map.allocate_run(u32::from(order % 14)) {
                    model.take(got, 1 << (order % 14));
                }
            }
            Op::Release(at) => {
                if map.release(at.into()).is_ok() {
                    model.free(at.into(), 1);
                }
            }
            Op::ReleaseRun(at, order) => {
                if map.release_run(at.into(), u32::from(order % 14)).is_ok() {
                    model.free(at.into(), 1 << (order % 14));
                }
            }
            Op::Reserve(from, to) => {
                map.reserve(from.into(), to.into());
                model.0.extend(from.into()..=u128::from(to).min(last));
            }
            Op::Clear(from, to) => {
                map.clear(from.into(), to.into());
                model
                    .0
                    .retain(|n| !(u128::from(from)..=u128::from(to)).contains(n));
            }
            Op::Snapshot => map = SparseBitmap::restore(&map.snapshot(), last).unwrap(),
        }
        assert_eq!(map.allocated(), model.0.len() as u128);
    }
    assert!(map.taken().eq(model.0.iter().copied()));
}
