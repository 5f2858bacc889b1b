//! Dense or sparse, whichever fits the size of the pool.

use crate::{BitError, Bitmap, Policy, SparseBitmap};

/// Pools of up to 2^24 addresses (2 MiB of bits) are dense; wider ones would waste memory on
/// addresses that nobody uses.
const DENSE_HOST_BITS_MAX: u8 = 24;

/// One bitmap under the numbers of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bits {
    Dense(Bitmap),
    Sparse(SparseBitmap),
}

/// What memory a pool takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As fits its size.
    Fitting,
    /// Only where something is taken and something is free.
    Sparse,
}

impl Bits {
    /// The bits of a pool with this many host bits.
    pub(crate) fn new(host_bits: u8, policy: Policy, form: Form) -> Self {
        if form == Form::Fitting && host_bits <= DENSE_HOST_BITS_MAX {
            let dense = Bitmap::with_policy(1 << host_bits, policy);
            Self::Dense(dense.expect("2^24 is below the largest bitmap"))
        } else {
            Self::Sparse(SparseBitmap::with_policy(last(host_bits), policy))
        }
    }

    pub(crate) fn restore(bytes: &[u8], host_bits: u8) -> Result<Self, crate::SnapshotError> {
        if host_bits <= DENSE_HOST_BITS_MAX && !SparseBitmap::is_snapshot(bytes) {
            Bitmap::restore(bytes, 1 << host_bits).map(Self::Dense)
        } else {
            SparseBitmap::restore(bytes, last(host_bits)).map(Self::Sparse)
        }
    }

    pub(crate) fn snapshot(&self) -> Vec<u8> {
        match self {
            Self::Dense(map) => map.snapshot(),
            Self::Sparse(map) => map.snapshot(),
        }
    }

    #[inline]
    pub(crate) fn allocate_in(&mut self, from: u128, last: u128) -> Option<u128> {
        match self {
            Self::Dense(map) => wide(map.allocate_in(narrow(from), narrow(last) + 1)),
            Self::Sparse(map) => map.allocate_in(from, last),
        }
    }

    pub(crate) fn allocate_run_in(&mut self, order: u32, from: u128, last: u128) -> Option<u128> {
        match self {
            Self::Dense(map) => wide(map.allocate_run_in(order, narrow(from), narrow(last) + 1)),
            Self::Sparse(map) => map.allocate_run_in(order, from, last),
        }
    }

    #[inline]
    pub(crate) fn allocate_at(&mut self, index: u128) -> Result<(), BitError> {
        match self {
            Self::Dense(map) => map.allocate_at(narrow(index)),
            Self::Sparse(map) => map.allocate_at(index),
        }
    }

    #[inline]
    pub(crate) fn release(&mut self, index: u128) -> Result<(), BitError> {
        match self {
            Self::Dense(map) => map.release(narrow(index)),
            Self::Sparse(map) => map.release(index),
        }
    }

    pub(crate) fn allocate_run_at(&mut self, index: u128, order: u32) -> Result<(), BitError> {
        match self {
            Self::Dense(map) => map.allocate_run_at(narrow(index), order),
            Self::Sparse(map) => map.allocate_run_at(index, order),
        }
    }

    pub(crate) fn release_run(&mut self, index: u128, order: u32) -> Result<(), BitError> {
        match self {
            Self::Dense(map) => map.release_run(narrow(index), order),
            Self::Sparse(map) => map.release_run(index, order),
        }
    }

    pub(crate) fn is_allocated(&self, index: u128) -> bool {
        match self {
            Self::Dense(map) => map.is_allocated(narrow(index)),
            Self::Sparse(map) => map.is_allocated(index),
        }
    }

    pub(crate) fn next_taken(&self, from: u128) -> Option<u128> {
        match self {
            Self::Dense(map) => wide(map.next_taken(narrow(from))),
            Self::Sparse(map) => map.next_taken(from),
        }
    }

    /// How many of `from..=last` are taken.
    pub(crate) fn allocated_in(&self, from: u128, last: u128) -> u128 {
        match self {
            Self::Dense(map) => map.allocated_in(narrow(from), narrow(last) + 1) as u128,
            Self::Sparse(map) => map.allocated_in(from, last),
        }
    }

    pub(crate) fn policy(&self) -> Policy {
        match self {
            Self::Dense(map) => map.policy(),
            Self::Sparse(map) => map.policy(),
        }
    }

    pub(crate) fn set_policy(&mut self, policy: Policy) {
        match self {
            Self::Dense(map) => map.set_policy(policy),
            Self::Sparse(map) => map.set_policy(policy),
        }
    }

    pub(crate) fn bytes_held(&self) -> usize {
        match self {
            Self::Dense(map) => map.bytes_held(),
            Self::Sparse(map) => map.bytes_held(),
        }
    }
}

/// The last number of a sparse pool.
fn last(host_bits: u8) -> u128 {
    let above = 128 - u32::from(host_bits);
    // All of 128 bits are above a single address.
    u128::MAX.checked_shr(above).unwrap_or(0)
}

/// A number of a dense pool; what is too large lies behind the end of every bitmap.
fn narrow(index: u128) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX - 1)
}

fn wide(index: Option<usize>) -> Option<u128> {
    index.map(|index| index as u128)
}
