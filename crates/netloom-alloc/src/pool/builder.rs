//! Making a pool.

use super::bits::Bits;
use super::{AddressPool, PoolError, Role, reserved};
use crate::Policy;
use netloom_types::Subnet;
use std::net::IpAddr;

/// What a pool shall be; see [`AddressPool::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct AddressPoolBuilder {
    subnet: Subnet,
    range: Subnet,
    policy: Policy,
    reserved: Vec<(IpAddr, Role)>,
}

impl AddressPoolBuilder {
    pub(super) fn new(subnet: Subnet) -> Self {
        Self {
            subnet,
            range: subnet,
            policy: Policy::default(),
            reserved: Vec::new(),
        }
    }

    /// Hands out addresses of `range` only, unless one is asked for by name.
    pub fn range(mut self, range: Subnet) -> Self {
        self.range = range;
        self
    }

    /// How the next address is chosen; [`Policy::NextFit`] unless said otherwise.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Reserves the gateway's address.
    pub fn gateway(self, ip: IpAddr) -> Self {
        self.reserve(ip, Role::Gateway)
    }

    /// Reserves an auxiliary address.
    pub fn auxiliary(self, ip: IpAddr) -> Self {
        self.reserve(ip, Role::Auxiliary)
    }

    fn reserve(mut self, ip: IpAddr, role: Role) -> Self {
        self.reserved.push((ip, role));
        self
    }

    /// Makes the pool.
    ///
    /// # Errors
    /// When the range or a reserved address does not lie in the pool, or an address is reserved
    /// twice.
    pub fn build(self) -> Result<AddressPool, PoolError> {
        let Self {
            subnet,
            range,
            policy,
            reserved,
        } = self;
        if !range.is_subnet_of(subnet) {
            return Err(PoolError::RangeOutside { range, subnet });
        }
        let mut pool = empty(subnet, range, policy);
        for (ip, role) in reserved {
            pool.reserve(ip, role)
                .map_err(|source| PoolError::Reservation {
                    ip,
                    role,
                    subnet,
                    source,
                })?;
        }
        Ok(pool)
    }
}

/// A pool in which only the family's own addresses are reserved; `range` lies in `subnet`.
pub(super) fn empty(subnet: Subnet, range: Subnet, policy: Policy) -> AddressPool {
    let mut bits = Bits::new(subnet.host_bits(), policy);
    let reserved: Vec<_> = reserved::of_family(subnet).collect();
    for (index, _) in &reserved {
        bits.allocate_at(*index)
            .expect("the pool's first and last address are free in a new one");
    }
    AddressPool::from_parts(subnet, range, reserved, bits)
}
