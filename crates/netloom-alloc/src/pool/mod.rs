//! Pools of addresses and of subnets, on top of the bitmaps.

mod address;
mod bits;
mod builder;
mod error;
mod look;
mod numbers;
mod reserved;
mod snapshot;
mod subnets;

pub use address::AddressPool;
pub use builder::AddressPoolBuilder;
pub use error::{AllocateError, PoolError, ReleaseError, SubnetError};
pub use look::{AddressState, Allocated, PoolDifference};
pub use reserved::Role;
pub use subnets::SubnetPool;
