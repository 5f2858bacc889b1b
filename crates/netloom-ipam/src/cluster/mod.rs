//! The hosts that share a store: who takes part, in which epoch, and what happens when the store
//! lost its past. docs/address-protocol.md is the rule.

mod judge;
mod look;
mod member;
mod memory;
mod open;

pub(crate) use member::{Member, RangeError};
pub(crate) use memory::Memory;
