//! Addresses in the forms that Docker and other clients write them.

use netloom_types::{InterfaceAddr, ParseError};
use std::net::IpAddr;

/// A plain address, or one with a prefix length, which is dropped.
///
/// Docker sends plain addresses to IPAM drivers and ones with a length to network drivers; other
/// clients of the protocol mix them up.
pub(crate) fn plain_ip(what: &'static str, text: &str) -> Result<IpAddr, ParseError> {
    if text.contains('/') {
        return text.parse::<InterfaceAddr>().map(InterfaceAddr::ip);
    }
    text.parse()
        .map_err(|_| ParseError::new(what, text, "it is not an IP address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_taken_and_nonsense_is_not() {
        let ip: IpAddr = "10.9.0.2".parse().unwrap();
        assert_eq!(plain_ip("address", "10.9.0.2"), Ok(ip));
        assert_eq!(plain_ip("address", "10.9.0.2/16"), Ok(ip));
        for odd in ["", "10.9.0", "10.9.0.2/33", "10.9.0.2/", "x", "10.9.0.02"] {
            assert!(plain_ip("address", odd).is_err(), "{odd:?} was accepted");
        }
    }
}
