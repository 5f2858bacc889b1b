//! The store contract of Netloom on etcd v3.
//!
//! [`EtcdStore`] keeps the contract of [`netloom_core::store`] on a server or cluster of the
//! operator's own. What it makes of etcd:
//!
//! - **A change is sent once.** Only what certainly never left this host, and what etcd refused for
//!   a token that ran out, is sent again. Whatever may have happened is `Unknown`.
//! - **Reads are linearizable** and go from member to member until the deadline.
//! - **A watch says only "list again"**, and breaks loudly when the member is frozen or loses its
//!   leader.
//! - **The store's identity** is etcd's cluster id with an id written into the content, and every
//!   answer's revision is held against the highest one seen: a store that was replaced, emptied or
//!   put back from an older copy answers `WrongEpoch` until it is opened again.
//! - **History is not compacted here.** What Netloom holds is bounded, but every change leaves
//!   history behind: run etcd with `--auto-compaction-retention`, as its operators do. Nothing here
//!   reads history, so that any retention will do.
//!
//! Servers older than 3.5.28 and 3.6.9 have known bugs; [`known_problems`] names them, and a
//! warning tells of them once.
#![forbid(unsafe_code)]

mod connect;
mod failure;
mod guard;
mod known;
mod lease;
mod link;
mod store;
mod tries;
mod txn;
mod watch;

pub use known::known_problems;
pub use store::EtcdStore;
