//! The store contract on Apache ZooKeeper, 3.6 and later.
//!
//! [`ZooKeeperStore`] keeps the trait [`Store`] of `netloom-core`, and [`Liveness`]. What follows
//! is how, trap by trap.
//!
//! # Nodes, and versions that never come back
//!
//! The key `a/b` is the node `/a/b`. ZooKeeper counts a node's changes, and starts again at 0 when
//! the node is deleted and created: a count alone would let a late writer overwrite a stranger's
//! record. So a value has a *life*, a random number that its creation invents and its data begins
//! with. As long as the value lives, and no longer, the node has a child `@<life>`, its witness. A
//! version is life and count together. A multi request that demands one checks both: that the
//! witness is there, and that the node has that count.
//!
//! A node may have children without having a value: directories are nodes with no data. Four rules
//! keep them and values apart:
//!
//! - A value is written once more than needed at its creation, so the count of a node that holds a
//!   value is never 0. A node with no data and count 0 has always been a mere directory. Creating a
//!   value there demands the count 0, which no later node with a value can have.
//! - Deleting a value deletes its node. If other keys lie below it, the node is emptied instead, and
//!   has a count above 0.
//! - A value in such an emptied node is marked as *kept*: its node is emptied at its end, never
//!   deleted. So the count of an emptied node never starts again, and demanding it is safe.
//! - Only nodes with the count 0 are removed as empty directories.
//!
//! So what stays behind is one empty node per key that was a value and a directory at once. Netloom
//! has no such keys. The rejected alternatives: a node that is never deleted leaves one behind for
//! every key that ever was, and a guard per directory whose count each removal moves makes
//! neighbours conflict.
//!
//! That a key must be absent is checked by creating and deleting its node in the same request, or,
//! when its directory is missing as well, the highest directory that is.
//!
//! -1 means "any version" to ZooKeeper. No version holds a negative count, and every write carries
//! one. A key that was changed 2³¹-1 times takes no more changes.
//!
//! # Reading
//!
//! A server answers reads from its own memory, which may be behind. `sync` asks the leader, but a
//! leader that has lost its followers and does not know it yet answers as ever (ZOOKEEPER-1675). So
//! every read is sent behind a *fence*: a multi request with one check and no change, which the
//! quorum has to accept. Requests of one session are carried out in order, so both go out together
//! and take one round trip. The fence costs a write to the servers' disks; reads are rare here, and
//! a list has one fence for 256 nodes.
//!
//! # Outcomes
//!
//! The client library never sends a request twice by itself. It keeps requests while the connection
//! is away, and giving up on one does not take it back. So a transaction is handed over only while
//! there is a connection (else `Unavailable`), and from then on only an answer of the server to it
//! ends as anything but `Unknown`: not a deadline, not a lost connection, not an expired session.
//! Every transaction that ends with `Conflict` was refused by the quorum as a whole.
//!
//! # Which store it is
//!
//! The node `@store` below the configured prefix holds a random name, given by the first client
//! that comes. Every transaction and every fence checks that it is there. Each new session reads it
//! again and makes a change, whose number (zxid) must be above every number seen before. Another
//! name or a lower number means that the store was replaced, emptied or put back from a copy: then
//! every operation ends as `WrongEpoch` until the store is opened anew. A server refuses by itself
//! to go on with a session that has seen more than it has. What cannot be seen: a store that went
//! back while this host had no session, and has since come further than it was.
//! [`ZooKeeperStore::mark`] tells the highest number seen, to be kept across restarts.
//!
//! # Watches and liveness
//!
//! A watch is a persistent recursive one. It wakes on every event and after every reconnection,
//! since what happens in between is told by nobody (ZOOKEEPER-4698), and it breaks with its session.
//! A host that is announced has an ephemeral node below `@alive`: it goes 10 s after the session's
//! last sign of life, and says no more than that.
//!
//! # Access
//!
//! With a user and a password (SASL DIGEST-MD5), nodes belong to whoever made them: all hosts of a
//! cluster log in as the same user. Without, anybody may do anything. Passwords and certificates are
//! read for every session, certificates also every 10 s, for the session's next connection. Nothing
//! above the prefix is touched but to create it; where that is not allowed, let an operator create
//! it.
//!
//! # Servers to avoid
//!
//! ZooKeeper before 3.8.4, 3.9.0, 3.9.1 and 3.9.3 may lose what they acknowledged when a member
//! restarts at the wrong moment (ZOOKEEPER-4785, ZOOKEEPER-4925). A client cannot make up for that;
//! it logs a warning.
//!
//! # Limits
//!
//! A request may have 1 MiB (`jute.maxbuffer`), more than the contract's 256 KiB with all paths. A
//! directory's names come in one answer, so directories are kept small by those who choose keys.
//!
//! [`Store`]: netloom_core::store::Store
//! [`Liveness`]: netloom_core::store::Liveness
#![forbid(unsafe_code)]

mod commit;
mod connect;
mod error;
mod greeting;
mod liveness;
mod node;
mod plan;
mod server_version;
mod session;
mod store;
mod watch;

pub use store::ZooKeeperStore;
