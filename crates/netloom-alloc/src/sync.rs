//! What the atomic form needs of the machine. The interleaving tests compile the same source over
//! a scheduler's own atomics, and so replace this file.

pub(crate) use core::hint::spin_loop as wait;
pub(crate) use core::sync::atomic::{AtomicU64, Ordering};
