//! Proofs of the address protocol: a walk through all states of a small model, and what real
//! histories are held against.
#![forbid(unsafe_code)]
#![allow(
    clippy::fn_params_excessive_bools,
    clippy::struct_excessive_bools,
    reason = "the switches of a simulated world, and what was or was not seen of it, are many"
)]

pub mod duplicates;
pub mod histories;
pub mod linear;
pub mod model;
pub mod sim;

use netloom_core::store::{Operation, Transaction};

/// Whether a transaction changes who owns a range.
fn changes_a_range(transaction: &Transaction) -> bool {
    let mut keys = transaction.operations.iter().map(Operation::key);
    keys.any(|key| key.as_str().starts_with("chunks/"))
}
