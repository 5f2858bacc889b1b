//! Which bit, address or subnet is free: the hot path of address management.
//!
//! Words of 64 bits with summary levels above them, so that the question for a free bit costs one
//! step per level whatever the size, occupancy or fragmentation. The crate does no I/O, takes no
//! lock, logs nothing and knows neither stores nor the kernel: durable truth is the caller's.
//!
//! ```text
//!   level 2   [ 1 . . ]                  a bit says: all 4,096 below are taken
//!   level 1   [ 1111...1 ][ 11.1.. ]     a bit says: all 64 below are taken
//!   leaves    [1..1][1..1] ... [1.11]    a bit says: this one is taken
//! ```
//!
//! | type | for |
//! |---|---|
//! | [`Bitmap`] | numbers below 2^32, one owner |
//! | [`AtomicBitmap`] | the same for several threads, without a lock |
//! | [`SparseBitmap`] | numbers below 2^128: memory only where something is taken |
//! | [`AddressPool`] | the addresses of one subnet, IPv4 or IPv6 of any length |
//! | [`SubnetPool`] | subnets cut from larger ones |
//!
//! ```
//! use netloom_alloc::AddressPool;
//!
//! let mut pool = AddressPool::new("10.9.0.0/24".parse()?);
//! let first = pool.allocate()?;
//! assert_eq!(first.to_string(), "10.9.0.1"); // .0 is the network's own address
//! pool.release(first)?;
//! assert!(pool.release(first).is_err()); // "was not allocated" is an error, not a silent no-op
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! `std` (default) adds the pools; without it the bitmaps are `no_std` with `alloc`. `serde` adds
//! `Serialize` and `Deserialize`, both as the strict snapshot format.
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod atomic;
mod bitmap;
mod error;
mod policy;
#[cfg(feature = "std")]
mod pool;
#[cfg(feature = "serde")]
mod serial;
mod shape;
mod snapshot;
mod sparse;
mod sync;

pub use atomic::AtomicBitmap;
pub use bitmap::{Bitmap, Difference, Free, Side, Taken};
pub use error::{BitError, ResizeError, SnapshotError};
pub use policy::Policy;
#[cfg(feature = "std")]
pub use pool::{
    AddressPool, AddressPoolBuilder, AddressState, AllocateError, Allocated, PoolDifference,
    PoolError, ReleaseError, Role, SubnetError, SubnetPool,
};
pub use shape::BITS_MAX;
pub use sparse::{SparseBitmap, SparseDifference, SparseTaken};

/// The README's example, run as a test.
#[cfg(all(doctest, feature = "std"))]
#[doc = include_str!("../README.md")]
struct Readme;
