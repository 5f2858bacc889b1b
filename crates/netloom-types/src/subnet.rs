//! Prefixes without host bits.

use crate::{Family, InterfaceAddr, ParseError, address};
use ipnetwork::IpNetwork;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A canonical prefix: the bits behind the prefix length are zero, so equal subnets are equal values.
///
/// `ipnetwork` accepts host bits, missing lengths and netmasks, and its size of a /0 saturates one
/// too low; this type closes these doors and has the vocabulary that an allocator needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnet(IpNetwork);

impl Subnet {
    /// The subnet `ip/prefix_len`.
    ///
    /// # Errors
    /// When the prefix is longer than the address, or `ip` has bits set behind it.
    pub fn new(ip: IpAddr, prefix_len: u8) -> Result<Self, ParseError> {
        let addr = InterfaceAddr::new(ip, prefix_len)?;
        let subnet = Self::truncating(ip, prefix_len);
        if subnet.first() != ip {
            let reason = format!("host bits are set, did you mean {subnet}?");
            return Err(ParseError::new("subnet", &addr.to_string(), reason));
        }
        Ok(subnet)
    }

    /// The subnet of `prefix_len` bits that holds `ip`; a length beyond the family's is cut to it.
    #[must_use]
    pub fn truncating(ip: IpAddr, prefix_len: u8) -> Self {
        let len = prefix_len.min(Family::of(ip).bits());
        let base = from_bits(Family::of(ip), bits(ip) & mask(Family::of(ip), len));
        Self(IpNetwork::new(base, len).expect("the length was cut to the family's"))
    }

    /// The subnet that holds the one address `ip`.
    #[must_use]
    pub fn host(ip: IpAddr) -> Self {
        Self::truncating(ip, Family::of(ip).bits())
    }

    /// The family of its addresses.
    #[must_use]
    pub fn family(self) -> Family {
        Family::of(self.0.ip())
    }

    /// Length of the prefix in bits.
    #[must_use]
    pub fn prefix_len(self) -> u8 {
        self.0.prefix()
    }

    /// Bits behind the prefix: a subnet holds `2^host_bits` addresses.
    #[must_use]
    pub fn host_bits(self) -> u8 {
        self.family().bits() - self.prefix_len()
    }

    /// Count of addresses; `u128::MAX` for `::/0`, whose true size does not fit.
    #[must_use]
    pub fn size_saturating(self) -> u128 {
        1u128
            .checked_shl(u32::from(self.host_bits()))
            .unwrap_or(u128::MAX)
    }

    /// The first address: the network address of IPv4, the subnet-router anycast address of IPv6.
    #[must_use]
    pub fn first(self) -> IpAddr {
        self.0.ip()
    }

    /// The last address: the broadcast address of IPv4.
    #[must_use]
    pub fn last(self) -> IpAddr {
        let family = self.family();
        from_bits(
            family,
            bits(self.first()) | (full(family) & !mask(family, self.prefix_len())),
        )
    }

    /// The address at `index`, counted from zero, if the subnet has that many.
    #[must_use]
    pub fn nth(self, index: u128) -> Option<IpAddr> {
        let inside = full(self.family()) & !mask(self.family(), self.prefix_len());
        (index <= inside).then(|| from_bits(self.family(), bits(self.first()) | index))
    }

    /// The index of `ip`, if it lies inside.
    #[must_use]
    pub fn index_of(self, ip: IpAddr) -> Option<u128> {
        self.contains(ip)
            .then(|| bits(ip) & !mask(self.family(), self.prefix_len()))
    }

    /// Whether `ip` lies inside; an address of the other family never does.
    #[must_use]
    pub fn contains(self, ip: IpAddr) -> bool {
        Family::of(ip) == self.family()
            && bits(ip) & mask(self.family(), self.prefix_len()) == bits(self.first())
    }

    /// Whether all of `self` lies in `other`.
    #[must_use]
    pub fn is_subnet_of(self, other: Self) -> bool {
        self.prefix_len() >= other.prefix_len() && other.contains(self.first())
    }

    /// Whether they share an address.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.is_subnet_of(other) || other.is_subnet_of(self)
    }

    /// The subnets of `prefix_len` bits that it is made of, in order.
    ///
    /// # Errors
    /// When `prefix_len` is shorter than its own or longer than the address.
    pub fn subnets(self, prefix_len: u8) -> Result<Subnets, ParseError> {
        if prefix_len < self.prefix_len() || prefix_len > self.family().bits() {
            let reason = format!("{self} cannot be cut into subnets of this length");
            return Err(ParseError::new(
                "prefix length",
                &prefix_len.to_string(),
                reason,
            ));
        }
        Ok(Subnets {
            parent: self,
            prefix_len,
            next: Some(0),
        })
    }
}

/// The subnets of one length inside another, in order; see [`Subnet::subnets`].
#[derive(Debug, Clone)]
pub struct Subnets {
    parent: Subnet,
    prefix_len: u8,
    /// Offset of the next subnet's first address from the parent's; none when all were given.
    next: Option<u128>,
}

impl Iterator for Subnets {
    type Item = Subnet;

    fn next(&mut self) -> Option<Subnet> {
        let base = self.parent.nth(self.next?)?;
        let subnet = Subnet::truncating(base, self.prefix_len);
        self.next = self
            .next
            .and_then(|at| at.checked_add(subnet.size_saturating()));
        Some(subnet)
    }
}

impl core::fmt::Display for Subnet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}/{}", self.first(), self.prefix_len())
    }
}

impl core::str::FromStr for Subnet {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (ip, len) = address::split("subnet", text)?;
        Self::new(ip, len)
    }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn from_bits(family: Family, bits: u128) -> IpAddr {
    match family {
        Family::V4 => {
            let low = u32::try_from(bits).expect("IPv4 arithmetic stays below 2^32");
            IpAddr::V4(Ipv4Addr::from_bits(low))
        }
        Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    }
}

/// All bits of an address of this family.
fn full(family: Family) -> u128 {
    match family {
        Family::V4 => u128::from(u32::MAX),
        Family::V6 => u128::MAX,
    }
}

/// The bits of the prefix.
fn mask(family: Family, prefix_len: u8) -> u128 {
    let host_bits = u32::from(family.bits() - prefix_len);
    full(family) & u128::MAX.checked_shl(host_bits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn host_bits_are_refused_with_the_canonical_form() {
        let error = "10.0.0.5/8".parse::<Subnet>().unwrap_err();
        assert!(
            error.to_string().contains("did you mean 10.0.0.0/8?"),
            "{error}"
        );
    }

    #[test]
    fn sizes_at_the_ends_are_right() {
        assert_eq!(subnet("0.0.0.0/0").size_saturating(), 1 << 32);
        assert_eq!(subnet("::/0").size_saturating(), u128::MAX);
        assert_eq!(subnet("10.0.0.1/32").size_saturating(), 1);
        assert_eq!(
            subnet("0.0.0.0/0").last(),
            "255.255.255.255".parse::<IpAddr>().unwrap()
        );
        assert_eq!(
            subnet("::/0").nth(u128::MAX),
            Some(IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)))
        );
    }

    #[test]
    fn cutting_gives_every_part_once_and_ends() {
        let parts: Vec<_> = subnet("255.255.255.0/24").subnets(26).unwrap().collect();
        assert_eq!(parts.len(), 4);
        assert_eq!(parts[3], subnet("255.255.255.192/26"));
        assert_eq!(subnet("::/0").subnets(1).unwrap().count(), 2);
        assert!(subnet("10.0.0.0/24").subnets(16).is_err());
    }

    #[test]
    fn families_do_not_mix() {
        assert!(!subnet("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(!subnet("::/0").overlaps(subnet("0.0.0.0/0")));
    }

    proptest! {
        #[test]
        fn index_and_nth_are_inverse(ip: u32, len in 0u8..=32, at: u32) {
            let subnet = Subnet::truncating(IpAddr::V4(Ipv4Addr::from_bits(ip)), len);
            let index = u128::from(at) % subnet.size_saturating();
            let found = subnet.nth(index).unwrap();
            prop_assert_eq!(subnet.index_of(found), Some(index));
            prop_assert_eq!(subnet.to_string().parse::<Subnet>().unwrap(), subnet);
        }

        #[test]
        fn overlap_is_what_shared_addresses_say(a: u16, la in 16u8..=32, b: u16, lb in 16u8..=32) {
            let of = |low: u16, len| {
                Subnet::truncating(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | u32::from(low))), len)
            };
            let (a, b) = (of(a, la), of(b, lb));
            let shared = a.first() <= b.last() && b.first() <= a.last();
            prop_assert_eq!(a.overlaps(b), shared);
        }
    }
}
