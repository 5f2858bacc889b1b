//! The atomic form under a scheduler that tries interleavings: its source is compiled here a second
//! time, over the scheduler's atomics in place of the machine's.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "the tests drive a part of the source that is compiled again here"
)]

extern crate alloc;

#[path = "../../src/atomic/mod.rs"]
mod atomic;
#[path = "../../src/bitmap/mod.rs"]
mod bitmap;
#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/policy.rs"]
mod policy;
#[path = "../../src/shape.rs"]
mod shape;
#[path = "../../src/snapshot.rs"]
mod snapshot;

/// In place of the crate's `sync`.
mod sync {
    pub(crate) use shuttle::sync::atomic::{AtomicU64, Ordering};
    pub(crate) use shuttle::thread::yield_now as wait;
}

use bitmap::Bitmap;
use error::{BitError, ResizeError, SnapshotError};
use policy::Policy;
use shape::BITS_MAX;

#[cfg(test)]
mod properties;
