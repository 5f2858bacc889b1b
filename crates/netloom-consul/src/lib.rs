//! The store contract on consul.
#![forbid(unsafe_code)]
