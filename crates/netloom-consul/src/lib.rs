//! The store contract on Consul.
//!
//! A thin client of our own speaks Consul's HTTP API: the registry's clients have no transactions,
//! and one of them cannot read binary values. It stands directly on hyper's connections, since
//! only there a request that never left can be told from one whose outcome is unknown.
//!
//! What Consul does that a caller would not expect, and what is made of it here:
//!
//! - A compare-and-swap that lost answers 200 with the body `false`: read as a loss.
//! - Deleting an absent key by compare-and-swap succeeds: every change is preceded by a check of
//!   its own, whose answer also says exactly how the key differed.
//! - Writing the value that is there already changes nothing, not even the version: every commit
//!   writes another number into the key's `Flags`, so that it is always a change.
//! - A list leaves out what the token may not read, instead of refusing: an empty list is believed
//!   only when the token may read there.
//! - Denied operations of a transaction are answered as conflicts: told apart by their text.
//! - The index of a directory may go backwards: the watch starts again and says "changed".
//! - Sessions die early or late: they only carry hints about which hosts are alive.
//!
//! Keys map one to one. Three top-level names are ours for every directory of a server:
//! `netloom.identity`, `netloom.alive` and `netloom.nothing` (never written: its absence shows how
//! far the server has come).
#![forbid(unsafe_code)]

mod epoch;
mod http;
mod liveness;
mod rows;
mod store;
mod transaction;
mod watch;

pub use store::ConsulStore;
