//! Proofs of the address protocol: a walk through all states of a small model, and what real
//! histories are held against.
#![forbid(unsafe_code)]

pub mod duplicates;
pub mod histories;
pub mod linear;
pub mod model;
pub mod sim;
