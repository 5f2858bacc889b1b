//! The elements of our own tables, typed: what a driver may put into the firewall.
//!
//! Rules never change while the daemon runs; only elements do. What each element makes the rules
//! do stands at its variant; the rules themselves stand in [`crate::nft`].

use netloom_types::{Family, LinkName, MacAddr, Protocol, Subnet};
use std::net::{IpAddr, SocketAddr};

/// What may reach the containers of a bridge from outside of it, per address family.
///
/// A bridge without any of the three for a family is closed to new connections from outside in
/// that family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InboundMode {
    /// Only what came through a published port of ours (gateway mode `nat`).
    Nat,
    /// Echo requests and the ports listed as [`Element::Open`] (gateway mode `routed`).
    Routed,
    /// Everything (gateway mode `nat-unprotected`).
    Unprotected,
}

/// The host's side of a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostAddress {
    /// Every local address of the family, except loopback, which a relay process carries.
    Any(Family),
    /// One address. It must be local when a packet arrives, else the element does nothing.
    One(IpAddr),
}

impl HostAddress {
    /// The address family.
    #[must_use]
    pub fn family(self) -> Family {
        match self {
            Self::Any(family) => family,
            Self::One(ip) => Family::of(ip),
        }
    }
}

/// A published port: new connections to `host` and `port` go to `target`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortMap {
    /// The host's address or addresses.
    pub host: HostAddress,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port on the host.
    pub port: u16,
    /// The container's address and port, of the same family as `host`.
    pub target: SocketAddr,
}

/// One element of our tables.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Element {
    /// A bridge of ours: traffic within it is accepted, traffic between it and any other bridge
    /// of ours is dropped in both directions, also when it came through a published port.
    Bridge(LinkName),
    /// The containers of this bridge do not reach each other by way of the host either, except
    /// through published ports. Bridge ports that are isolated keep them apart on the bridge.
    Separate(LinkName),
    /// Nothing passes between this bridge and any other link, and its containers reach nothing of
    /// the host but their own gateway's ICMP.
    Internal(LinkName),
    /// A bridge of someone else (Docker's own): nothing passes between it and ours.
    Foreign(LinkName),
    /// A link from which container addresses of [`Element::Direct`] subnets may be addressed
    /// directly.
    Trusted(LinkName),
    /// What may come in from outside.
    Inbound {
        /// The bridge.
        bridge: LinkName,
        /// The family this holds for.
        family: Family,
        /// What may come in.
        mode: InboundMode,
    },
    /// A port that is open without address translation: to everyone outside where the mode is
    /// [`InboundMode::Routed`], to [`Element::Trusted`] links where it is [`InboundMode::Nat`].
    Open {
        /// The bridge.
        bridge: LinkName,
        /// The container's address.
        address: IpAddr,
        /// The transport protocol.
        protocol: Protocol,
        /// The container's port.
        port: u16,
    },
    /// A gateway address that the host carries on `bridge`: containers of other bridges, and
    /// neighbours on the wire, do not reach the host through it.
    Gateway {
        /// The bridge that carries the address.
        bridge: LinkName,
        /// The address.
        address: IpAddr,
    },
    /// A published port.
    Port(PortMap),
    /// Connections from this subnet that leave our bridges take the host's address.
    Masquerade {
        /// The subnet. Subnets of this kind must not overlap.
        subnet: Subnet,
    },
    /// Connections from this subnet that leave our bridges take this address of the host; wins
    /// over [`Element::Masquerade`].
    SourceNat {
        /// The subnet. Subnets of this kind must not overlap.
        subnet: Subnet,
        /// The source address to take, of the same family.
        address: IpAddr,
    },
    /// Packets from the wire that address this subnet directly are dropped, unless they come from
    /// a [`Element::Trusted`] link.
    Direct {
        /// The subnet. Subnets of this kind must not overlap.
        subnet: Subnet,
    },
    /// Frames that enter the host through this bridge port are checked: the source must be one of
    /// the port's [`Element::PortMac`] and [`Element::PortAddress`], and router advertisements,
    /// redirects and DHCP server replies are dropped.
    Guarded(LinkName),
    /// An Ethernet address that may send through a guarded port.
    PortMac {
        /// The bridge port (host end of the veth pair).
        port: LinkName,
        /// The address.
        mac: MacAddr,
    },
    /// An IP address that may send through a guarded port.
    PortAddress {
        /// The bridge port (host end of the veth pair).
        port: LinkName,
        /// The address.
        address: IpAddr,
    },
}

impl std::fmt::Display for Element {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bridge(link) => write!(f, "bridge {link}"),
            Self::Separate(link) => write!(f, "separation within bridge {link}"),
            Self::Internal(link) => write!(f, "internal bridge {link}"),
            Self::Foreign(link) => write!(f, "foreign bridge {link}"),
            Self::Trusted(link) => write!(f, "trusted link {link}"),
            Self::Inbound {
                bridge,
                family,
                mode,
            } => write!(f, "inbound {family} mode {mode:?} of {bridge}"),
            Self::Open {
                bridge,
                address,
                protocol,
                port,
            } => write!(f, "open port {address} {port}/{protocol} of {bridge}"),
            Self::Gateway { bridge, address } => write!(f, "gateway {address} of {bridge}"),
            Self::Port(PortMap {
                host,
                protocol,
                port,
                target,
            }) => match host {
                HostAddress::Any(family) => {
                    write!(
                        f,
                        "port {port}/{protocol} on every {family} address to {target}"
                    )
                }
                HostAddress::One(ip) => write!(f, "port {port}/{protocol} on {ip} to {target}"),
            },
            Self::Masquerade { subnet } => write!(f, "masquerade of {subnet}"),
            Self::SourceNat { subnet, address } => {
                write!(f, "source address {address} for {subnet}")
            }
            Self::Direct { subnet } => write!(f, "direct access protection of {subnet}"),
            Self::Guarded(port) => write!(f, "guard of port {port}"),
            Self::PortMac { port, mac } => write!(f, "source {mac} of port {port}"),
            Self::PortAddress { port, address } => write!(f, "source {address} of port {port}"),
        }
    }
}
