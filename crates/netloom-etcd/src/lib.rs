//! The store contract on etcd.
#![forbid(unsafe_code)]
