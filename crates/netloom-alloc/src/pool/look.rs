//! Looking at a pool: counts, states, lists, differences.

use super::{AddressPool, Role};
use crate::Side;
use netloom_types::Subnet;
use std::net::IpAddr;

/// What an address of a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressState {
    /// It can be had.
    Free,
    /// It is handed out.
    Allocated,
    /// It is never handed out.
    Reserved(Role),
    /// It is not a part of the pool.
    OutOfPool,
}

impl AddressPool {
    /// What `ip` is.
    #[must_use]
    pub fn state(&self, ip: IpAddr) -> AddressState {
        let Some(index) = self.subnet().index_of(ip) else {
            return AddressState::OutOfPool;
        };
        match self.role_at(index) {
            Some(role) => AddressState::Reserved(role),
            None if self.bits().is_allocated(index) => AddressState::Allocated,
            None => AddressState::Free,
        }
    }

    /// How many addresses are handed out, reserved ones left out; saturates at `u128::MAX`.
    #[must_use]
    pub fn allocated(&self) -> u128 {
        self.allocated_in(self.subnet())
    }

    /// How many addresses of `part` are handed out, reserved ones left out; 0 for what is not a
    /// part of the pool. Saturates at `u128::MAX`.
    #[must_use]
    pub fn allocated_in(&self, part: Subnet) -> u128 {
        let Ok((first, last)) = self.span(part) else {
            return 0;
        };
        let reserved = self.count_reserved(first, last);
        self.bits()
            .allocated_in(first, last)
            .saturating_sub(reserved)
    }

    /// How many addresses of the pool's range are free; saturates at `u128::MAX`.
    #[must_use]
    pub fn free(&self) -> u128 {
        let Ok((first, last)) = self.span(self.range()) else {
            return 0;
        };
        match self.bits().allocated_in(first, last) {
            0 => (last - first).saturating_add(1),
            taken => (last - first) - (taken - 1).min(last - first),
        }
    }

    /// The addresses that are never handed out, in order.
    pub fn reserved(&self) -> impl Iterator<Item = (IpAddr, Role)> {
        self.reserved_indices()
            .iter()
            .map(|(index, role)| (self.address(*index), *role))
    }

    /// The addresses that are handed out, in order.
    #[must_use]
    pub fn iter(&self) -> Allocated<'_> {
        Allocated {
            pool: self,
            next: Some(0),
        }
    }

    /// What is handed out in only one of two pools, in order: of the journal and the kernel, say.
    ///
    /// ```
    /// use netloom_alloc::{AddressPool, Side};
    ///
    /// let mut journal = AddressPool::new("fd00:9::/64".parse()?);
    /// let kernel = journal.clone();
    /// let ip = journal.allocate()?;
    /// let found: Vec<_> = journal.difference(&kernel).collect();
    /// assert_eq!(found, [(ip, Side::Left)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn difference<'a>(&'a self, other: &'a Self) -> PoolDifference<'a> {
        let (mut left, mut right) = (self.iter(), other.iter());
        PoolDifference {
            heads: (left.next(), right.next()),
            left,
            right,
        }
    }

    /// Bytes held, on the heap and in the value itself.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        let reserved = size_of_val(self.reserved_indices());
        // The bitmap counts its own value, which is a part of this one.
        size_of::<Self>() - size_of_val(self.bits()) + self.bits().bytes_held() + reserved
    }

    fn count_reserved(&self, first: u128, last: u128) -> u128 {
        let inside = |(index, _): &&(u128, Role)| (first..=last).contains(index);
        self.reserved_indices().iter().filter(inside).count() as u128
    }
}

impl<'a> IntoIterator for &'a AddressPool {
    type Item = IpAddr;
    type IntoIter = Allocated<'a>;

    fn into_iter(self) -> Allocated<'a> {
        self.iter()
    }
}

/// The addresses that are handed out; see [`AddressPool::iter`].
#[derive(Debug, Clone)]
pub struct Allocated<'a> {
    pool: &'a AddressPool,
    /// The index to look from; none behind the last one.
    next: Option<u128>,
}

impl Iterator for Allocated<'_> {
    type Item = IpAddr;

    fn next(&mut self) -> Option<IpAddr> {
        loop {
            let found = self.pool.bits().next_taken(self.next?)?;
            self.next = found.checked_add(1);
            if self.pool.role_at(found).is_none() {
                return Some(self.pool.address(found));
            }
        }
    }
}

/// What is handed out in only one of two pools; see [`AddressPool::difference`].
#[derive(Debug, Clone)]
pub struct PoolDifference<'a> {
    left: Allocated<'a>,
    right: Allocated<'a>,
    heads: (Option<IpAddr>, Option<IpAddr>),
}

impl Iterator for PoolDifference<'_> {
    type Item = (IpAddr, Side);

    fn next(&mut self) -> Option<Self::Item> {
        while self.heads.0.is_some() && self.heads.0 == self.heads.1 {
            self.heads = (self.left.next(), self.right.next());
        }
        match self.heads {
            (Some(a), b) if b.is_none_or(|b| a < b) => {
                self.heads.0 = self.left.next();
                Some((a, Side::Left))
            }
            (_, Some(b)) => {
                self.heads.1 = self.right.next();
                Some((b, Side::Right))
            }
            _ => None,
        }
    }
}
