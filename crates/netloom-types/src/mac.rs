//! Ethernet addresses.

use crate::ParseError;
use std::net::IpAddr;

/// A 48-bit Ethernet address (IEEE 802), written as `02:42:0a:09:00:02`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// Any six bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// The address that Docker's own drivers derive from an IPv4 address: `02:42` and its four
    /// bytes; for IPv6 its last four bytes.
    ///
    /// A derived address lets neighbours keep their tables when a container comes back with the
    /// same address.
    #[must_use]
    pub fn from_ip(ip: IpAddr) -> Self {
        let [a, b, c, d] = match ip {
            IpAddr::V4(v4) => v4.octets(),
            IpAddr::V6(v6) => {
                let [.., a, b, c, d] = v6.octets();
                [a, b, c, d]
            }
        };
        Self([0x02, 0x42, a, b, c, d])
    }

    /// The six bytes in wire order.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Whether a station may own it: neither a group address nor all zero.
    #[must_use]
    pub fn is_unicast(self) -> bool {
        let [first, ..] = self.0;
        first & 1 == 0 && self.0 != [0; 6]
    }
}

impl core::fmt::Display for MacAddr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl core::str::FromStr for MacAddr {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bad = |reason: &str| ParseError::new("MAC address", text, reason);
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts
                .next()
                .ok_or_else(|| bad("it has fewer than six parts"))?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad("every part is two hexadecimal digits"));
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad("not hexadecimal"))?;
        }
        match parts.next() {
            Some(_) => Err(bad("it has more than six parts")),
            None => Ok(Self(bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        let mac = MacAddr::new([2, 0x42, 10, 1, 0, 255]);
        assert_eq!(mac.to_string().parse::<MacAddr>(), Ok(mac));
    }

    #[test]
    fn odd_forms_are_refused() {
        for odd in [
            "",
            "02:42",
            "02:42:0a:01:00:05:06",
            "02-42-0a-01-00-05",
            "+2:42:0a:01:00:05",
            "2:42:a:1:0:5",
        ] {
            assert!(odd.parse::<MacAddr>().is_err(), "{odd:?} was accepted");
        }
    }

    #[test]
    fn derived_addresses_are_local_unicast() {
        let mac = MacAddr::from_ip("10.1.0.5".parse().unwrap());
        assert_eq!(mac.to_string(), "02:42:0a:01:00:05");
        assert!(mac.is_unicast());
        assert!(!MacAddr::new([0xff; 6]).is_unicast());
    }
}
