//! Proofs of the address protocol.
#![forbid(unsafe_code)]

pub mod model;
