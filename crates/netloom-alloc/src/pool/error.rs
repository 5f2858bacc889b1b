//! What can be wrong with an address, a block or a subnet.

use super::Role;
use netloom_types::{Family, Subnet};
use std::net::IpAddr;

/// Why a pool cannot be made as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The range for automatic hand-out is not a part of the pool.
    #[error("the range {range} does not lie in the pool {subnet}, give a range inside of it")]
    RangeOutside {
        /// The range that was asked for.
        range: Subnet,
        /// The pool's subnet.
        subnet: Subnet,
    },
    /// An address to be reserved cannot be.
    #[error("{ip} cannot be reserved as {role} of the pool {subnet}")]
    Reservation {
        /// The address.
        ip: IpAddr,
        /// What it was to be.
        role: Role,
        /// The pool's subnet.
        subnet: Subnet,
        /// Why not.
        #[source]
        source: AllocateError,
    },
}

/// Why no address, or not this one, could be allocated; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AllocateError {
    /// Every address of the range is taken.
    #[error("every address of {range} is taken, release some or use a larger pool")]
    Exhausted {
        /// The range that was searched.
        range: Subnet,
    },
    /// No free block of this size is left, though single addresses may be.
    #[error(
        "no free block with prefix length {prefix_len} is left in {range}, ask for a smaller one"
    )]
    NoBlock {
        /// The wanted prefix length.
        prefix_len: u8,
        /// The range that was searched.
        range: Subnet,
    },
    /// The address, or one of the block's, is taken.
    #[error("{block} is allocated already, choose another one")]
    AlreadyAllocated {
        /// What was asked for; a single address has the family's full prefix length.
        block: Subnet,
    },
    /// The address, or one of the block's, is never handed out.
    #[error("{ip} is reserved as {role} of its pool, choose another address")]
    Reserved {
        /// The reserved address.
        ip: IpAddr,
        /// What for.
        role: Role,
    },
    /// The address or block is not a part of the pool.
    #[error("{block} does not lie in the pool {subnet}, choose one inside of it")]
    OutOfPool {
        /// What was asked for.
        block: Subnet,
        /// The pool's subnet.
        subnet: Subnet,
    },
}

/// Why an address or block could not be given back; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// It, or one of the block's addresses, was not allocated: given back twice, or never had.
    #[error("{block} was not allocated, so there is nothing to release")]
    NotAllocated {
        /// What was to be released; a single address has the family's full prefix length.
        block: Subnet,
    },
    /// It, or one of the block's addresses, is reserved; [`super::AddressPool::unreserve`] ends
    /// that.
    #[error("{ip} is reserved as {role} of its pool and was never handed out")]
    Reserved {
        /// The reserved address.
        ip: IpAddr,
        /// What for.
        role: Role,
    },
    /// It is not a part of the pool.
    #[error("{block} does not lie in the pool {subnet}")]
    OutOfPool {
        /// What was to be released.
        block: Subnet,
        /// The pool's subnet.
        subnet: Subnet,
    },
}

/// Why no subnet, or not this one, could be had; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubnetError {
    /// A pool cannot be cut into subnets of this size.
    #[error("{base} cannot be cut into subnets of prefix length {prefix_len}, give one from {} to {}", base.prefix_len(), base.family().bits())]
    BadSize {
        /// The larger subnet.
        base: Subnet,
        /// The prefix length asked for.
        prefix_len: u8,
    },
    /// No pool of this family holds subnets of this size.
    #[error("no configured pool holds an {family} subnet of the wanted size, configure one")]
    NoPool {
        /// The family asked for.
        family: Family,
    },
    /// All subnets of this size are in use.
    #[error(
        "every {family} subnet of the wanted size is in use here or overlaps one that is, configure another pool or remove a network"
    )]
    Exhausted {
        /// The family asked for.
        family: Family,
    },
    /// The subnet shares addresses with one that is in use.
    #[error("{subnet} overlaps {with}, which is in use, choose another subnet")]
    Overlaps {
        /// The subnet asked for.
        subnet: Subnet,
        /// The one in its way.
        with: Subnet,
    },
    /// The subnet to be released was not in use.
    #[error("{subnet} was not allocated, so there is nothing to release")]
    NotAllocated {
        /// The subnet to be released.
        subnet: Subnet,
    },
}
