//! From addresses to indices and back, with the subnet's bounds worked out once.

use netloom_types::Subnet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A subnet as numbers: its first address, and the index of its last.
///
/// `Subnet` answers the same questions, working out masks each time; that would be more than
/// half of what an allocation costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    V4 { first: u32, last: u32 },
    V6 { first: u128, last: u128 },
}

impl Numbers {
    pub(crate) fn of(subnet: Subnet) -> Self {
        match (subnet.first(), subnet.last()) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                let first = first.to_bits();
                Self::V4 {
                    first,
                    last: last.to_bits() - first,
                }
            }
            (first, last) => {
                let bits = |ip| match ip {
                    IpAddr::V4(v4) => u128::from(v4.to_bits()),
                    IpAddr::V6(v6) => v6.to_bits(),
                };
                Self::V6 {
                    first: bits(first),
                    last: bits(last) - bits(first),
                }
            }
        }
    }

    /// The index of `ip`, if it lies in the subnet.
    #[inline]
    pub(crate) fn index_of(self, ip: IpAddr) -> Option<u128> {
        match (self, ip) {
            (Self::V4 { first, last }, IpAddr::V4(ip)) => {
                let index = ip.to_bits().checked_sub(first)?;
                (index <= last).then(|| u128::from(index))
            }
            (Self::V6 { first, last }, IpAddr::V6(ip)) => {
                let index = ip.to_bits().checked_sub(first)?;
                (index <= last).then_some(index)
            }
            _ => None,
        }
    }

    /// The address at `index`, if the subnet has that many.
    #[inline]
    pub(crate) fn nth(self, index: u128) -> Option<IpAddr> {
        match self {
            Self::V4 { first, last } => {
                let index = u32::try_from(index).ok().filter(|index| *index <= last)?;
                Some(IpAddr::V4(Ipv4Addr::from_bits(first + index)))
            }
            Self::V6 { first, last } => {
                (index <= last).then(|| IpAddr::V6(Ipv6Addr::from_bits(first + index)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_are_those_of_the_subnet() {
        let subnets = [
            "0.0.0.0/0",
            "10.9.0.0/16",
            "255.255.255.255/32",
            "::/0",
            "fd00::/64",
        ];
        for subnet in subnets.map(|text| text.parse::<Subnet>().unwrap()) {
            let numbers = Numbers::of(subnet);
            for ip in [
                "0.0.0.0",
                "10.8.255.255",
                "10.9.0.0",
                "10.9.255.255",
                "10.10.0.0",
                "::",
            ] {
                let ip = ip.parse().unwrap();
                assert_eq!(
                    numbers.index_of(ip),
                    subnet.index_of(ip),
                    "{ip} in {subnet}"
                );
            }
            for ip in [
                "255.255.255.255",
                "fd00::",
                "fd00::ffff:ffff:ffff:ffff",
                "fd00:0:0:1::",
            ] {
                let ip = ip.parse().unwrap();
                assert_eq!(
                    numbers.index_of(ip),
                    subnet.index_of(ip),
                    "{ip} in {subnet}"
                );
            }
            for index in [
                0,
                1,
                65_535,
                65_536,
                u128::from(u32::MAX),
                1 << 32,
                u128::MAX,
            ] {
                assert_eq!(
                    numbers.nth(index),
                    subnet.nth(index),
                    "number {index} of {subnet}"
                );
            }
        }
    }
}
