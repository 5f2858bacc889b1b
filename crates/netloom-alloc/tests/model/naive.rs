//! The naive model: the set of free numbers, every operation written the slow and obvious way.

use netloom_alloc::{AtomicBitmap, BitError, Bitmap, Policy, SparseBitmap};
use std::collections::BTreeSet;

/// One operation on numbers; ranges are half open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Allocate,
    AllocateIn(u64, u64),
    AllocateAt(u64),
    Release(u64),
    RunIn(u32, u64, u64),
    RunAt(u64, u32),
    ReleaseRun(u64, u32),
    Reserve(u64, u64),
    Clear(u64, u64),
    NextFree(u64),
    NextTaken(u64),
    CountIn(u64, u64),
    Restore,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Number(Option<u64>),
    Done(Result<(), BitError>),
    Count(u64),
}

/// What is compared with the model.
pub(crate) trait Subject {
    fn apply(&mut self, op: Op) -> Outcome;
    fn taken(&self) -> Vec<u64>;
    fn allocated(&self) -> u64;
}

impl Subject for Bitmap {
    fn apply(&mut self, op: Op) -> Outcome {
        let u = |n: u64| usize::try_from(n).unwrap();
        let w = |n: Option<usize>| Outcome::Number(n.map(|n| n as u64));
        match op {
            Op::Allocate => w(self.allocate()),
            Op::AllocateIn(from, to) => w(self.allocate_in(u(from), u(to))),
            Op::AllocateAt(at) => Outcome::Done(self.allocate_at(u(at))),
            Op::Release(at) => Outcome::Done(self.release(u(at))),
            Op::RunIn(order, from, to) => w(self.allocate_run_in(order, u(from), u(to))),
            Op::RunAt(at, order) => Outcome::Done(self.allocate_run_at(u(at), order)),
            Op::ReleaseRun(at, order) => Outcome::Done(self.release_run(u(at), order)),
            Op::Reserve(from, to) => Outcome::Count(self.reserve(u(from), u(to)) as u64),
            Op::Clear(from, to) => Outcome::Count(self.clear(u(from), u(to)) as u64),
            Op::NextFree(from) => w(self.next_free(u(from))),
            Op::NextTaken(from) => w(self.next_taken(u(from))),
            Op::CountIn(from, to) => Outcome::Count(self.allocated_in(u(from), u(to)) as u64),
            Op::Restore => {
                let copy = Self::restore(&self.snapshot(), self.capacity()).unwrap();
                assert_eq!(copy, *self);
                *self = copy;
                Outcome::Count(0)
            }
        }
    }

    fn taken(&self) -> Vec<u64> {
        self.taken().map(|n| n as u64).collect()
    }

    fn allocated(&self) -> u64 {
        self.allocated() as u64
    }
}

impl Subject for SparseBitmap {
    fn apply(&mut self, op: Op) -> Outcome {
        let u = u128::from;
        let w = |n: Option<u128>| Outcome::Number(n.map(|n| u64::try_from(n).unwrap()));
        let c = |n: u128| Outcome::Count(u64::try_from(n).unwrap());
        // Ranges of this form include their end; empty ones cannot be said.
        match op {
            Op::AllocateIn(from, to) | Op::RunIn(_, from, to) if from >= to => {
                Outcome::Number(None)
            }
            Op::Reserve(from, to) | Op::Clear(from, to) | Op::CountIn(from, to) if from >= to => {
                Outcome::Count(0)
            }
            Op::Allocate => w(self.allocate()),
            Op::AllocateIn(from, to) => w(self.allocate_in(u(from), u(to) - 1)),
            Op::AllocateAt(at) => Outcome::Done(self.allocate_at(u(at))),
            Op::Release(at) => Outcome::Done(self.release(u(at))),
            Op::RunIn(order, from, to) => w(self.allocate_run_in(order, u(from), u(to) - 1)),
            Op::RunAt(at, order) => Outcome::Done(self.allocate_run_at(u(at), order)),
            Op::ReleaseRun(at, order) => Outcome::Done(self.release_run(u(at), order)),
            Op::Reserve(from, to) => c(self.reserve(u(from), u(to) - 1)),
            Op::Clear(from, to) => c(self.clear(u(from), u(to) - 1)),
            Op::NextFree(from) => w(self.next_free(u(from))),
            Op::NextTaken(from) => w(self.next_taken(u(from))),
            Op::CountIn(from, to) => c(self.allocated_in(u(from), u(to) - 1)),
            Op::Restore => {
                let copy = Self::restore(&self.snapshot(), self.last()).unwrap();
                assert_eq!(copy, *self);
                *self = copy;
                Outcome::Count(0)
            }
        }
    }

    fn taken(&self) -> Vec<u64> {
        self.taken().map(|n| u64::try_from(n).unwrap()).collect()
    }

    fn allocated(&self) -> u64 {
        u64::try_from(self.allocated()).unwrap()
    }
}

impl Subject for AtomicBitmap {
    fn apply(&mut self, op: Op) -> Outcome {
        let u = |n: u64| usize::try_from(n).unwrap();
        let w = |n: Option<usize>| Outcome::Number(n.map(|n| n as u64));
        match op {
            Op::Allocate => w(self.allocate()),
            Op::AllocateIn(from, to) => w(self.allocate_in(u(from), u(to))),
            Op::AllocateAt(at) => Outcome::Done(self.allocate_at(u(at))),
            Op::Release(at) => Outcome::Done(self.release(u(at))),
            Op::RunIn(order, from, to) => w(self.allocate_run_in(order, u(from), u(to))),
            Op::RunAt(at, order) => Outcome::Done(self.allocate_run_at(u(at), order)),
            Op::ReleaseRun(at, order) => Outcome::Done(self.release_run(u(at), order)),
            Op::Reserve(from, to) => Outcome::Count(self.reserve(u(from), u(to)) as u64),
            Op::Clear(from, to) => Outcome::Count(self.clear(u(from), u(to)) as u64),
            // Looking is done on a copy, and restoring is going through one.
            Op::NextFree(_) | Op::NextTaken(_) | Op::CountIn(..) => self.to_bitmap().apply(op),
            Op::Restore => {
                *self = Self::from(&self.to_bitmap());
                Outcome::Count(0)
            }
        }
    }

    fn taken(&self) -> Vec<u64> {
        self.to_bitmap().taken().map(|n| n as u64).collect()
    }

    fn allocated(&self) -> u64 {
        self.allocated() as u64
    }
}

/// The free numbers below a capacity.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    capacity: u64,
    free: BTreeSet<u64>,
    policy: Policy,
    cursor: u64,
}

impl Model {
    pub(crate) fn new(capacity: u64, policy: Policy) -> Self {
        Self {
            capacity,
            free: (0..capacity).collect(),
            policy,
            cursor: 0,
        }
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Accepts any free number: for a policy whose order is not a naive one.
    pub(crate) fn in_any_order(mut self) -> Self {
        self.policy = Policy::RandomStart { seed: 0 };
        self
    }

    pub(crate) fn allocated(&self) -> u64 {
        self.capacity - self.free.len() as u64
    }

    pub(crate) fn taken(&self) -> Vec<u64> {
        (0..self.capacity)
            .filter(|n| !self.free.contains(n))
            .collect()
    }

    /// The state that decides all that follows.
    pub(crate) fn state(&self) -> (Vec<u64>, u64) {
        (self.taken(), self.cursor)
    }

    /// Applies `op` and panics unless `outcome` is what it should have given.
    pub(crate) fn check(&mut self, op: Op, outcome: Outcome) {
        match (op, outcome) {
            (Op::Allocate, Outcome::Number(got)) => self.check_run((0, 0, self.capacity), got),
            (Op::AllocateIn(from, to), Outcome::Number(got)) => self.check_run((0, from, to), got),
            (Op::RunIn(order, from, to), Outcome::Number(got)) => {
                self.check_run((order, from, to), got);
            }
            _ => assert_eq!(outcome, self.apply_exact(op)),
        }
    }

    /// Operations that no policy has a word in.
    fn apply_exact(&mut self, op: Op) -> Outcome {
        match op {
            Op::AllocateAt(at) => Outcome::Done(self.take_all(at, 0)),
            Op::RunAt(at, order) => Outcome::Done(self.take_all(at, order)),
            Op::Release(at) => Outcome::Done(self.free_all(at, 0)),
            Op::ReleaseRun(at, order) => Outcome::Done(self.free_all(at, order)),
            Op::Reserve(from, to) => {
                let changed = (from..to.min(self.capacity)).filter(|n| self.free.remove(n));
                Outcome::Count(changed.count() as u64)
            }
            Op::Clear(from, to) => {
                let changed = (from..to.min(self.capacity)).filter(|n| self.free.insert(*n));
                Outcome::Count(changed.count() as u64)
            }
            Op::NextFree(from) => Outcome::Number(self.free.range(from..).next().copied()),
            Op::NextTaken(from) => {
                Outcome::Number((from..self.capacity).find(|n| !self.free.contains(n)))
            }
            Op::CountIn(from, to) => {
                let taken = (from..to.min(self.capacity)).filter(|n| !self.free.contains(n));
                Outcome::Count(taken.count() as u64)
            }
            Op::Allocate | Op::AllocateIn(..) | Op::RunIn(..) | Op::Restore => Outcome::Count(0),
        }
    }

    /// The run of 2^order numbers in `from..to` that the policy asks for, or any free one if the
    /// policy is a random one.
    fn check_run(&mut self, (order, from, to): (u32, u64, u64), got: Option<u64>) {
        let size = 1_u64 << order;
        let starts: Vec<u64> = (from..to.min(self.capacity).saturating_sub(size - 1))
            .filter(|start| start.is_multiple_of(size) && self.is_free(*start, size))
            .collect();
        let inside = from <= self.cursor && self.cursor < to.min(self.capacity) + 1 - size.min(to);
        let cursor = if inside { self.cursor } else { from };
        let ahead = starts.iter().copied().find(|start| *start >= cursor);
        match self.policy {
            Policy::LowestFree => assert_eq!(got, starts.first().copied()),
            Policy::NextFit => assert_eq!(got, ahead.or(starts.first().copied())),
            _ => match got {
                Some(got) => assert!(starts.contains(&got)),
                None => assert!(starts.is_empty()),
            },
        }
        if let Some(start) = got {
            self.free.retain(|n| !(start..start + size).contains(n));
            self.cursor = start + size;
        }
    }

    fn is_free(&self, start: u64, size: u64) -> bool {
        (start..start + size).all(|n| self.free.contains(&n))
    }

    fn fits(&self, at: u64, order: u32) -> Result<u64, BitError> {
        let size = 1 << order;
        if !at.is_multiple_of(size) {
            Err(BitError::Misaligned)
        } else if at + size > self.capacity {
            Err(BitError::OutOfRange)
        } else {
            Ok(size)
        }
    }

    fn take_all(&mut self, at: u64, order: u32) -> Result<(), BitError> {
        let size = self.fits(at, order)?;
        if !self.is_free(at, size) {
            return Err(BitError::AlreadyAllocated);
        }
        (at..at + size).for_each(|n| assert!(self.free.remove(&n)));
        Ok(())
    }

    fn free_all(&mut self, at: u64, order: u32) -> Result<(), BitError> {
        let size = self.fits(at, order)?;
        if (at..at + size).any(|n| self.free.contains(&n)) {
            return Err(BitError::NotAllocated);
        }
        self.free.extend(at..at + size);
        Ok(())
    }
}

/// Applies one operation to both and compares.
pub(crate) fn step(subject: &mut impl Subject, model: &mut Model, op: Op) {
    let outcome = subject.apply(op);
    model.check(op, outcome);
    assert_eq!(subject.allocated(), model.allocated(), "count after {op:?}");
}
