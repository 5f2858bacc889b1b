//! Making a pool.

use super::bits::{Bits, Form};
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
    form: Form,
    reserved: Vec<(IpAddr, Role)>,
}

impl AddressPoolBuilder {
    pub(super) fn new(subnet: Subnet) -> Self {
        Self {
            subnet,
            range: subnet,
            policy: Policy::default(),
            form: Form::Fitting,
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

    /// Holds memory only for the parts of the pool, of 4,096 addresses each, in which some are taken
    /// and some are free, whatever its size. Each operation looks into a tree first. For pools of
    /// more than 2^24 addresses that is so anyway. Two pools of different forms are never equal, and
    /// neither are their snapshots.
    ///
    /// ```
    /// use netloom_alloc::AddressPool;
    ///
    /// let mut pool = AddressPool::builder("10.0.0.0/8".parse()?).sparse().build()?;
    /// pool.allocate()?;
    /// assert!(pool.bytes_held() < 4_000);
    /// assert!(AddressPool::new(pool.subnet()).bytes_held() > 2_000_000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sparse(mut self) -> Self {
        self.form = Form::Sparse;
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
            form,
            reserved,
        } = self;
        if !range.is_subnet_of(subnet) {
            return Err(PoolError::RangeOutside { range, subnet });
        }
        let bits = Bits::new(subnet.host_bits(), policy, form);
        let mut pool = empty(subnet, range, bits);
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
pub(super) fn empty(subnet: Subnet, range: Subnet, mut bits: Bits) -> AddressPool {
    let reserved: Vec<_> = reserved::of_family(subnet).collect();
    for (index, _) in &reserved {
        bits.allocate_at(*index)
            .expect("the pool's first and last address are free in a new one");
    }
    AddressPool::from_parts(subnet, range, reserved, bits)
}
