//! The store contract on Apache ZooKeeper.
#![forbid(unsafe_code)]
