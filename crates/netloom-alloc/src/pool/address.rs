//! The addresses of one subnet.

use super::bits::{Bits, Form};
use super::builder::{self, AddressPoolBuilder};
use super::numbers::Numbers;
use super::{AllocateError, ReleaseError, Role};
use crate::Policy;
use netloom_types::Subnet;
use std::net::IpAddr;

/// The addresses of one subnet, IPv4 or IPv6 of any prefix length: which are handed out, which
/// reserved, which free.
///
/// The subnet's own addresses (network and broadcast; not in a /31, /32, /127 or /128) are
/// reserved. Pools of up to 2^24 addresses are dense and take no memory after construction; wider
/// ones, and those that are [made so](AddressPoolBuilder::sparse), hold memory only where something
/// is taken.
///
/// With [`Policy::NextFit`], the default, a released address comes back last: the search goes on
/// behind the address handed out last and reaches it when it has come round. No address is ever
/// held back, so a pool is full only when every address is in use.
///
/// ```
/// use netloom_alloc::{AddressPool, AllocateError};
/// use netloom_types::Subnet;
///
/// let mut pool = AddressPool::builder("10.9.0.0/16".parse()?)
///     .range("10.9.8.0/30".parse()?)
///     .gateway("10.9.0.1".parse()?)
///     .build()?;
/// assert_eq!(pool.allocate()?.to_string(), "10.9.8.0");
///
/// // By name, any address of the subnet can be had.
/// pool.allocate_at("10.9.200.7".parse()?)?;
///
/// // The range has three more.
/// assert_eq!((0..9).map_while(|_| pool.allocate().ok()).count(), 3);
/// assert!(matches!(pool.allocate(), Err(AllocateError::Exhausted { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressPool {
    subnet: Subnet,
    range: Subnet,
    numbers: Numbers,
    /// First and last index of the range.
    range_span: (u128, u128),
    /// Sorted by index. Their bits are set, so that no search finds them.
    reserved: Vec<(u128, Role)>,
    bits: Bits,
}

impl AddressPool {
    /// All addresses of `subnet`, with the default policy.
    #[must_use]
    pub fn new(subnet: Subnet) -> Self {
        let bits = Bits::new(subnet.host_bits(), Policy::default(), Form::Fitting);
        builder::empty(subnet, subnet, bits)
    }

    /// A pool with a range, a gateway, auxiliary addresses or another policy.
    pub fn builder(subnet: Subnet) -> AddressPoolBuilder {
        AddressPoolBuilder::new(subnet)
    }

    /// The subnet whose addresses these are.
    #[must_use]
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// The part that addresses are handed out from when none is named.
    #[must_use]
    pub fn range(&self) -> Subnet {
        self.range
    }

    /// The policy in force, as it would go on from here.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.bits.policy()
    }

    /// Changes the policy; the next search starts as it says.
    pub fn set_policy(&mut self, policy: Policy) {
        self.bits.set_policy(policy);
    }

    /// Allocates a free address of the pool's range.
    ///
    /// # Errors
    /// [`AllocateError::Exhausted`] when all of the range are taken.
    #[inline]
    pub fn allocate(&mut self) -> Result<IpAddr, AllocateError> {
        self.allocate_between(self.range_span, self.range)
    }

    /// Allocates a free address of `range`, which need not lie in the pool's own range.
    ///
    /// # Errors
    /// When all of `range` are taken, or it is not a part of the pool.
    #[inline]
    pub fn allocate_in(&mut self, range: Subnet) -> Result<IpAddr, AllocateError> {
        self.allocate_between(self.span(range)?, range)
    }

    /// Allocates `ip`, inside or outside of the pool's range.
    ///
    /// # Errors
    /// When it is taken or reserved, or not a part of the pool.
    #[inline]
    pub fn allocate_at(&mut self, ip: IpAddr) -> Result<(), AllocateError> {
        let index = self.index(ip)?;
        match self.bits.allocate_at(index) {
            Ok(()) => Ok(()),
            Err(_) => Err(self.taken(Subnet::host(ip))),
        }
    }

    /// Allocates a whole block of the pool's range: all of its addresses or none.
    ///
    /// # Errors
    /// When no such block is free, or the range is smaller than one.
    pub fn allocate_block(&mut self, prefix_len: u8) -> Result<Subnet, AllocateError> {
        let range = self.range;
        let none = AllocateError::NoBlock { prefix_len, range };
        let order = range.family().bits().checked_sub(prefix_len).ok_or(none)?;
        let (first, last) = self.span(range)?;
        let index = self
            .bits
            .allocate_run_in(u32::from(order), first, last)
            .ok_or(none)?;
        Ok(Subnet::truncating(self.address(index), prefix_len))
    }

    /// Allocates `block`, inside or outside of the pool's range: all of its addresses or none.
    ///
    /// # Errors
    /// When one of its addresses is taken or reserved, or it is not a part of the pool.
    pub fn allocate_block_at(&mut self, block: Subnet) -> Result<(), AllocateError> {
        let (first, _) = self.span(block)?;
        match self
            .bits
            .allocate_run_at(first, u32::from(block.host_bits()))
        {
            Ok(()) => Ok(()),
            Err(_) => Err(self.taken(block)),
        }
    }

    /// Gives `ip` back.
    ///
    /// # Errors
    /// When it was not allocated, is reserved, or is not a part of the pool; nothing changes then.
    #[inline]
    pub fn release(&mut self, ip: IpAddr) -> Result<(), ReleaseError> {
        let Some(index) = self.numbers.index_of(ip) else {
            return Err(ReleaseError::OutOfPool {
                block: Subnet::host(ip),
                subnet: self.subnet,
            });
        };
        if let Some(role) = self.role_at(index) {
            return Err(ReleaseError::Reserved { ip, role });
        }
        let released = self.bits.release(index);
        released.map_err(|_| ReleaseError::NotAllocated {
            block: Subnet::host(ip),
        })
    }

    /// Gives all addresses of `block` back.
    ///
    /// # Errors
    /// When one of them was not allocated or is reserved, or the block is not a part of the pool;
    /// nothing changes then.
    pub fn release_block(&mut self, block: Subnet) -> Result<(), ReleaseError> {
        let Ok((first, last)) = self.span(block) else {
            return Err(ReleaseError::OutOfPool {
                block,
                subnet: self.subnet,
            });
        };
        if let Some((index, role)) = self.reserved_in(first, last) {
            return Err(ReleaseError::Reserved {
                ip: self.address(index),
                role,
            });
        }
        let order = u32::from(block.host_bits());
        self.bits
            .release_run(first, order)
            .map_err(|_| ReleaseError::NotAllocated { block })
    }

    /// Keeps `ip` from ever being handed out or released.
    ///
    /// # Errors
    /// When it is taken or reserved, or not a part of the pool.
    pub fn reserve(&mut self, ip: IpAddr, role: Role) -> Result<(), AllocateError> {
        self.allocate_at(ip)?;
        let index = self.index(ip)?;
        let place = self.reserved.partition_point(|(other, _)| *other < index);
        self.reserved.insert(place, (index, role));
        Ok(())
    }

    /// Ends the reservation of `ip`, which is free then.
    ///
    /// # Errors
    /// When it was not reserved, or is the subnet's own network or broadcast address.
    pub fn unreserve(&mut self, ip: IpAddr) -> Result<(), ReleaseError> {
        let block = Subnet::host(ip);
        let not_reserved = ReleaseError::NotAllocated { block };
        let index = self.numbers.index_of(ip).ok_or(not_reserved)?;
        let place = self
            .reserved
            .binary_search_by_key(&index, |(other, _)| *other)
            .map_err(|_| not_reserved)?;
        match self.reserved.get(place) {
            Some((_, Role::Gateway | Role::Auxiliary)) => {
                self.reserved.remove(place);
                self.bits.release(index).map_err(|_| not_reserved)
            }
            Some((_, role)) => Err(ReleaseError::Reserved { ip, role: *role }),
            None => Err(not_reserved),
        }
    }

    pub(super) fn from_parts(
        subnet: Subnet,
        range: Subnet,
        reserved: Vec<(u128, Role)>,
        bits: Bits,
    ) -> Self {
        let numbers = Numbers::of(subnet);
        let index = |ip| numbers.index_of(ip).expect("the range lies in the subnet");
        let range_span = (index(range.first()), index(range.last()));
        Self {
            subnet,
            range,
            numbers,
            range_span,
            reserved,
            bits,
        }
    }

    pub(super) fn bits(&self) -> &Bits {
        &self.bits
    }

    pub(super) fn reserved_indices(&self) -> &[(u128, Role)] {
        &self.reserved
    }

    #[inline]
    fn allocate_between(
        &mut self,
        (first, last): (u128, u128),
        range: Subnet,
    ) -> Result<IpAddr, AllocateError> {
        let index = self.bits.allocate_in(first, last);
        let index = index.ok_or(AllocateError::Exhausted { range })?;
        Ok(self.address(index))
    }

    /// The address at an index that a search gave.
    #[inline]
    pub(super) fn address(&self, index: u128) -> IpAddr {
        self.numbers
            .nth(index)
            .expect("the bitmap has as many numbers as the subnet addresses")
    }

    /// First and last index of a part of the pool.
    #[inline]
    pub(super) fn span(&self, part: Subnet) -> Result<(u128, u128), AllocateError> {
        let out = AllocateError::OutOfPool {
            block: part,
            subnet: self.subnet,
        };
        if !part.is_subnet_of(self.subnet) {
            return Err(out);
        }
        let first = self.numbers.index_of(part.first()).ok_or(out)?;
        let last = self.numbers.index_of(part.last()).ok_or(out)?;
        Ok((first, last))
    }

    /// What `index` is reserved for.
    pub(super) fn role_at(&self, index: u128) -> Option<Role> {
        self.reserved_in(index, index).map(|(_, role)| role)
    }

    /// The first reserved index of `first..=last`.
    fn reserved_in(&self, first: u128, last: u128) -> Option<(u128, Role)> {
        let place = self.reserved.partition_point(|(other, _)| *other < first);
        self.reserved
            .get(place)
            .copied()
            .filter(|(index, _)| *index <= last)
    }

    #[inline]
    fn index(&self, ip: IpAddr) -> Result<u128, AllocateError> {
        self.numbers
            .index_of(ip)
            .ok_or_else(|| AllocateError::OutOfPool {
                block: Subnet::host(ip),
                subnet: self.subnet,
            })
    }

    /// Why `block`, a part of the pool, cannot be had.
    #[cold]
    fn taken(&self, block: Subnet) -> AllocateError {
        let reserved = self
            .span(block)
            .ok()
            .and_then(|(first, last)| self.reserved_in(first, last));
        match reserved {
            Some((index, role)) => AllocateError::Reserved {
                ip: self.address(index),
                role,
            },
            None => AllocateError::AlreadyAllocated { block },
        }
    }
}
