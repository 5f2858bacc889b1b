//! Changes of the kernel's state as values: each can be applied twice without harm, and most know
//! their inverse.

use crate::Element;
use netloom_types::{Family, InterfaceAddr, LinkName, MacAddr, Protocol, Subnet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// The alias of a link: our tag, by which audit knows what is ours (`netloom:<id>`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkAlias(String);

/// `IFALIASZ` of the kernel is 256 with the closing NUL.
const ALIAS_BYTES_MAX: usize = 255;

impl LinkAlias {
    /// Wraps `text`; none when it is empty, longer than 255 bytes, or holds control characters.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let good = !text.is_empty()
            && text.len() <= ALIAS_BYTES_MAX
            && !text.chars().any(char::is_control);
        good.then_some(Self(text))
    }

    /// The alias as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A bridge to make. It is made with spanning tree and multicast snooping off, and set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeSpec {
    /// Its name.
    pub name: LinkName,
    /// Its own Ethernet address. Given, so that it does not change with the first port.
    pub mac: Option<MacAddr>,
    /// Maximum transmission unit in bytes; none means the kernel's default.
    pub mtu: Option<u32>,
    /// Our tag.
    pub alias: LinkAlias,
}

/// One end of a veth pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VethEnd {
    /// Its name.
    pub name: LinkName,
    /// Its Ethernet address; none means a random one.
    pub mac: Option<MacAddr>,
}

/// Where a link lives, or an action happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the namespace of this process.
    Host,
    /// In the network namespace at this path, which must not be the host's.
    Namespace(PathBuf),
}

/// A veth pair to make, with its host end a port of a bridge and set up, in one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VethSpec {
    /// The end that stays in the host.
    pub host: VethEnd,
    /// The end for the container.
    pub peer: VethEnd,
    /// Where the container's end is born.
    pub place: Place,
    /// The bridge that the host end becomes a port of.
    pub master: Option<LinkName>,
    /// Flags of the bridge port.
    pub flags: PortFlags,
    /// Maximum transmission unit of both ends in bytes; none means the kernel's default.
    pub mtu: Option<u32>,
    /// Our tag, on the host end.
    pub alias: LinkAlias,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// Flags of a bridge port; none leaves a flag as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortFlags {
    /// An isolated port exchanges no frames with other isolated ports (inter-container traffic
    /// off).
    pub isolated: Option<Switch>,
    /// Whether frames may leave through the port that they came from.
    pub hairpin: Option<Switch>,
    /// Whether source addresses are learned.
    pub learning: Option<Switch>,
    /// Whether frames to unknown addresses are sent out of this port.
    pub unicast_flood: Option<Switch>,
}

/// A route to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSpec {
    /// The destination; the whole family for a default route.
    pub destination: Subnet,
    /// The next hop; none means that the destination is on the link itself.
    pub gateway: Option<NextHop>,
    /// The outgoing link.
    pub link: LinkName,
    /// The source address to prefer.
    pub source: Option<IpAddr>,
    /// The priority; zero means the kernel's default.
    pub metric: u32,
}

/// The next hop of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextHop {
    /// A neighbour within a subnet of the link.
    Via(IpAddr),
    /// A neighbour that the kernel must take as on the link, whatever the subnets say.
    Onlink(IpAddr),
}

impl NextHop {
    /// Its address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        match self {
            Self::Via(ip) | Self::Onlink(ip) => ip,
        }
    }
}

/// A kernel setting under `/proc/sys/net`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SysctlKey {
    /// `ipv4/ip_forward`.
    Ipv4Forward,
    /// `ipv4/conf/LINK/send_redirects`.
    SendRedirects(LinkName),
    /// `ipv4/conf/LINK/rp_filter`.
    ReversePathFilter(LinkName),
    /// `ipv6/conf/all/forwarding`.
    Ipv6ForwardAll,
    /// `ipv6/conf/default/forwarding`.
    Ipv6ForwardDefault,
    /// `ipv6/conf/LINK/disable_ipv6`.
    DisableIpv6(LinkName),
    /// `ipv6/conf/LINK/accept_ra`.
    AcceptRa(LinkName),
    /// `ipv6/conf/LINK/accept_dad`.
    AcceptDad(LinkName),
    /// `ipv6/conf/LINK/addr_gen_mode`.
    AddrGenMode(LinkName),
    /// `bridge/bridge-nf-call-iptables`.
    BridgeCallIptables,
    /// `bridge/bridge-nf-call-ip6tables`.
    BridgeCallIp6tables,
}

/// The container's end of a pair, to be configured inside its namespace: addresses without
/// duplicate detection, set up (with loopback), then routes.
///
/// There is no inverse: the link goes away with its pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceSpec {
    /// The namespace.
    pub namespace: PathBuf,
    /// The link's name when the step begins.
    pub name: LinkName,
    /// The name it gets; none keeps it.
    pub rename: Option<LinkName>,
    /// Its addresses.
    pub addresses: Vec<InterfaceAddr>,
    /// Its routes, each added once the link is up.
    pub routes: Vec<RouteSpec>,
    /// Settings, written before the link is set up.
    pub sysctls: Vec<(SysctlKey, i32)>,
}

/// Which connection-tracking entries to flush. Every field that is given must match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConntrackFilter {
    /// The transport protocol.
    pub protocol: Option<Protocol>,
    /// The address that the first packet was sent to, before translation.
    pub original_destination: Option<IpAddr>,
    /// The port that the first packet was sent to, before translation.
    pub original_port: Option<u16>,
    /// The address that answers: the container's, also after translation.
    pub reply_source: Option<IpAddr>,
    /// The port that answers.
    pub reply_port: Option<u16>,
    /// The address that sent the first packet.
    pub original_source: Option<IpAddr>,
}

/// A change of the kernel's state.
///
/// Applying a step twice is the same as applying it once. [`KernelStep::undo`] gives the step that
/// takes it back, where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelStep {
    /// Make our tables, or mend them; elements that are there stay.
    EnsureTable,
    /// Remove our tables with everything in them. No inverse: elements are gone.
    RemoveTable,
    /// Put an element into our tables.
    AddElement(Element),
    /// Take an element out of our tables.
    DeleteElement(Element),
    /// Let the bridge's traffic pass Docker's own FORWARD chain, in both families where the chain
    /// DOCKER-USER exists; where it does not, there is nothing to do.
    AddForwardAccept {
        /// The bridge.
        bridge: LinkName,
    },
    /// Take those rules back.
    DeleteForwardAccept {
        /// The bridge.
        bridge: LinkName,
    },
    /// Make a bridge. One of the same name with the same alias counts as made.
    CreateBridge(BridgeSpec),
    /// Make a veth pair. A host end of the same name with the same alias counts as made.
    CreateVeth(VethSpec),
    /// Delete a link. No inverse.
    DeleteLink {
        /// The link.
        link: LinkName,
    },
    /// Delete many links in one go, which waits for the kernel's grace period once. No inverse.
    DeleteLinks {
        /// The links; those that are gone already are skipped.
        links: Vec<LinkName>,
    },
    /// Make a link a port of a bridge.
    SetMaster {
        /// The port.
        link: LinkName,
        /// The bridge.
        master: LinkName,
    },
    /// Take a link out of its bridge.
    ClearMaster {
        /// The port.
        link: LinkName,
    },
    /// Set a link up.
    SetUp {
        /// The link.
        link: LinkName,
    },
    /// Set a link down.
    SetDown {
        /// The link.
        link: LinkName,
    },
    /// Set the maximum transmission unit. No inverse: the old value is not known.
    SetMtu {
        /// The link.
        link: LinkName,
        /// Bytes.
        mtu: u32,
    },
    /// Set the alias of a link. No inverse: the old value is not known.
    SetAlias {
        /// The link.
        link: LinkName,
        /// The tag.
        alias: LinkAlias,
    },
    /// Give a link another name.
    Rename {
        /// The old name.
        link: LinkName,
        /// The new name.
        to: LinkName,
    },
    /// Set flags of a bridge port. No inverse: the old values are not known.
    SetPortFlags {
        /// The port.
        link: LinkName,
        /// The flags.
        flags: PortFlags,
    },
    /// Put an address on a link, without duplicate detection.
    AddAddress {
        /// The link.
        link: LinkName,
        /// The address.
        address: InterfaceAddr,
    },
    /// Take an address off a link.
    DeleteAddress {
        /// The link.
        link: LinkName,
        /// The address.
        address: InterfaceAddr,
    },
    /// Add a route to the main table.
    AddRoute(RouteSpec),
    /// Delete a route of the main table.
    DeleteRoute(RouteSpec),
    /// Move a link into a network namespace. No inverse: it goes away with its pair.
    MoveLink {
        /// The link.
        link: LinkName,
        /// The namespace.
        namespace: PathBuf,
    },
    /// Configure the container's end of a pair inside its namespace.
    ConfigureInterface(InterfaceSpec),
    /// Write a setting of this namespace. No inverse: others may rely on it by now.
    SetSysctl {
        /// Which.
        key: SysctlKey,
        /// The value.
        value: i32,
    },
    /// Flush connection-tracking entries. No inverse.
    FlushConntrack {
        /// The family to look in.
        family: Family,
        /// Which entries.
        filter: ConntrackFilter,
    },
    /// Tell the neighbours on a link who has an address (gratuitous ARP, unsolicited neighbour
    /// advertisement), so that they forget an old owner. No inverse.
    Announce {
        /// The link to send from: the bridge.
        link: LinkName,
        /// The owner's Ethernet address.
        mac: MacAddr,
        /// The address.
        address: IpAddr,
    },
}

impl KernelStep {
    /// The step that takes this one back, or none where there is none (see each variant).
    ///
    /// Only a step that changed something may be undone: otherwise the undo would remove what
    /// was there before.
    #[must_use]
    pub fn undo(&self) -> Option<Self> {
        let link = |link: &LinkName| Self::DeleteLink { link: link.clone() };
        Some(match self {
            Self::AddElement(element) => Self::DeleteElement(element.clone()),
            Self::DeleteElement(element) => Self::AddElement(element.clone()),
            Self::AddForwardAccept { bridge } => Self::DeleteForwardAccept {
                bridge: bridge.clone(),
            },
            Self::DeleteForwardAccept { bridge } => Self::AddForwardAccept {
                bridge: bridge.clone(),
            },
            Self::CreateBridge(spec) => link(&spec.name),
            Self::CreateVeth(spec) => link(&spec.host.name),
            Self::SetMaster { link, .. } => Self::ClearMaster { link: link.clone() },
            Self::SetUp { link } => Self::SetDown { link: link.clone() },
            Self::SetDown { link } => Self::SetUp { link: link.clone() },
            Self::Rename { link, to } => Self::Rename {
                link: to.clone(),
                to: link.clone(),
            },
            Self::AddAddress { link, address } => Self::DeleteAddress {
                link: link.clone(),
                address: *address,
            },
            Self::DeleteAddress { link, address } => Self::AddAddress {
                link: link.clone(),
                address: *address,
            },
            Self::AddRoute(route) => Self::DeleteRoute(route.clone()),
            Self::DeleteRoute(route) => Self::AddRoute(route.clone()),
            Self::EnsureTable
            | Self::RemoveTable
            | Self::DeleteLink { .. }
            | Self::DeleteLinks { .. }
            | Self::ClearMaster { .. }
            | Self::SetMtu { .. }
            | Self::SetAlias { .. }
            | Self::SetPortFlags { .. }
            | Self::MoveLink { .. }
            | Self::ConfigureInterface(_)
            | Self::SetSysctl { .. }
            | Self::FlushConntrack { .. }
            | Self::Announce { .. } => return None,
        })
    }
}

impl fmt::Display for KernelStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EnsureTable => f.write_str("make the netloom tables"),
            Self::RemoveTable => f.write_str("remove the netloom tables"),
            Self::AddElement(element) => write!(f, "add {element}"),
            Self::DeleteElement(element) => write!(f, "delete {element}"),
            Self::AddForwardAccept { bridge } => write!(f, "accept {bridge} in DOCKER-USER"),
            Self::DeleteForwardAccept { bridge } => {
                write!(f, "remove the accepts of {bridge} from DOCKER-USER")
            }
            Self::CreateBridge(spec) => write!(f, "make bridge {}", spec.name),
            Self::CreateVeth(spec) => write!(f, "make veth {}", spec.host.name),
            Self::DeleteLink { link } => write!(f, "delete link {link}"),
            Self::DeleteLinks { links } => write!(f, "delete {} links", links.len()),
            Self::SetMaster { link, master } => write!(f, "make {link} a port of {master}"),
            Self::ClearMaster { link } => write!(f, "take {link} out of its bridge"),
            Self::SetUp { link } => write!(f, "set {link} up"),
            Self::SetDown { link } => write!(f, "set {link} down"),
            Self::SetMtu { link, mtu } => write!(f, "set the MTU of {link} to {mtu}"),
            Self::SetAlias { link, alias } => write!(f, "tag {link} as {}", alias.as_str()),
            Self::Rename { link, to } => write!(f, "rename {link} to {to}"),
            Self::SetPortFlags { link, .. } => write!(f, "set port flags of {link}"),
            Self::AddAddress { link, address } => write!(f, "add {address} to {link}"),
            Self::DeleteAddress { link, address } => write!(f, "delete {address} from {link}"),
            Self::AddRoute(route) => {
                write!(f, "add route {} on {}", route.destination, route.link)
            }
            Self::DeleteRoute(route) => {
                write!(f, "delete route {} on {}", route.destination, route.link)
            }
            Self::MoveLink { link, namespace } => {
                write!(f, "move {link} into {}", namespace.display())
            }
            Self::ConfigureInterface(spec) => {
                write!(f, "configure {} in {}", spec.name, spec.namespace.display())
            }
            Self::SetSysctl { key, value } => write!(f, "set {key} to {value}"),
            Self::FlushConntrack { family, .. } => {
                write!(f, "flush {family} connection tracking entries")
            }
            Self::Announce { link, mac, address } => {
                write!(f, "announce {address} at {mac} on {link}")
            }
        }
    }
}

impl fmt::Display for SysctlKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4Forward => f.write_str("net/ipv4/ip_forward"),
            Self::SendRedirects(link) => write!(f, "net/ipv4/conf/{link}/send_redirects"),
            Self::ReversePathFilter(link) => write!(f, "net/ipv4/conf/{link}/rp_filter"),
            Self::Ipv6ForwardAll => f.write_str("net/ipv6/conf/all/forwarding"),
            Self::Ipv6ForwardDefault => f.write_str("net/ipv6/conf/default/forwarding"),
            Self::DisableIpv6(link) => write!(f, "net/ipv6/conf/{link}/disable_ipv6"),
            Self::AcceptRa(link) => write!(f, "net/ipv6/conf/{link}/accept_ra"),
            Self::AcceptDad(link) => write!(f, "net/ipv6/conf/{link}/accept_dad"),
            Self::AddrGenMode(link) => write!(f, "net/ipv6/conf/{link}/addr_gen_mode"),
            Self::BridgeCallIptables => f.write_str("net/bridge/bridge-nf-call-iptables"),
            Self::BridgeCallIp6tables => f.write_str("net/bridge/bridge-nf-call-ip6tables"),
        }
    }
}
