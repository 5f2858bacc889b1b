//! Published ports.

use crate::ParseError;
use std::net::IpAddr;

/// A transport protocol that ports can be published for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

impl Protocol {
    /// The IANA protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol with this IANA number, if ports can be published for it.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }
}

impl core::fmt::Display for Protocol {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl core::str::FromStr for Protocol {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(ParseError::new(
                "protocol",
                text,
                "it is none of tcp, udp, sctp",
            )),
        }
    }
}

/// Which host ports a container port may be published on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPorts {
    /// Any free port of the host's ephemeral range.
    Ephemeral,
    /// The first free port of an inclusive range; a single port is a range of one.
    Range {
        /// The lowest port, at least 1.
        first: u16,
        /// The highest port, at least `first`.
        last: u16,
    },
}

impl HostPorts {
    /// The range `first..=last`.
    ///
    /// # Errors
    /// When `first` is 0 or larger than `last`.
    pub fn range(first: u16, last: u16) -> Result<Self, ParseError> {
        if first == 0 || first > last {
            let text = format!("{first}-{last}");
            return Err(ParseError::new(
                "port range",
                &text,
                "it must start at 1 and not descend",
            ));
        }
        Ok(Self::Range { first, last })
    }
}

/// A wish to publish one container port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortBinding {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port inside the container, at least 1.
    pub container_port: u16,
    /// The host address to publish on; none means the network's default, else every address.
    pub host_ip: Option<IpAddr>,
    /// The host ports to choose from.
    pub host_ports: HostPorts,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_round_trip() {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            assert_eq!(Protocol::from_number(protocol.number()), Some(protocol));
            assert_eq!(protocol.to_string().parse(), Ok(protocol));
        }
        assert_eq!(Protocol::from_number(1), None);
    }

    #[test]
    fn descending_ranges_and_port_zero_are_refused() {
        assert!(HostPorts::range(0, 5).is_err());
        assert!(HostPorts::range(9, 8).is_err());
        assert!(HostPorts::range(8, 8).is_ok());
    }
}
