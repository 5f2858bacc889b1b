//! Bytes under keys with compare-and-swap: stores in memory and on disk, wrappers, and the suite
//! that every store must pass.
//!
//! The contract is the trait [`Store`] of `netloom-core`. Here are
//!
//! - [`MemoryStore`]: for tests and for embedding without a disk;
//! - [`EmbeddedStore`]: one durable, crash-safe file, opened by one process at a time;
//! - wrappers, each a store around a store: [`PrefixStore`] (a directory of another store),
//!   [`FencedStore`] (every change also checks the epoch), [`FaultStore`] (fails on purpose, from a
//!   seed) and [`CountingStore`];
//! - [`conformance`]: the contract as tests, for every backend, also those of other crates;
//! - [`commit_resolving_unknown`]: what to do when nobody knows whether a change happened.
//!
//! It knows nothing of networks and addresses, and gives no value a meaning. It does not encrypt.
//!
//! ```
//! use netloom_core::store::{Key, Operation, Store, Transaction};
//! use netloom_store::MemoryStore;
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let store = MemoryStore::new();
//! let key = Key::new("networks/blue")?;
//! let made = store
//!     .commit(Transaction::new([Operation::Create(key.clone(), b"10.0.0.0/8".to_vec())]))
//!     .await?;
//! let read = store.get(&key).await?.expect("it was just created");
//! assert_eq!(read.value, b"10.0.0.0/8");
//! assert_eq!(made.versions, [(key, read.version)]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! [`Store`]: netloom_core::store::Store
#![forbid(unsafe_code)]

pub mod conformance;
mod counting;
mod embedded;
mod fault;
mod fenced;
mod memory;
mod prefix;
mod random;
mod resolve;
mod rules;
mod sighting;
mod watchers;

pub use counting::{CountingStore, Counts};
pub use embedded::{EmbeddedStore, OpenError};
pub use fault::{DELAY_MAX, Fault, FaultRates, FaultStore};
pub use fenced::FencedStore;
pub use memory::MemoryStore;
pub use prefix::PrefixStore;
pub use resolve::{Trace, commit_resolving_unknown};
pub use sighting::Sighting;
