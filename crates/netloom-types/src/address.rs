//! Single addresses and their families.

use crate::{ParseError, Subnet};
use std::net::IpAddr;

/// The address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4, RFC 791.
    V4,
    /// IPv6, RFC 8200.
    V6,
}

impl Family {
    /// The family of `ip`.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Bits of an address: 32 or 128.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

impl core::fmt::Display for Family {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// An address as an interface carries it: with the length of its subnet's prefix (`10.9.0.5/16`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceAddr {
    ip: IpAddr,
    prefix_len: u8,
}

impl InterfaceAddr {
    /// `ip` in a subnet of `prefix_len` bits.
    ///
    /// # Errors
    /// When the prefix is longer than the address.
    pub fn new(ip: IpAddr, prefix_len: u8) -> Result<Self, ParseError> {
        if prefix_len > Family::of(ip).bits() {
            let text = format!("{ip}/{prefix_len}");
            return Err(ParseError::new(
                "address",
                &text,
                "the prefix is longer than the address",
            ));
        }
        Ok(Self { ip, prefix_len })
    }

    /// `ip` as a member of `subnet`.
    ///
    /// # Errors
    /// When `ip` does not lie in `subnet`.
    pub fn in_subnet(ip: IpAddr, subnet: Subnet) -> Result<Self, ParseError> {
        if !subnet.contains(ip) {
            let reason = format!("it does not lie in {subnet}");
            return Err(ParseError::new("address", &ip.to_string(), reason));
        }
        Ok(Self {
            ip,
            prefix_len: subnet.prefix_len(),
        })
    }

    /// The address.
    #[must_use]
    pub const fn ip(self) -> IpAddr {
        self.ip
    }

    /// Length of the subnet's prefix in bits.
    #[must_use]
    pub const fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// The family of the address.
    #[must_use]
    pub fn family(self) -> Family {
        Family::of(self.ip)
    }

    /// The subnet that the address lies in.
    #[must_use]
    pub fn subnet(self) -> Subnet {
        Subnet::truncating(self.ip, self.prefix_len)
    }
}

impl core::fmt::Display for InterfaceAddr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix_len)
    }
}

impl core::str::FromStr for InterfaceAddr {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (ip, prefix_len) = split("address", text)?;
        Self::new(ip, prefix_len)
    }
}

/// Splits `ADDRESS/LENGTH`, in the one spelling that this project accepts: no netmask form, no
/// missing length, no sign, no leading zero (which some programs read as octal).
pub(crate) fn split(what: &'static str, text: &str) -> Result<(IpAddr, u8), ParseError> {
    let bad = |reason: &str| ParseError::new(what, text, reason);
    let (ip, len) = text
        .split_once('/')
        .ok_or_else(|| bad("the prefix length is missing, write for example 10.9.0.0/16"))?;
    let ip: IpAddr = ip
        .parse()
        .map_err(|_| bad("the part before the slash is not an address"))?;
    let plain = !len.is_empty() && len.len() <= 3 && len.bytes().all(|b| b.is_ascii_digit());
    if !plain || (len.len() > 1 && len.starts_with('0')) {
        return Err(bad("the prefix length is not a plain number"));
    }
    let len: u8 = len
        .parse()
        .map_err(|_| bad("the prefix length is too large"))?;
    if len > Family::of(ip).bits() {
        return Err(bad("the prefix is longer than the address"));
    }
    Ok((ip, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_spellings_are_refused() {
        for odd in [
            "10.0.0.1",
            "10.0.0.1/",
            "10.0.0.1/+8",
            "10.0.0.1/08",
            "10.0.0.1/255.0.0.0",
            "10.0.0.1/33",
            "::1/129",
            "10.0.0.1/8/8",
            "x/8",
        ] {
            assert!(
                odd.parse::<InterfaceAddr>().is_err(),
                "{odd:?} was accepted"
            );
        }
    }

    #[test]
    fn the_subnet_has_no_host_bits() {
        let addr: InterfaceAddr = "10.9.3.4/16".parse().unwrap();
        assert_eq!(addr.subnet(), "10.9.0.0/16".parse().unwrap());
    }
}
