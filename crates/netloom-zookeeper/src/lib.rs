//! The store contract on Apache ZooKeeper.
#![forbid(unsafe_code)]

mod commit;
mod connect;
mod error;
mod greeting;
mod liveness;
mod node;
mod plan;
mod session;
mod store;
mod watch;

pub use store::ZooKeeperStore;
