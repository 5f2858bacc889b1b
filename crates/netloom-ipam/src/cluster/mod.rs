//! The hosts that share a store: who takes part, in which epoch, and what happens when the store
//! lost its past. docs/address-protocol.md is the rule.

mod bounded;
mod check;
mod commit;
mod content;
mod copy;
mod forget;
mod heal;
mod init;
mod judge;
mod look;
mod member;
mod memory;
mod mirror;
mod open;
mod peers;
mod promote;
mod status;
mod tend;
mod view;

pub use check::{Problem, store_check, store_dump};
pub use copy::{Copied, CopyError, store_copy};
pub use init::cluster_init;

pub(crate) use commit::RangeError;
pub(crate) use member::Member;
pub(crate) use memory::Memory;
pub(crate) use mirror::Mirror;
