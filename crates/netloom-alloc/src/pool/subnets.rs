//! Subnets cut from larger ones.

use super::SubnetError;
use netloom_types::{Family, Subnet};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Hands out subnets of larger ones, such that none overlaps another.
///
/// The lowest free subnet of the first pool that has one is given, so successive requests differ
/// and fail clearly when all are in use. What is in use elsewhere (the host's routes, say) is told
/// with each request, because it changes without this pool; leave default routes out, they overlap
/// everything.
///
/// ```
/// use netloom_alloc::{SubnetError, SubnetPool};
/// use netloom_types::Family;
///
/// let mut pool = SubnetPool::new([("172.16.0.0/14".parse()?, 16)])?;
/// let routes = ["172.17.3.0/24".parse()?];
/// assert_eq!(pool.allocate(Family::V4, &routes)?.to_string(), "172.16.0.0/16");
/// assert_eq!(pool.allocate(Family::V4, &routes)?.to_string(), "172.18.0.0/16");
/// assert_eq!(pool.allocate_sized(Family::V4, 24, &[])?.to_string(), "172.17.0.0/24");
/// assert_eq!(pool.allocate(Family::V4, &routes)?.to_string(), "172.19.0.0/16");
/// assert!(matches!(pool.allocate(Family::V4, &routes), Err(SubnetError::Exhausted { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetPool {
    /// Larger subnets, each with the prefix length that it is cut into when none is asked for.
    bases: Vec<(Subnet, u8)>,
    /// What is in use, by first address; no two overlap.
    allocated: BTreeMap<IpAddr, Subnet>,
}

impl SubnetPool {
    /// A pool of larger subnets, each with the prefix length it is cut into. They are used in
    /// order.
    ///
    /// # Errors
    /// When one cannot be cut so.
    pub fn new(bases: impl IntoIterator<Item = (Subnet, u8)>) -> Result<Self, SubnetError> {
        let bases: Vec<_> = bases.into_iter().collect();
        for (base, prefix_len) in bases.iter().copied() {
            if prefix_len < base.prefix_len() || prefix_len > base.family().bits() {
                return Err(SubnetError::BadSize { base, prefix_len });
            }
        }
        Ok(Self {
            bases,
            allocated: BTreeMap::new(),
        })
    }

    /// Allocates a subnet of the size that the first pool with a free one is cut into.
    ///
    /// # Errors
    /// [`SubnetError::Exhausted`] when all overlap something that is in use, or
    /// [`SubnetError::NoPool`] when there is no pool of this family.
    pub fn allocate(&mut self, family: Family, in_use: &[Subnet]) -> Result<Subnet, SubnetError> {
        let bases = self.bases.iter().copied();
        let cuts: Vec<_> = bases.filter(|(base, _)| base.family() == family).collect();
        self.allocate_from(&cuts, family, in_use)
    }

    /// Allocates a subnet of this prefix length from the first pool that has one free.
    ///
    /// # Errors
    /// As [`SubnetPool::allocate`].
    pub fn allocate_sized(
        &mut self,
        family: Family,
        prefix_len: u8,
        in_use: &[Subnet],
    ) -> Result<Subnet, SubnetError> {
        let fits = |base: &Subnet| {
            base.family() == family && (base.prefix_len()..=family.bits()).contains(&prefix_len)
        };
        let bases = self.bases.iter().map(|(base, _)| *base).filter(fits);
        let cuts: Vec<_> = bases.map(|base| (base, prefix_len)).collect();
        self.allocate_from(&cuts, family, in_use)
    }

    /// Notes that `subnet` is in use; it need not lie in one of the pools.
    ///
    /// # Errors
    /// [`SubnetError::Overlaps`] names the one that is in its way.
    pub fn claim(&mut self, subnet: Subnet, in_use: &[Subnet]) -> Result<(), SubnetError> {
        match self.conflict(subnet, in_use) {
            Some(with) => Err(SubnetError::Overlaps { subnet, with }),
            None => {
                self.allocated.insert(subnet.first(), subnet);
                Ok(())
            }
        }
    }

    /// Gives `subnet` back.
    ///
    /// # Errors
    /// When exactly this subnet was not in use; nothing changes then.
    pub fn release(&mut self, subnet: Subnet) -> Result<(), SubnetError> {
        if self.allocated.get(&subnet.first()) == Some(&subnet) {
            self.allocated.remove(&subnet.first());
            Ok(())
        } else {
            Err(SubnetError::NotAllocated { subnet })
        }
    }

    /// The subnets in use, in order.
    pub fn iter(&self) -> impl Iterator<Item = Subnet> {
        self.allocated.values().copied()
    }

    /// The larger subnets with the prefix length each is cut into.
    #[must_use]
    pub fn bases(&self) -> &[(Subnet, u8)] {
        &self.bases
    }

    fn allocate_from(
        &mut self,
        cuts: &[(Subnet, u8)],
        family: Family,
        in_use: &[Subnet],
    ) -> Result<Subnet, SubnetError> {
        if cuts.is_empty() {
            return Err(SubnetError::NoPool { family });
        }
        let found = cuts
            .iter()
            .find_map(|(base, len)| self.first_free(*base, *len, in_use));
        let subnet = found.ok_or(SubnetError::Exhausted { family })?;
        self.allocated.insert(subnet.first(), subnet);
        Ok(subnet)
    }

    /// The lowest subnet of `base` with this prefix length that overlaps nothing. Each step passes
    /// a subnet in use, so their number bounds the steps, not the number of candidates.
    fn first_free(&self, base: Subnet, prefix_len: u8, in_use: &[Subnet]) -> Option<Subnet> {
        let mut at = 0;
        loop {
            let candidate = Subnet::truncating(base.nth(at)?, prefix_len);
            let Some(with) = self.conflict(candidate, in_use) else {
                return Some(candidate);
            };
            // Prefixes nest: the wider of the two ends where both are passed. One that reaches
            // beyond the base has no index there, and then nothing of the base is left.
            let wider = if candidate.is_subnet_of(with) {
                with
            } else {
                candidate
            };
            at = base.index_of(wider.last())?.checked_add(1)?;
        }
    }

    /// A subnet in use that shares addresses with `subnet`.
    fn conflict(&self, subnet: Subnet, in_use: &[Subnet]) -> Option<Subnet> {
        // Those in use do not overlap, so only the last one that begins by its end can reach it.
        let before = self.allocated.range(..=subnet.last()).next_back();
        let here = before
            .map(|(_, other)| *other)
            .filter(|other| other.overlaps(subnet));
        here.or_else(|| in_use.iter().copied().find(|other| other.overlaps(subnet)))
    }
}
