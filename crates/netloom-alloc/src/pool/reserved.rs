//! Addresses that are never handed out.

use netloom_types::{Family, Subnet};

/// Why an address is never handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Role {
    /// The first address: IPv4's network address, IPv6's subnet-router anycast address
    /// (RFC 4291 section 2.6.1).
    Network,
    /// The last address of an IPv4 subnet.
    Broadcast,
    /// The gateway of the network.
    Gateway,
    /// Kept by the operator for something else.
    Auxiliary,
}

impl Role {
    /// As a byte of a snapshot.
    pub(crate) fn tag(self) -> u8 {
        match self {
            Self::Network => 0,
            Self::Broadcast => 1,
            Self::Gateway => 2,
            Self::Auxiliary => 3,
        }
    }

    pub(crate) fn from_tag(tag: u8) -> Option<Self> {
        [
            Self::Network,
            Self::Broadcast,
            Self::Gateway,
            Self::Auxiliary,
        ]
        .into_iter()
        .find(|role| role.tag() == tag)
    }
}

impl core::fmt::Display for Role {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Network => "network address",
            Self::Broadcast => "broadcast address",
            Self::Gateway => "gateway",
            Self::Auxiliary => "auxiliary address",
        })
    }
}

/// What the family reserves in `subnet`, as indices.
///
/// Two addresses or fewer leave nothing to reserve: /31 is a point-to-point link (RFC 3021), /127
/// one between routers that must not use the anycast address (RFC 6164), /32 and /128 are hosts.
pub(crate) fn of_family(subnet: Subnet) -> impl Iterator<Item = (u128, Role)> {
    let wide = subnet.host_bits() >= 2;
    let network = wide.then_some((0, Role::Network));
    let broadcast = (wide && subnet.family() == Family::V4)
        .then(|| (subnet.size_saturating() - 1, Role::Broadcast));
    network.into_iter().chain(broadcast)
}
