//! What the kernel has: links, addresses, routes, and our tables, as values.

use crate::Element;
use netloom_types::{InterfaceAddr, LinkName, MacAddr, Subnet};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The kernel's number of a link, unique within one network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkIndex(pub u32);

/// Whether a link was set up or down by its administrator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AdminState {
    /// Set up.
    Up,
    /// Set down.
    Down,
}

/// A link, as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: LinkIndex,
    /// Its name, as text, because names made by others need not be ours' form.
    pub name: String,
    /// Its kind: `bridge`, `veth`, `vxlan`; none for physical devices and loopback.
    pub kind: Option<String>,
    /// Up or down.
    pub state: AdminState,
    /// Whether the other end of the wire is there (`IFF_LOWER_UP`).
    pub carrier: Carrier,
    /// Its Ethernet address, if it has one.
    pub mac: Option<MacAddr>,
    /// Maximum transmission unit in bytes.
    pub mtu: u32,
    /// The bridge (or other master) that it is a port of.
    pub master: Option<LinkIndex>,
    /// For a veth end: the number of the other end, in that end's namespace.
    pub peer: Option<LinkIndex>,
    /// The namespace number of the other end, if that is in another namespace.
    pub peer_namespace: Option<i32>,
    /// The alias; ours begin with `netloom:`.
    pub alias: Option<String>,
    /// Alternative names.
    pub altnames: Vec<String>,
    /// The link group.
    pub group: u32,
}

/// Whether a link sees its medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// The medium is there.
    On,
    /// It is not.
    Off,
}

/// An address on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkAddress {
    /// The link.
    pub link: LinkIndex,
    /// The address and the length of its prefix.
    pub address: InterfaceAddr,
}

/// A unicast route of the main table (and the tables that policy rules may use).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// The destination; the whole family (`0.0.0.0/0`, `::/0`) for a default route.
    pub destination: Subnet,
    /// The next hop, if there is one.
    pub gateway: Option<IpAddr>,
    /// The outgoing link, if there is one.
    pub link: Option<LinkIndex>,
    /// The routing table (254 is main).
    pub table: u32,
    /// The priority; lower wins.
    pub metric: u32,
}

/// A neighbour (ARP or NDP cache) entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Neighbour {
    /// The link.
    pub link: LinkIndex,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Its Ethernet address, once it is known.
    pub mac: Option<MacAddr>,
    /// The kernel's state bits (`NUD_*`).
    pub state: u16,
}

/// Whether our tables are as they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableState {
    /// None of our tables is there.
    Absent,
    /// Something is missing or was changed; `EnsureTable` mends it and keeps the elements.
    Damaged {
        /// What is wrong, one sentence each.
        faults: Vec<String>,
        /// Rules of somebody else among ours, one sentence each.
        strays: Vec<String>,
    },
    /// Every chain, set and rule is there.
    Complete,
}

/// Our tables, as read from the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSnapshot {
    /// Whether chains, sets and rules are as they should be.
    pub state: TableState,
    /// The elements that are there.
    pub elements: BTreeSet<Element>,
    /// Elements in our sets that we cannot have written, described for people.
    pub strangers: Vec<String>,
}

/// One of the two rules that let a bridge's traffic pass Docker's own FORWARD chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// `-i BRIDGE -j ACCEPT`.
    In,
    /// `-o BRIDGE -j ACCEPT`.
    Out,
}

/// What the host's filter chains need, so that the traffic of our bridges passes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AcceptNeed {
    /// An accept pair for each bridge in the chain DOCKER-USER of these families.
    Chains(Vec<netloom_types::Family>),
    /// Rules of legacy iptables are in force, which we do not write.
    LegacyIptables,
}

/// A rule of ours in the chain DOCKER-USER.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForwardAccept {
    /// The family of the table (`ip filter` or `ip6 filter`).
    pub family: netloom_types::Family,
    /// The bridge.
    pub bridge: LinkName,
    /// Which of the pair.
    pub direction: Direction,
}
